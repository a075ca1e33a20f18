"""Damaged files of a run are detected, reported, and restored from other files where possible."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Cli, command

from qlora_tui.config.run import RunConfig
from qlora_tui.engine.session import Session
from qlora_tui.errors import ConfigError, DataError, ModelError
from qlora_tui.runs import checksums, damage, events, jobs, log_length, store
from qlora_tui.runs.checkpoints import MARKER, CheckpointFolder, seal, why_incomplete
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.fingerprint import check_data, check_plan, identity, read_plan, record
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

__all__ = ["command"]


@pytest.fixture
def run() -> RunFolder:
    return store.create("one", RunConfig(), {"model": "starter", "created_s": 1.0})


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


def test_every_flipped_bit_of_the_settings_is_detected_or_harmless(run: RunFolder) -> None:
    content = run.config.read_bytes()
    for bit in range(0, len(content) * 8, 11):
        run.config.write_bytes(content)
        flip(run.config, bit)
        assert run.load_config() == RunConfig(), "the copy in plan.json is used"


def test_truncated_settings_are_detected(run: RunFolder) -> None:
    content = run.config.read_bytes()
    written = content[: content.rindex(b"# Checksum")]
    for size_bytes in range(0, len(written), 3):
        run.config.write_bytes(content[:size_bytes])
        assert run.load_config() == RunConfig(), "the copy in plan.json is used"
        assert any("run.toml is damaged" in sentence for sentence in damage.found(run, RunState()))
    changed = written.replace(b"seed = 42", b"seed = 43", 1)
    run.config.write_bytes(changed)
    assert run.load_config() == RunConfig.model_validate({"training": {"seed": 43}})


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a" * 5000, "."])
def test_checksum_list_with_impossible_file_name_is_damage(run: RunFolder, name: str) -> None:
    run.adapter.mkdir()
    (run.adapter / damage.ADAPTER_LIST).write_text(json.dumps({"files": {name: {"size_bytes": 1}}}))
    assert any("The adapter is damaged" in sentence for sentence in damage.found(run, RunState()))


def test_settings_replaced_by_a_pipe_are_restored(run: RunFolder) -> None:
    run.config.unlink()
    os.mkfifo(run.config)
    assert run.load_config() == RunConfig(), "the copy in plan.json is used"
    assert "run.toml is damaged: it is a named pipe, not a regular file." in damage.found(run, RunState())[0]
    run.plan.unlink()
    with pytest.raises(ConfigError, match=r"run\.toml is damaged: it is a named pipe") as raised:
        run.load_config()
    assert "Restore it" in raised.value.hint


def test_damaged_settings_without_a_copy_are_refused(run: RunFolder) -> None:
    text = run.config.read_text()
    run.plan.unlink()
    run.config.write_text(text.replace("seed = 42", "seed = 43", 1))
    with pytest.raises(ConfigError, match="checksum") as raised:
        run.load_config()
    assert "remove the checksum in its last line" in raised.value.hint
    run.config.write_text("".join(run.config.read_text().splitlines(keepends=True)[:-1]))
    assert run.load_config() != RunConfig()


def test_every_flipped_bit_of_the_plan_is_detected_or_harmless(run: RunFolder) -> None:
    content, plan = run.plan.read_bytes(), read_plan(run)
    for bit in range(0, len(content) * 8, 11):
        run.plan.write_bytes(content)
        flip(run.plan, bit)
        assert read_plan(run).items() >= plan.items() or read_plan(run) == {}


def test_files_written_before_checksums_are_read(run: RunFolder) -> None:
    run.config.write_text("".join(run.config.read_text().splitlines(keepends=True)[:-1]))
    run.plan.write_text('{"model": "starter"}')
    assert run.load_config() == RunConfig()
    assert read_plan(run) == {"model": "starter"}
    assert damage.found(run, RunState()) == []


def loaded(**facts: str) -> events.ModelLoaded:
    return events.ModelLoaded(
        model="starter", parameters=1, trainable_parameters=1, parameters_by_dtype={}, stored_bytes=1,
        trainable_bytes=1, **facts,
    )  # fmt: skip


Lose = Callable[[Path], object]


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_text("{")])
def test_data_and_model_identity_is_restored_without_the_plan(run: RunFolder, lose: Lose) -> None:
    record(run, data_fingerprint="d", model_fingerprint="m")
    writer = EventWriter(run.events)
    writer.write(events.DatasetReady(train_rows=1, eval_rows=0, report={"fingerprint": "d", "commits": {}}))
    writer.write(loaded(fingerprint="m"))
    lose(run.plan)
    assert (identity(run)["data_fingerprint"], identity(run)["model_fingerprint"]) == ("d", "m")
    with pytest.raises(DataError, match="has changed"):
        check_data(run, "other", resuming=True, accept=False)
    said = check_plan(run, resuming=True, accept=False)
    assert said is not None and "plan.json" in said
    assert json.loads(run.plan.read_text())["data_fingerprint"] == "d"
    assert check_plan(run, resuming=True, accept=False) is None


def test_resume_with_unknown_data_and_model_is_refused_unless_accepted(run: RunFolder) -> None:
    run.plan.unlink()
    with pytest.raises(DataError, match=r"plan\.json of run 'one' is missing") as raised:
        check_plan(run, resuming=True, accept=False)
    assert "--accept-changed-data" in raised.value.hint
    assert check_plan(run, resuming=True, accept=True)


def adapter(run: RunFolder) -> Path:
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 8)
    (run.adapter / "README.md").write_text("a card")
    checksums.write_list(run.adapter, damage.ADAPTER_LIST, leave_out=lambda path: path.suffix == ".md")
    return run.adapter / "adapter_model.safetensors"


def test_damaged_adapter_is_reported_with_an_alternative(run: RunFolder, command: Cli) -> None:
    weights = adapter(run)
    (run.adapter / "README.md").write_text("a card that was edited")
    damage.check_adapter(run, run.adapter)
    assert damage.found(run, RunState(), by_content=True) == []
    flip(weights, 999)
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is damaged") as raised:
        damage.check_adapter(run, run.adapter)
    assert "no intact checkpoint" in raised.value.hint
    assert "adapter_model.safetensors is damaged" in command("runs", "show", "one").out
    folder = run.checkpoints / "checkpoint-3"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text('{"global_step": 3}')
    seal(folder)
    with pytest.raises(ModelError) as raised:
        damage.check_adapter(run, run.adapter)
    assert "--checkpoint 3" in raised.value.hint


def test_an_adapter_saved_before_checksums_is_used(run: RunFolder) -> None:
    weights = adapter(run)
    (run.adapter / damage.ADAPTER_LIST).unlink()
    flip(weights, 999)
    damage.check_adapter(run, run.adapter)


def test_damaged_lines_of_the_log_are_reported(run: RunFolder, command: Cli) -> None:
    writer = EventWriter(run.events)
    writer.write(events.Warned(code="x", message="y"))
    flip(run.events, 300)
    assert jobs.replay(run).damaged_lines == 1
    assert "1 line is damaged" in command("runs", "list").err
    assert "1 line is damaged" in command("runs", "show", "one").out
    assert json.loads(command("runs", "show", "one", "--json").out)["damage"]


def warned(run: RunFolder, *numbers: int) -> None:
    writer = EventWriter(run.events)
    for number in numbers:
        writer.write(events.Warned(code="x", message=str(number)))
    writer.close()


@pytest.mark.parametrize(("removed", "missing"), [([0], 1), ([3], 1), ([3, 4], 2), ([2, 5], 2), ([9], 0), ([], 0)])
def test_removed_lines_of_the_log_are_reported(run: RunFolder, removed: list[int], missing: int) -> None:
    warned(run, *range(10))
    lines = run.events.read_bytes().splitlines(keepends=True)
    run.events.write_bytes(b"".join(line for number, line in enumerate(lines) if number not in removed))
    assert jobs.replay(run).missing_lines == missing
    follower = Follower(run)
    follower.catch_up()
    assert follower.state.missing_lines == missing
    assert bool(damage.found(run, follower.state)) == bool(missing)
    warned(run, 10)
    follower.catch_up()
    assert follower.state.missing_lines == jobs.replay(run).missing_lines == missing


def test_damaged_line_is_not_reported_as_missing_too(run: RunFolder) -> None:
    warned(run, *range(10))
    lines = run.events.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"4", b"5")
    run.events.write_bytes(b"".join(lines))
    state = jobs.replay(run)
    assert (state.damaged_lines, state.missing_lines, state.last_line) == (1, 0, 10)


def test_truncated_log_of_an_ended_run_is_reported(run: RunFolder) -> None:
    session = Session(run, RunState())
    session.emit(events.Started(attempt=1, pid=1, process_start_s=1.0))
    session.emit_last(events.Finished(step=1, train_seconds=1.0))
    assert damage.found(run, jobs.replay(run)) == []
    lines = run.events.read_bytes().splitlines(keepends=True)
    run.events.write_bytes(lines[0])
    (said,) = damage.found(run, jobs.replay(run))
    assert "1 line is missing at the end" in said
    run.events.unlink()
    (said,) = damage.found(run, jobs.replay(run))
    assert "2 lines are missing at the end" in said
    again = Session(run, None)
    assert again.lines_before == 0


def test_length_of_the_log_is_not_stored_in_a_damaged_plan(run: RunFolder) -> None:
    run.plan.write_text("{")
    log_length.store(run, 3)
    assert run.plan.read_text() == "{"
    assert log_length.truncated_lines(run, 0) == 0


@pytest.mark.parametrize("content", ['{"files": {}}', '{"files": []}', "{}"])
def test_checkpoint_without_listed_files_is_incomplete(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 3}')
    (folder / MARKER).write_text(content)
    assert why_incomplete(CheckpointFolder(folder, 3)) is not None


def test_checkpoint_with_the_former_checksum_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 3}')
    listed = {"trainer_state.json": {"size_bytes": 18, "crc32": 0}}
    (folder / MARKER).write_text(json.dumps({"files": listed}))
    assert why_incomplete(CheckpointFolder(folder, 3)) == "trainer_state.json is damaged"
    from zlib import crc32

    listed["trainer_state.json"]["crc32"] = crc32(b'{"global_step": 3}')
    (folder / MARKER).write_text(json.dumps({"files": listed}))
    assert why_incomplete(CheckpointFolder(folder, 3)) is None
