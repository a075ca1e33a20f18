"""The log of a run: whole lines, in order, whatever happens to the writer."""

import json
from pathlib import Path

import pytest

from qlora_tui.errors import StorageError
from qlora_tui.runs import events
from qlora_tui.runs.event_log import EventReader, EventWriter


def step(number: int) -> events.Step:
    return events.Step(
        step=number, epoch=0.0, loss=0.5, learning_rate=1e-4, grad_norm=1.0, tokens=number * 10, tokens_per_s=100.0
    )


def test_events_come_back_as_they_were_written_in_order_and_numbered(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    writer = EventWriter(log)
    written = [writer.write(step(number)) for number in range(1, 6)]
    assert list(EventReader(log).read()) == written
    assert [event.seq for event in written] == [1, 2, 3, 4, 5]
    assert all(event.time_s > 0 for event in written)


def test_a_second_writer_goes_on_counting(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    first = EventWriter(log)
    first.write(step(1))
    first.close()
    second = EventWriter(log)
    assert second.write(step(2)).seq == 2


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    writer = EventWriter(log)
    writer.write(step(1))
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:20])
    reader = EventReader(log)
    assert len(list(reader.read())) == 1
    log.write_bytes(whole + whole)
    assert len(list(reader.read())) == 1
    assert reader.unreadable_lines == 0


@pytest.mark.parametrize("kept_bytes", [1, 30, -1])
def test_a_writer_cuts_off_what_a_killed_one_left_half_written(tmp_path: Path, kept_bytes: int) -> None:
    log = tmp_path / "events.jsonl"
    writer = EventWriter(log)
    writer.write(step(1))
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:kept_bytes])
    EventWriter(log).write(step(2))
    reader = EventReader(log)
    assert [event.seq for event in reader.read()] == [1, 2]
    assert reader.unreadable_lines == 0


def test_lines_that_are_no_event_are_counted_and_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    writer = EventWriter(log)
    writer.write(step(1))
    with log.open("ab") as file:
        file.write(b'not json\n{"kind": "from_the_future", "seq": 2}\n\xff\xfe\n')
    EventWriter(log).write(step(2))
    reader = EventReader(log)
    assert [event.step for event in reader.read() if isinstance(event, events.Step)] == [1, 2]
    assert reader.unreadable_lines == 3


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_is_detected_or_harmless(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    writer = EventWriter(log)
    written = [writer.write(step(1)), writer.write(events.Warned(code="x", message="ü")), writer.write(step(2))]
    content = log.read_bytes()
    for bit in range(0, len(content) * 8, 5):
        log.write_bytes(flipped(content, bit))
        reader = EventReader(log)
        read = list(reader.read())
        assert all(event in written for event in read), f"bit {bit} changed an event without a warning"
        torn = not log.read_bytes().endswith(b"\n")  # as left by a writer that was killed
        assert read == written or reader.damaged_lines or torn, f"bit {bit} lost an event without a warning"


def test_lines_written_before_checksums_are_read(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text(step(1).model_dump_json() + "\n")
    EventWriter(log).write(step(2))
    reader = EventReader(log)
    assert [event.v for event in reader.read()] == [1, 2]
    assert reader.damaged_lines == reader.unreadable_lines == 0


def test_missing_checksum_of_a_line_is_detected(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    written = EventWriter(log).write(step(1))
    log.write_text(written.model_dump_json() + "\n")
    reader = EventReader(log)
    assert list(reader.read()) == []
    assert reader.damaged_lines == 1


def test_lines_of_a_later_version_are_not_reported_as_damaged(tmp_path: Path) -> None:
    class Later(events.Warned):
        kind: str = "from_the_future"  # type: ignore[assignment]

    log = tmp_path / "events.jsonl"
    EventWriter(log).write(Later(code="x", message="y"))
    reader = EventReader(log)
    assert list(reader.read()) == []
    assert (reader.damaged_lines, reader.unreadable_lines) == (0, 1)


def test_a_text_of_any_length_stays_readable(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    EventWriter(log).write(events.Failed(message="x" * (20 << 20)))
    (read,) = EventReader(log).read()
    assert isinstance(read, events.Failed) and read.message.startswith("xxx")


def test_a_reader_of_a_run_that_has_not_begun_sees_nothing(tmp_path: Path) -> None:
    assert list(EventReader(tmp_path / "events.jsonl").read()) == []


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*events\.jsonl"):
        list(EventReader(log).read())


def test_text_of_any_kind_stays_on_one_line_of_ascii_compatible_json(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    text = "a\nb\x1b[31m\u2028 ü 漢\x00"
    EventWriter(log).write(events.Warned(code="x", message=text))
    lines = log.read_bytes().split(b"\n")
    assert len(lines) == 2
    assert json.loads(lines[0])["message"] == text


@pytest.mark.parametrize(
    "event",
    [
        events.Warned(code="x", message="k\udce9.jsonl"),
        events.DatasetReady(train_rows=1, eval_rows=0, report={"longest": [1, "k\udce9.jsonl:3"]}),
    ],
)
def test_a_file_name_that_is_no_utf_8_is_said_with_a_mark_in_its_place(tmp_path: Path, event: events.AnyEvent) -> None:
    log = tmp_path / "events.jsonl"
    EventWriter(log).write(event)
    (read,) = EventReader(log).read()
    assert "k?.jsonl" in read.model_dump_json()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"missing/events\.jsonl"):
        EventWriter(tmp_path / "missing" / "events.jsonl")
