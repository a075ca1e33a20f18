"""Every step of a part of a long run can be read from its log."""

import gc
from pathlib import Path

import pytest

from qlora_tui.config.run import RunConfig
from qlora_tui.runs import events, store
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.events import AnyEvent
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.garbage import uncollected
from qlora_tui.runs.store import RunFolder


def step(number: int, loss: float = 1.0) -> events.Step:
    return events.Step(
        step=number, epoch=0, loss=loss, learning_rate=1e-4, grad_norm=1, tokens=number, tokens_per_s=1,
    )  # fmt: skip


def written(log: list[AnyEvent]) -> RunFolder:
    run = store.create("one", RunConfig(), {})
    run.events.write_text("".join(event.model_dump_json() + "\n" for event in log))
    return run


def read(run: RunFolder, low: int, high: int) -> list[tuple[int, float | None]]:
    follower = Follower(run)
    follower.catch_up()
    found = follower.index.read(run.events, low, high, lambda: False)
    return [(point.step, point.loss) for point in found.points()]


@pytest.fixture(scope="module")
def long_log() -> list[AnyEvent]:
    return [step(number, loss=9.0 if number == 7_001 else 1 + number % 3) for number in range(1, 12_001)]


def test_every_step_of_a_part_is_read(long_log: list[AnyEvent]) -> None:
    run = written(long_log)
    assert read(run, 6_900, 7_100) == [
        (number, 9.0 if number == 7_001 else 1 + number % 3) for number in range(6_900, 7_101)
    ]
    assert read(run, 11_999, 20_000) == [(11_999, 3.0), (12_000, 1.0)]
    assert read(run, 1, 2) == [(1, 2.0), (2, 3.0)]


def test_only_the_part_is_read(long_log: list[AnyEvent]) -> None:
    run = written(long_log)
    follower = Follower(run)
    follower.catch_up()
    looked = 0

    def is_cancelled() -> bool:
        nonlocal looked
        looked += 1
        return False

    follower.index.read(run.events, 6_900, 7_100, is_cancelled)
    assert looked <= 5, "a few batches of 64 KiB"


def test_a_run_that_went_back_has_the_steps_of_its_last_attempt() -> None:
    log: list[AnyEvent] = [step(number, loss=1.0) for number in range(1, 9_001)]
    log.append(events.Started(attempt=2, pid=1, process_start_s=1.0, resumed_from_step=5_000))
    log += [step(number, loss=2.0) for number in range(5_001, 7_001)]
    found = read(written(log), 4_990, 7_000)
    assert found == [(number, 1.0 if number <= 5_000 else 2.0) for number in range(4_990, 7_001)]


def test_what_is_appended_is_indexed(tmp_path: Path) -> None:
    run = written([])
    writer = EventWriter(run.events)
    follower = Follower(run)
    for number in range(1, 31):
        writer.write(step(number))
        assert follower.advance()
    found = follower.index.read(run.events, 10, 12, lambda: False)
    assert [point.step for point in found.points()] == [10, 11, 12]


def test_reading_again_ends_when_it_is_cancelled(long_log: list[AnyEvent]) -> None:
    run = written(long_log)
    follower = Follower(run)
    follower.catch_up()
    assert follower.index.read(run.events, 1, 12_000, lambda: True).points() == []


def test_a_log_is_read_without_collections_of_garbage(
    long_log: list[AnyEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower(written(long_log))
    enabled = []

    def advance() -> list[AnyEvent]:
        enabled.append(gc.isenabled())
        return Follower.advance(follower)

    monkeypatch.setattr(follower, "advance", advance)
    with uncollected():
        follower.catch_up()
        assert not gc.isenabled(), "another reader is at work"
    assert gc.isenabled()
    assert enabled and not any(enabled)
    assert follower.state.step_number == 12_000
