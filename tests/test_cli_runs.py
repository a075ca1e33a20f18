"""Runs from the command line, with a worker that trains nothing: what is said, written and returned."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import PROGRAM, Cli, command, fake_worker, kill, until

from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ExitCode, StorageError
from qlora_tui.runs import events, jobs, store
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

__all__ = ["command", "fake_worker"]
Behave = Callable[[str], None]


def stepped(state: RunState) -> bool:
    return state.step_number > 0


@pytest.fixture
def waiting(command: Cli, fake_worker: Behave) -> RunFolder:
    """A run whose worker has made a step and waits to be told something."""
    fake_worker("wait")
    assert command("train", "starter", "--name", "one", "--detach").code == 0
    run = store.find("one")
    until(run, stepped)
    return run


def test_training_in_the_foreground_says_what_happens_and_ends_with_the_adapter(
    command: Cli, fake_worker: Behave
) -> None:
    result = command("train", "starter", "--name", "one")
    assert (result.code, result.out) == (0, "")
    for said in ("plan: 4 steps", "step 4/4", "checkpoint-4", "one finished: 4 steps", "qlora-tui chat one"):
        assert said in result.err
    assert store.find("one").load_config().model.id == "starter"


def test_a_run_without_a_name_gets_one_from_its_preset(command: Cli, fake_worker: Behave) -> None:
    for name in ("starter-1", "starter-2"):
        assert command("train", "starter", "--detach").out == f"{name}\n"


def test_runs_show_reports_how_a_crashed_run_ended(command: Cli, waiting: RunFolder) -> None:
    kill(waiting)
    result = command("runs", "show", "one")
    assert result.code == 0
    assert "the worker of one died at step" in result.out
    assert str(waiting.stdio) in result.out
    assert "`qlora-tui resume one` continues from the start" in result.out


def test_flags_win_over_the_preset_and_reach_the_frozen_configuration(
    command: Cli, fake_worker: Behave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    monkeypatch.chdir(tmp_path)
    words = ("--data", "rows.jsonl", "--set", "training.seed=7", "--replan-on-oom", "--name", "one", "--detach")
    result = command("train", "starter", *words)
    assert result.code == 0, result.err
    run = store.find("one")
    config = run.load_config()
    assert config.data.source == str(tmp_path / "rows.jsonl")
    assert config.training.seed == 7
    state = until(run, lambda state: bool(state.warnings))
    assert state.warnings[0].message == "--replan-on-oom"
    plan = json.loads(run.plan.read_text())
    assert plan["preset"] == "starter"
    assert plan["versions"]["torch"] and plan["machine"]["cpu_cores"] > 0


def test_a_file_is_trained_like_a_preset(command: Cli, fake_worker: Behave, tmp_path: Path) -> None:
    file = tmp_path / "my run.toml"
    file.write_text("[training]\nseed = 9\n")
    assert command("train", str(file), "--detach").out == "my-run-1\n"
    assert store.find("my-run-1").load_config().training.seed == 9


def test_json_is_every_event_and_nothing_else(command: Cli, fake_worker: Behave) -> None:
    result = command("train", "starter", "--name", "one", "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["kind"], events[-1]["kind"]) == ("created", "finished")
    again = command("watch", "one", "--json")
    assert again.out == result.out


def test_a_taken_name_is_a_conflict(command: Cli, fake_worker: Behave) -> None:
    command("train", "starter", "--name", "one")
    result = command("train", "starter", "--name", "one")
    assert result.code == 5
    assert "--name" in result.err


def test_replace_moves_the_earlier_run_to_the_bin(command: Cli, fake_worker: Behave) -> None:
    command("train", "starter", "--name", "one", "--set", "training.seed=1")
    replaced = command("train", "starter", "--name", "one", "--set", "training.seed=2", "--replace", "--detach")
    assert replaced.code == 0, replaced.err
    assert "qlora-tui runs restore one --name NEW" in replaced.err
    assert store.find("one").load_config().training.seed == 2
    assert command("runs", "restore", "one", "--name", "before").code == 0
    assert store.find("before").load_config().training.seed == 1
    assert command("train", "starter", "--name", "new", "--replace", "--detach").code == 0, "a free name is as good"
    assert command("train", "starter", "--replace").code == 2


def test_running_run_is_not_replaced_and_failed_replacement_changes_nothing(
    command: Cli, waiting: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_LOCK_PATIENCE_S", 0.1)
    assert command("train", "starter", "--name", "one", "--replace").code == 5
    assert jobs.is_alive(waiting)
    command("stop", "one")

    def full(path: Path, content: object) -> None:
        raise StorageError(f"cannot write {path}: no space left")

    monkeypatch.setattr("qlora_tui.atomic.write_json", full)
    assert command("train", "starter", "--name", "one", "--replace").code == 11
    assert jobs.look(store.find("one")).status == "stopped"


def test_a_failed_run_returns_its_own_exit_code_and_makes_its_words_inert(command: Cli, fake_worker: Behave) -> None:
    fake_worker("fail")
    result = command("train", "starter", "--name", "one")
    assert result.code == 10
    assert "error: row 7 of evil.jsonl\nhint: Fix it.\n" in result.err
    for again in (command("watch", "one"), command("attach", "one")):
        assert again.code == 10
        assert "row 7 of evil.jsonl" in again.err
    assert "row 7 of evil.jsonl" in command("runs", "show", "one").out


def test_a_worker_that_does_not_start_keeps_the_folder_and_says_why(command: Cli, fake_worker: Behave) -> None:
    fake_worker("mute")
    result = command("train", "starter", "--name", "one")
    assert result.code == 12
    assert "libfake.so.1" in result.err
    assert "\none\tcreated" in command("runs", "list").out


def test_a_finished_run_is_told_and_not_resumed(command: Cli, fake_worker: Behave) -> None:
    command("train", "starter", "--name", "one")
    watched = command("watch", "one")
    assert watched.code == 0
    assert "one finished: 4 steps" in watched.err
    assert command("resume", "one").code == 5
    for words in (["stop", "one"], ["save", "one"], ["cancel", "one", "--yes"]):
        result = command(*words)
        assert result.code == 5
        assert "not running" in result.err


def test_stop_waits_for_the_checkpoint_and_resume_continues_from_it(
    command: Cli, fake_worker: Behave, waiting: RunFolder
) -> None:
    stopped = command("stop", "one", "--json")
    assert json.loads(stopped.out) == {
        "schema_version": 1,
        "run": "one",
        "status": "stopped",
        "step": 1,
        "checkpoint_step": 1,
    }
    assert not jobs.is_alive(waiting)
    told = command("watch", "one")
    assert told.code == 0
    assert "qlora-tui resume one" in told.err
    fake_worker("finish")
    resumed = command("resume", "one", "--accept-changed-data")
    assert resumed.code == 0
    assert "resumed from checkpoint of step 1" in resumed.err
    state = jobs.replay(waiting)
    assert (state.attempt, state.step_number) == (2, 4)
    assert state.warnings[-1].message == "--accept-changed-data"


def test_save_returns_when_the_checkpoint_is_written_and_the_run_goes_on(command: Cli, waiting: RunFolder) -> None:
    result = command("save", "one", "--json")
    assert json.loads(result.out) == {"schema_version": 1, "run": "one", "checkpoint_step": 1}
    assert (waiting.checkpoints / "checkpoint-1" / "complete.json").is_file()
    assert jobs.is_alive(waiting)


def test_a_live_run_is_listed_and_neither_removed_nor_resumed(command: Cli, waiting: RunFolder) -> None:
    listed = json.loads(command("runs", "list", "--json").out)["runs"]
    assert (listed[0]["name"], listed[0]["status"], listed[0]["step"]) == ("one", "running", 1)
    shown = json.loads(command("runs", "show", "one", "--json").out)
    assert shown["pid"] == jobs.replay(waiting).pid
    assert shown["config"]["model"]["id"] == "starter"
    removed = command("runs", "rm", "one", "--yes")
    assert removed.code == 5
    assert "qlora-tui stop one" in removed.err
    assert command("resume", "one").code == 5
    assert jobs.is_alive(waiting)


def test_a_run_whose_log_cannot_be_read_is_listed_beside_the_others(command: Cli) -> None:
    for name in ("one", "two"):
        store.create(name, RunConfig(), {"model": "starter"})
    log = store.find("two").events
    log.mkdir()
    listed = command("runs", "list")
    assert listed.code == 0
    assert sorted(line.split("\t")[:2] for line in listed.out.splitlines()[1:]) == [
        ["one", "created"],
        ["two", "unreadable"],
    ]
    assert f"two is unreadable: cannot read {log}" in listed.err
    shown = command("runs", "show", "two")
    assert (shown.code, shown.out) == (ExitCode.STORAGE, "")
    assert f"cannot read {log}" in shown.err


def test_cancel_needs_a_yes_and_ends_the_run(command: Cli, waiting: RunFolder) -> None:
    assert command("cancel", "one").code == 2
    assert jobs.is_alive(waiting)
    result = command("cancel", "one", "--yes", "--json")
    assert json.loads(result.out)["status"] == "cancelled"
    assert not jobs.is_alive(waiting)
    assert command("watch", "one").code == 8


def test_a_crash_is_told_with_the_way_back(command: Cli, waiting: RunFolder) -> None:
    command("save", "one")
    kill(waiting)
    result = command("watch", "one")
    assert result.code == 1
    assert "died at step 1 while training" in result.err
    assert "`qlora-tui resume one` continues from step 1" in result.err
    assert "\tcrashed\t" in command("runs", "list").out


def test_a_dead_run_has_no_time_left_and_says_each_warning_once(command: Cli, waiting: RunFolder) -> None:
    kill(waiting)
    writer = EventWriter(waiting.events)
    for number in (2, 3):
        step = {"step": number, "epoch": 0, "loss": 1, "learning_rate": 1e-4, "grad_norm": 1}
        writer.write(events.Step(**step, tokens=1, tokens_per_s=1))
        writer.write(events.Warned(code="data", message="18 rows equal to an earlier one"))
    writer.close()
    shown = command("runs", "show", "one").out
    assert " left" not in shown
    assert shown.count("18 rows equal") == 1


def test_a_watcher_sees_a_worker_die(waiting: RunFolder) -> None:
    process = typed("watch", "one")
    read_until(process, "one is running")
    kill(waiting)
    read_until(process, "died at step 1")
    assert process.wait() == 1


def typed(*words: str) -> "subprocess.Popen[str]":
    """The command as a process of its own, so that it can be interrupted."""
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stderr=subprocess.PIPE, text=True)


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """stderr up to the line that holds `words`."""
    assert process.stderr is not None
    text = ""
    for line in process.stderr:
        text += line
        if words in line:
            return text
    raise AssertionError(f"{words!r} was never said: {text}")


def test_ctrl_c_while_training_stops_with_a_checkpoint(fake_worker: Behave) -> None:
    fake_worker("wait")
    process = typed("train", "starter", "--name", "one")
    read_until(process, "step 1/4")
    process.send_signal(signal.SIGINT)
    assert "qlora-tui resume one" in read_until(process, "stopped at step 1")
    assert process.wait() == 0
    assert jobs.look(store.find("one")).status == "stopped"


def test_a_second_ctrl_c_cancels(fake_worker: Behave) -> None:
    fake_worker("deaf")
    process = typed("train", "starter", "--name", "one")
    read_until(process, "hears nothing")
    process.send_signal(signal.SIGINT)
    read_until(process, "stopping with a checkpoint")
    process.send_signal(signal.SIGINT)
    read_until(process, "cancelling one")
    os.killpg(jobs.replay(store.find("one")).pid, signal.SIGKILL)
    assert "error: one was cancelled" in read_until(process, "was cancelled")
    assert process.wait() == 8


def test_ctrl_c_while_watching_leaves_the_run_alone(waiting: RunFolder) -> None:
    process = typed("watch", "one")
    read_until(process, "one is running")
    process.send_signal(signal.SIGINT)
    assert "qlora-tui watch one" in read_until(process, "continues in the background. To watch it again")
    assert process.wait() == 0
    assert jobs.is_alive(waiting)


def test_a_terminal_shows_progress_and_no_foreign_escape(fake_worker: Behave) -> None:
    fake_worker("fail")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, "train", "starter", "--name", "one"], stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how a terminal says that the other side has gone
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    assert process.wait() == 10
    assert b"plan: 4 steps" in shown
    assert b"row 7 of evil.jsonl" in shown
    assert b"\x1b[31m" not in shown


def test_the_end_of_the_shell_is_not_the_end_of_the_run(fake_worker: Behave) -> None:
    fake_worker("wait")
    process = typed("train", "starter", "--name", "one")
    read_until(process, "step 1/4")
    process.send_signal(signal.SIGHUP)
    process.wait()
    assert jobs.is_alive(store.find("one"))


@pytest.mark.parametrize("behaviour", ["wait", "slow-wait"])
def test_sigterm_stops_a_foreground_run_with_a_checkpoint(fake_worker: Behave, behaviour: str) -> None:
    """As sent by CI jobs, SLURM or containers, including while the worker is starting."""
    fake_worker(behaviour)
    process = typed("train", "starter", "--name", "one")
    read_until(process, "step 1/4" if behaviour == "wait" else "run one in")
    while not store.find("one").stdio.exists():  # made when the worker is started
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    run = store.find("one")
    assert not jobs.is_alive(run)
    assert jobs.look(run).status == "stopped"
    assert jobs.replay(run).checkpoints


def test_sigterm_while_watching_does_not_affect_the_run(waiting: RunFolder) -> None:
    process = typed("watch", "one")
    read_until(process, "one is running")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert jobs.is_alive(waiting)


@pytest.mark.parametrize("moved", [True, False])
def test_moved_or_deleted_folder_of_a_foreground_run_is_reported(fake_worker: Behave, moved: bool) -> None:
    fake_worker("wait")
    process = typed("train", "starter", "--name", "one")
    read_until(process, "step 1/4")
    run = store.find("one")
    pid = jobs.replay(run).pid
    if moved:
        run.path.rename(run.path.with_name("two"))
    else:
        shutil.rmtree(run.path)
    os.killpg(pid, signal.SIGKILL)  # as the worker does by itself
    said = process.communicate()[1]
    assert process.returncode == 11
    if moved:
        assert f"moved to {run.path.with_name('two')}" in said and "qlora-tui resume two" in said
    else:
        assert "was moved or deleted" in said
    assert str(run.stdio) not in said, "it is not there any more"
