"""Experiment trackers: checked before loading, with the run's name, settings and outcome."""

import json
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from test_finished_runs import trained_here
from training_material import SMALL, Runs

from qlora_tui.config.overrides import resolve
from qlora_tui.engine import train
from qlora_tui.engine.session import Session
from qlora_tui.errors import EnvironmentProblem, ExitCode
from qlora_tui.runs import events, jobs, labels, store
from qlora_tui.runs.event_log import EventReader
from qlora_tui.runs.store import RunFolder
from qlora_tui.starter import TRAIN_DATA

FAKE_WANDB = """
import json, os, signal
def told(kind, **facts):
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps({"kind": kind, **facts}) + "\\n")
class Run:
    id, url, dir = "abc", "https://tracker.example/abc", "."
    def log(self, values, step):
        told("log", values=values, step=step)
        if os.environ.get("BROKEN"):
            raise ConnectionError("no route to host")
    def finish(self, exit_code):
        told("finish", exit_code=exit_code)
def init(**options):
    told("init", **options)
    signal.signal(signal.SIGTERM, lambda *_: None)
    if os.environ.get("LOGGED_OUT"):
        raise RuntimeError("No API key configured. Use `wandb login` to log in.")
    return Run()
"""
TRACKED = ('training.trackers=["wandb"]', "data.eval_rows=4", "training.max_steps=2", "training.eval_every_steps=1")


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tracker that writes its calls to a file."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "wandb.py").write_text(FAKE_WANDB)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setenv("TOLD", str(tmp_path / "told.jsonl"))
    for variable in ("WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "told.jsonl"


def told(path: Path, kind: str) -> list[dict[str, Any]]:
    return [row for line in path.read_text().splitlines() if (row := json.loads(line))["kind"] == kind]


def stages(run: RunFolder) -> list[str]:
    return [event.stage for event in EventReader(run.events).read() if isinstance(event, events.Stage)]


def attempt(run: RunFolder) -> None:
    session = Session(run, jobs.replay(run))
    train.run(session, run.load_config(), None, allow_download=False, accept_changed_data=False, replan_on_oom=False)


def test_a_tracker_gets_name_project_tags_settings_and_evaluations(wandb: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_bytes(TRAIN_DATA.read_bytes())
    settings = ("training.tracker_project=lamps", 'training.tracker_tags=["small"]', f"data.source={data}")
    run = store.create("one", resolve(overrides=(*SMALL, *TRACKED, *settings)), {})
    labels.set_tags(run, ["mine", "small"])
    handler = signal.getsignal(signal.SIGTERM)
    attempt(run)
    assert signal.getsignal(signal.SIGTERM) is handler, "signals stay with the worker"
    (started,) = told(wandb, "init")
    assert (started["project"], started["name"]) == ("lamps", "one")
    assert started["tags"] == ["small", "mine"]
    assert started["config"]["training.learning_rate"] == 1e-3
    assert started["config"]["data.source"] == "mine.jsonl"
    assert str(tmp_path) not in json.dumps(started["config"])
    logs = told(wandb, "log")
    state = jobs.replay(run)
    assert [row["values"]["train/loss"] for row in logs if "train/loss" in row["values"]] == [
        point.loss for point in state.steps.points()
    ]
    assert [(row["step"], row["values"]["eval/loss"]) for row in logs if "eval/loss" in row["values"]] == [
        (point.step, point.loss) for point in state.evals.points()
    ]
    assert state.finished is not None
    final = {f"final/{name}": value for name, value in state.finished.metrics.items()}
    assert logs[-1]["values"].items() >= final.items()
    assert told(wandb, "finish") == [{"kind": "finish", "exit_code": 0}]
    said = [choice for choice in state.resolved if choice.field == "training.trackers"]
    assert [(choice.value, choice.reason) for choice in said] == [("wandb", "https://tracker.example/abc")]


def test_second_attempt_continues_the_same_tracked_run(wandb: Path) -> None:
    run = store.create("one", resolve(overrides=(*SMALL, *TRACKED)), {})
    attempt(run)
    attempt(run)
    assert [started["id"] for started in told(wandb, "init")] == [None, "abc"]
    assert told(wandb, "init")[0]["project"] == "qlora-tui"


def test_a_tracker_without_login_ends_the_run_before_anything_is_loaded(
    wandb: Path, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGGED_OUT", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    run = runs.create("one", *TRACKED)
    state = runs.train(run)
    assert state.failed is not None
    assert state.failed.exit_code == ExitCode.ENVIRONMENT
    assert (
        state.failed.message
        == "the tracker wandb cannot be started: No API key configured. Use `wandb login` to log in"
    )
    assert "WANDB_API_KEY" in state.failed.hint
    assert not {"downloading", "tokenizing", "quantizing"} & set(stages(run))


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="swanlab, which is not installed") as raised:
        trained_here("one", 'training.trackers=["swanlab"]')
    assert "pip install swanlab" in raised.value.hint


def test_a_tracker_that_fails_later_does_not_end_the_run(wandb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN", "1")
    _, state = trained_here("one", *TRACKED)
    assert state.phase == "finished"
    assert [warning.message for warning in state.warnings if warning.code == "tracker"] == [
        "logging to wandb has stopped: no route to host"
    ]
    assert len(told(wandb, "log")) == 1


def test_a_run_that_fails_is_shown_as_failed(wandb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("x")

    monkeypatch.setattr(train, "_make_trainer", broken)
    run = store.create("one", resolve(overrides=(*SMALL, *TRACKED)), {})
    with pytest.raises(ValueError, match="x"):
        attempt(run)
    assert told(wandb, "finish") == [{"kind": "finish", "exit_code": 1}]


@pytest.mark.long
@pytest.mark.parametrize("name", ["tensorboard", "trackio", "mlflow", "wandb", "swanlab"])
def test_real_trackers_take_a_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, where they are installed: `pip install 'qlora-tui[trackers]'`."""
    pytest.importorskip(name)
    for variable, value in (("WANDB_MODE", "offline"), ("SWANLAB_MODE", "offline")):
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.chdir(tmp_path)
    run, state = trained_here("one", f'training.trackers=["{name}"]', *TRACKED[1:])
    assert state.phase == "finished"
    assert not [warning for warning in state.warnings if warning.code == "tracker"]
    loss = state.evals.last and state.evals.last.loss
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        curves = EventAccumulator(str(run.path / "tensorboard")).Reload()
        assert curves.Scalars("eval/loss")[-1].value == pytest.approx(loss)
    if name == "mlflow":
        with sqlite3.connect(Path(str(run.path)).parents[1] / "mlflow.db") as database:
            (found,) = database.execute("select value from latest_metrics where key = 'eval/loss'").fetchone()
            ((run_name,),) = database.execute("select name from runs").fetchall()
            status = database.execute("select status from runs").fetchone()[0]
            rate = database.execute("select value from params where key = 'training.learning_rate'").fetchone()[0]
        assert (found, run_name, status, rate) == (pytest.approx(loss), "one", "FINISHED", "0.001")
    if name == "wandb":
        assert list((run.path / "wandb").glob("offline-run-*/run-*.wandb"))
    if name == "swanlab":
        assert list((run.path / "swanlog").iterdir())
