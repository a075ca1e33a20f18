"""Checkpoints: which one a run continues from when some were cut short, damaged or renamed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qlora_tui.config.run import RunConfig
from qlora_tui.engine import worker
from qlora_tui.engine.session import Session
from qlora_tui.errors import StorageError
from qlora_tui.runs import checkpoints, checksums, events, jobs, store
from qlora_tui.runs.checkpoints import MARKER, CheckpointFolder
from qlora_tui.runs.event_log import EventWriter

Damage = Callable[[Path], object]


def written(folder: Path, step: int) -> Path:
    """A whole checkpoint with files of the kinds that a trainer writes."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 40)
    (checkpoint / "optimizer.pt").write_bytes(b"moments" * 1000)
    (checkpoint / "rng_state.pth").write_bytes(b"random")
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    checkpoints.seal(checkpoint)
    return checkpoint


def flip_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def of_another_step(checkpoint: Path) -> None:
    (checkpoint / "trainer_state.json").write_text('{"global_step": 4}')
    checkpoints.seal(checkpoint)


DAMAGES: list[tuple[Damage, str]] = [
    (lambda folder: flip_one_byte(folder / "adapter_model.safetensors"), "adapter_model.safetensors is damaged"),
    (lambda folder: flip_one_byte(folder / "optimizer.pt"), "optimizer.pt is damaged"),
    (lambda folder: cut(folder / "optimizer.pt"), "optimizer.pt has 6999 of 7000 bytes"),
    (lambda folder: (folder / "rng_state.pth").unlink(), "rng_state.pth is missing"),
    (lambda folder: (folder / MARKER).unlink(), "incomplete"),
    (of_another_step, "trainer_state.json is of step 4"),
    (lambda folder: (folder / MARKER).write_bytes(b"\xff\x00"), "cannot be read"),
    (lambda folder: (folder / MARKER).write_text("[]"), "cannot be read"),
    (lambda folder: (folder / MARKER).write_text('{"files": ["optimizer.pt"]}'), "cannot be read"),
    (lambda folder: (folder / MARKER).write_text('{"files": {}, "torn'), "cannot be read"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, damage: Damage, reason: str) -> None:
    written(tmp_path, 3)
    newest = written(tmp_path, 6)
    assert checkpoints.newest_complete(tmp_path) == (CheckpointFolder(newest, 6), [])
    damage(newest)
    found, [(skipped, said)] = checkpoints.newest_complete(tmp_path)
    assert (found and found.step, skipped.step) == (3, 6)
    assert reason in said


def test_a_run_whose_checkpoints_are_all_damaged_starts_over(tmp_path: Path) -> None:
    for step in (3, 6):
        cut(written(tmp_path, step) / "optimizer.pt")
    found, skipped = checkpoints.newest_complete(tmp_path)
    assert found is None
    assert [folder.step for folder, _ in skipped] == [6, 3]


def test_a_disk_that_cannot_be_read_is_no_damage(tmp_path: Path) -> None:
    """Nothing may be thrown away for it."""
    marker = written(tmp_path, 3) / MARKER
    marker.unlink()
    marker.mkdir()
    with pytest.raises(StorageError, match=MARKER) as raised:
        checkpoints.newest_complete(tmp_path)
    assert "checkpoint-3" in raised.value.hint


def test_old_checkpoints_go_and_the_best_one_stays(tmp_path: Path) -> None:
    for step in (3, 6, 9, 12):
        written(tmp_path, step)
    checkpoints.discard_older(tmp_path, keep=2, keep_also=frozenset({3}))
    assert [folder.step for folder in checkpoints.all_checkpoints(tmp_path)] == [12, 9, 3]


def test_only_what_was_not_written_to_the_end_is_discarded(tmp_path: Path) -> None:
    written(tmp_path, 3)
    shutil.copytree(tmp_path / "checkpoint-3", tmp_path / "checkpoint-6", ignore=lambda *_: [MARKER])
    checkpoints.discard_unwritten(tmp_path)
    assert [folder.step for folder in checkpoints.all_checkpoints(tmp_path)] == [3]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    """A worker's side of a run that made six steps and was killed."""
    monkeypatch.setattr(Session, "listen", lambda _: None)  # the signals here are those of the tests
    run = store.create("one", RunConfig(), {})
    writer = EventWriter(run.events)
    writer.write(events.Started(attempt=1, pid=1, process_start_s=1.0))
    for number in range(1, 7):
        writer.write(
            events.Step(step=number, epoch=0, loss=1, learning_rate=1e-4, grad_norm=1, tokens=1, tokens_per_s=1)
        )
    writer.close()
    return Session(run, jobs.replay(run))


def test_a_worker_says_that_it_has_begun_before_it_reads_a_checkpoint_whole(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes on a slow disk take minutes, and whoever started the worker waits for its first word."""
    newest = written(session.run.checkpoints, 6)
    read = checksums._of_file
    heard: list[tuple[int, int, str]] = []

    def note(path: Path) -> str:
        state = jobs.replay(session.run)
        heard.append((state.attempt, state.step_number, state.stage.stage if state.stage else ""))
        return read(path)

    monkeypatch.setattr(checksums, "_of_file", note)
    promised, _ = checkpoints.newest_complete(session.run.checkpoints, by_content=False)
    assert worker._begin(session, promised) == promised == CheckpointFolder(newest, 6)
    assert heard[:1] == [(2, 6, "verifying")]


def test_a_damaged_checkpoint_is_put_aside_and_the_attempt_begins_at_the_one_before(session: Session) -> None:
    for step in (3, 6):
        written(session.run.checkpoints, step)
    flip_one_byte(session.run.checkpoints / "checkpoint-6" / "optimizer.pt")
    promised, _ = checkpoints.newest_complete(session.run.checkpoints, by_content=False)
    found = worker._begin(session, promised)
    assert [checkpoint and checkpoint.step for checkpoint in (promised, found)] == [6, 3]
    state = jobs.replay(session.run)
    assert (state.attempt, state.step_number) == (2, 3)
    kept = session.run.checkpoints / "damaged-6"
    assert [warning.message for warning in state.warnings] == [
        f"checkpoint-6 is not resumed from: optimizer.pt is damaged. What is left of it is in {kept}."
    ]
    assert (kept / "adapter_model.safetensors").stat().st_size == 256 * 40
    assert [folder.step for folder in checkpoints.all_checkpoints(session.run.checkpoints)] == [3]


def test_only_the_last_damaged_checkpoints_are_kept_and_none_that_is_half_written(tmp_path: Path) -> None:
    for step in (3, 6, 9):
        written(tmp_path, step)
    (tmp_path / "checkpoint-9" / MARKER).unlink()
    cut(tmp_path / "checkpoint-6" / "optimizer.pt")
    said = checkpoints.put_aside(checkpoints.newest_complete(tmp_path)[1])
    assert ["was deleted" in said[0], "damaged-6" in said[1]] == [True, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "damaged-6"]
    cut(tmp_path / "checkpoint-3" / "optimizer.pt")
    checkpoints.put_aside(checkpoints.newest_complete(tmp_path)[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-3"]
    checkpoints.put_aside([])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-3"]
