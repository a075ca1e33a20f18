"""A run belongs to no shell: the one that started it may close, and any other attaches, stops it and resumes it."""

import json
import subprocess
import sys
from pathlib import Path

from training_material import SMALL, Runs, course

from qlora_tui.runs import jobs, store

_PROGRAM = [sys.executable, "-m", "qlora_tui"]


def shell(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command in a shell of its own, whose terminal session ends with it."""
    return subprocess.run(
        [*_PROGRAM, *arguments], cwd=folder, capture_output=True, text=True, start_new_session=True, check=False
    )


def test_one_shell_starts_another_watches_stops_and_resumes(runs: Runs, tmp_path: Path) -> None:
    flags = [part for setting in (*SMALL, "training.max_steps=30") for part in ("--set", setting)]
    started = shell(tmp_path, "train", "--name", "mine", "--detach", *flags)
    assert started.returncode == 0, started.stderr
    assert started.stdout.strip() == "mine"
    run = store.find("mine")
    runs.made.append(run)
    runs.follow(run, lambda state: state.step_number >= 2)

    stopped = shell(tmp_path, "stop", "mine")
    assert stopped.returncode == 0, stopped.stderr
    state = jobs.replay(run)
    assert state.stopped is not None and state.stopped.checkpoint_step == state.step_number
    assert state.stopped.reason == "stop_and_save"

    resumed = shell(tmp_path, "resume", "mine", "--detach")
    assert resumed.returncode == 0, resumed.stderr
    watched = shell(tmp_path, "watch", "mine", "--json")
    assert watched.returncode == 0, watched.stderr
    assert json.loads(watched.stdout.splitlines()[-1])["kind"] == "finished"
    whole = store.create("whole", run.load_config(), {})
    runs.made.append(whole)
    assert course(jobs.replay(run)) == course(runs.train(whole))


def test_cancel_ends_a_run_that_is_still_loading(runs: Runs, tmp_path: Path) -> None:
    run = runs.create("mine")
    runs.train(run, lambda state: state.stage is not None and state.stage.stage == "importing")
    assert shell(tmp_path, "cancel", "mine", "--yes").returncode == 0
    assert jobs.look(run).status == "cancelled"
    assert not run.adapter.exists()


def test_save_now_writes_a_checkpoint_and_goes_on(runs: Runs, tmp_path: Path) -> None:
    run = runs.create("mine", "training.max_steps=40", "training.save_every_steps=40")
    runs.train(run, lambda state: state.step_number >= 1)
    saved = shell(tmp_path, "save", "mine")
    assert saved.returncode == 0, saved.stderr
    state = runs.follow(run)
    assert state.phase == "finished"
    assert len(state.checkpoints) == 2
    assert state.checkpoints[0].step < 40
