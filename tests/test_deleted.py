"""The bin of deleted runs: runs can be restored for seven days, then they are removed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Cli, command

from qlora_tui import paths
from qlora_tui.config.overrides import resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import NotFoundError, RunConflictError
from qlora_tui.runs import creation, deleted, jobs, queue, store

__all__ = ["command"]


def made(name: str, seed: int = 42) -> store.RunFolder:
    return store.create(name, resolve(overrides=[f"training.seed={seed}"]), {})


def aged(entry: deleted.DeletedRun, age_s: float) -> None:
    """Set the deletion time of the run to this long ago."""
    slot = entry.run.path.parent
    slot.rename(slot.with_name(str(int((time.time() - age_s) * 1e9))))


def test_the_run_that_was_deleted_last_is_restored() -> None:
    deleted.delete(made("one", seed=1))
    deleted.delete(made("one", seed=2))
    assert store.all_runs() == []
    assert [entry.name for entry in deleted.entries()] == ["one", "one"]
    assert deleted.restore(deleted.find("one")).load_config().training.seed == 2
    with pytest.raises(RunConflictError, match="'one' exists already"):
        deleted.restore(deleted.find("one"))
    assert deleted.restore(deleted.find("one"), "two").load_config().training.seed == 1
    with pytest.raises(NotFoundError, match="in the bin"):
        deleted.find("one")
    assert list((paths.runs() / ".bin").iterdir()) == []


def test_a_deleted_run_is_kept_for_seven_days_and_then_removed() -> None:
    for name, age_s in (("young", deleted.KEPT_S - 60), ("old", deleted.KEPT_S + 60)):
        aged(deleted.delete(made(name)), age_s)
    assert [entry.name for entry in deleted.entries()] == ["young"]
    creation.create(RunConfig(), "new", None)
    assert [path.name for path in (paths.runs() / ".bin").glob("*/*")] == ["young"]
    assert deleted.restore(deleted.find("young")) == store.find("young")


def test_interrupted_removal_is_finished_by_the_next_one() -> None:
    entry = deleted.delete(made("one"))
    slot = entry.run.path.parent
    slot.rename(slot.with_name(f"purging-{slot.name}"))
    assert deleted.entries() == []
    deleted.purge()
    assert list((paths.runs() / ".bin").iterdir()) == []


def test_restored_run_does_not_replace_another() -> None:
    entry = deleted.delete(made("one"))
    (paths.runs() / "one").mkdir()
    with pytest.raises(RunConflictError):
        deleted.restore(entry)
    assert deleted.find("one") == entry


def test_a_deleted_run_no_longer_waits_in_the_queue() -> None:
    queue.add(made("one").name)
    queue.add(made("two").name)
    deleted.delete(store.find("one"))
    assert [entry.name for entry in queue.waiting()] == ["two"]


def test_a_running_run_is_not_deleted(monkeypatch: pytest.MonkeyPatch, command: Cli) -> None:
    monkeypatch.setattr(jobs, "_LOCK_PATIENCE_S", 0.1)
    run = made("one")
    with jobs.hold(run):
        with pytest.raises(RunConflictError, match="busy"):
            deleted.delete(run)
        refused = command("runs", "delete", "one")
    assert (refused.code, deleted.entries()) == (5, [])
    assert "qlora-tui stop one" in refused.err


def test_another_process_restores_what_this_one_deleted(command: Cli) -> None:
    run = made("one", seed=7)
    result = command("runs", "delete", "one")
    assert (result.code, result.out) == (0, "")
    assert "qlora-tui runs restore one" in result.err
    program = [sys.executable, "-m", "qlora_tui", "runs", "restore", "one"]
    restored = subprocess.run(program, capture_output=True, text=True, check=True)
    assert restored.stderr == "restored one\n"
    assert run.load_config().training.seed == 7


def test_bin_lists_the_expiry_of_each_run(command: Cli) -> None:
    assert command("runs", "bin").err == "the bin is empty\n"
    made("one")
    entry = deleted.delete(store.find("one"))
    (row,) = json.loads(command("runs", "bin", "--json").out)["bin"]
    assert (row["name"], row["size_bytes"] > 0) == ("one", True)
    assert row["until_s"] - row["deleted_s"] == deleted.KEPT_S
    moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.until_s))
    assert moment in command("runs", "bin").out
    aged(entry, deleted.KEPT_S + 1)
    assert json.loads(command("runs", "bin", "--json").out)["bin"] == []
    assert list((paths.runs() / ".bin").iterdir()) == []


def test_restore_suggests_the_nearest_name_and_accepts_a_new_one(command: Cli) -> None:
    made("alpha")
    command("runs", "delete", "alpha")
    missed = command("runs", "restore", "alpah")
    assert missed.code == 4
    assert "Did you mean 'alpha'?" in missed.err
    assert command("runs", "restore", "alpha", "--name", "../x").code == 2
    assert command("runs", "restore", "alpha", "--name", "beta").code == 0
    assert [run.name for run in store.all_runs()] == ["beta"]


def test_permanent_deletion_asks_and_frees_the_disk(command: Cli) -> None:
    for name in ("one", "two"):
        made(name)
    assert command("runs", "rm", "one", "two").code == 2
    assert len(store.all_runs()) == 2
    result = command("runs", "rm", "one", "two", "--yes", "--json")
    assert [each["name"] for each in json.loads(result.out)["deleted"]] == ["one", "two"]
    assert (store.all_runs(), deleted.entries()) == ([], [])


def test_emptying_the_bin_asks_and_frees_the_disk(command: Cli, tmp_path: Path) -> None:
    assert command("runs", "empty-bin").code == 0
    deleted.delete(made("one"))
    assert command("runs", "empty-bin").code == 2
    assert deleted.entries()
    result = json.loads(command("runs", "empty-bin", "--yes", "--json").out)
    assert (result["deleted"], result["freed_bytes"] > 0) == (["one"], True)
    assert deleted.entries() == []
