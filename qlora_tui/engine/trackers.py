"""Experiment trackers: each gets the run's name and configuration, its steps and evaluations, and how it ended."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from qlora_tui import paths
from qlora_tui.config.fields import fields, value
from qlora_tui.config.run import RunConfig
from qlora_tui.config.training import Tracker
from qlora_tui.engine.session import Session, finite
from qlora_tui.errors import EnvironmentProblem
from qlora_tui.runs import events, labels
from qlora_tui.runs.fingerprint import read_plan, record
from qlora_tui.runs.freeze import published
from qlora_tui.runs.precheck import check_trackers
from qlora_tui.runs.store import RunFolder

DEFAULT_PROJECT = "qlora-tui"
_PROJECT_VARIABLES = {
    "wandb": "WANDB_PROJECT", "swanlab": "SWANLAB_PROJECT", "mlflow": "MLFLOW_EXPERIMENT_NAME",
    "trackio": "TRACKIO_PROJECT",
}  # fmt: skip
"""Environment variable of each tracker for the project name."""

_HINTS = {
    "wandb": "Run `wandb login`, or set WANDB_API_KEY, or set WANDB_MODE=offline to log to the run's folder.",
    "swanlab": "Run `swanlab login`, or set SWANLAB_API_KEY, or set SWANLAB_MODE=offline to log to the run's folder.",
    "mlflow": "Check MLFLOW_TRACKING_URI, or unset it to log to this machine.",
}
_PARAMETERS_AT_ONCE = 100
"""Maximum number of parameters in one MLflow request."""

Outcome = Literal["finished", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Opening:
    """Options for starting a tracker."""

    run: RunFolder
    project: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    """Settings by dotted key, without local paths."""

    earlier_id: str | None
    """The tracker's id of the run, when an earlier attempt has started it."""


class Log(Protocol):
    """One started tracker."""

    id: str | None
    """Identifies the run when it is resumed."""

    where: str
    """URL or command that shows the curves."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self, outcome: Outcome) -> None: ...


class TensorBoard:
    """Event files in the run's folder."""

    id: str | None = None

    def __init__(self, opening: Opening) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = opening.run.path / "tensorboard"
        self._writer = SummaryWriter(str(folder))
        settings = "\n".join(f"    {key} = {setting}" for key, setting in opening.config.items())
        self._writer.add_text("configuration", settings)
        self._writer.add_text("tags", ", ".join(opening.tags))
        self.where = f"tensorboard --logdir {folder}"

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, number in values.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def finish(self, outcome: Outcome) -> None:
        self._writer.close()


class Wandb:
    def __init__(self, opening: Opening) -> None:
        import wandb

        self._run = wandb.init(
            project=opening.project,
            name=opening.run.name,
            tags=list(opening.tags),
            config=dict(opening.config),
            id=opening.earlier_id,
            resume="allow",
            dir=str(opening.run.path),
        )
        self.id: str | None = str(self._run.id)
        self.where = str(self._run.url or f"wandb sync {self._run.dir}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, outcome: Outcome) -> None:
        self._run.finish(exit_code=int(outcome == "failed"))


class MLflow:
    """The server of MLFLOW_TRACKING_URI, or a database on this machine."""

    def __init__(self, opening: Opening) -> None:
        import mlflow

        self._mlflow = mlflow
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow.set_tracking_uri(f"sqlite:///{paths.data() / 'mlflow.db'}")
        mlflow.set_experiment(opening.project)
        tags = dict.fromkeys(opening.tags, "true")
        started = mlflow.start_run(run_id=opening.earlier_id, run_name=opening.run.name, tags=tags)
        self.id: str | None = str(started.info.run_id)
        self.where = f"mlflow ui --backend-store-uri {mlflow.get_tracking_uri()}"
        if opening.earlier_id is None:  # MLflow refuses to change a parameter
            settings = [(key, str(setting)) for key, setting in opening.config.items()]
            for start in range(0, len(settings), _PARAMETERS_AT_ONCE):
                mlflow.log_params(dict(settings[start : start + _PARAMETERS_AT_ONCE]))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def finish(self, outcome: Outcome) -> None:
        self._mlflow.end_run({"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}[outcome])


class Trackio:
    id: str | None = None

    def __init__(self, opening: Opening) -> None:
        import trackio

        config = {**opening.config, "tags": ", ".join(opening.tags)}
        self._run = trackio.init(opening.project, name=opening.run.name, config=config, resume="allow", embed=False)
        self.where = f"trackio show --project {opening.project}"

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, outcome: Outcome) -> None:
        self._run.finish()


class SwanLab:
    def __init__(self, opening: Opening) -> None:
        import swanlab

        self._run = swanlab.init(
            project=opening.project,
            name=opening.run.name,
            tags=list(opening.tags),
            config=dict(opening.config),
            id=opening.earlier_id,
            resume="allow",
            log_dir=str(opening.run.path / "swanlog"),
        )
        self.id: str | None = str(self._run.id)
        self.where = f"project {opening.project}"

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, outcome: Outcome) -> None:
        self._run.finish(state="crashed" if outcome == "failed" else "success")


_KINDS: dict[Tracker, Callable[[Opening], Log]] = {
    "wandb": Wandb, "mlflow": MLflow, "tensorboard": TensorBoard, "trackio": Trackio, "swanlab": SwanLab
}  # fmt: skip


@dataclass
class Trackers:
    """All started trackers of a run. A tracker that fails later is disabled; it does not end the run."""

    session: Session
    logs: dict[str, Log] = field(default_factory=dict)

    def step(self, event: events.Step) -> None:
        """Log one training step."""
        names = ("loss", "learning_rate", "grad_norm", "epoch", "tokens", "tokens_per_s")
        values = {f"train/{name}": getattr(event, name) for name in names}
        if event.peak_bytes:
            values["train/peak_bytes"] = event.peak_bytes
        self._log(values, event.step)

    def evaluation(self, event: events.Eval) -> None:
        """Log the loss and the metrics of one evaluation."""
        metrics = {f"eval/{name}": measured for name, measured in event.metrics.items()}
        self._log({"eval/loss": event.loss, **metrics}, event.step)

    def final(self, metrics: Mapping[str, float], step: int) -> None:
        """Log what the finished run reports."""
        self._log({f"final/{name}": measured for name, measured in metrics.items()}, step)

    def _log(self, values: Mapping[str, float | None], step: int) -> None:
        known = {name: number for name, each in values.items() if (number := finite(each)) is not None}
        for name, log in list(self.logs.items()):
            with self._dropped_on_failure(name):
                log.log(known, step)

    def finish(self, outcome: Outcome) -> None:
        """Report how the run ended, and wait until everything is sent."""
        for name, log in list(self.logs.items()):
            with self._dropped_on_failure(name):
                log.finish(outcome)
        self.logs.clear()

    @contextmanager
    def _dropped_on_failure(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the edge to a service of others, which may fail in any way
            self.logs.pop(name, None)
            self.session.warn("tracker", f"logging to {name} has stopped: {_first_line(error)}")


@contextmanager
def started(session: Session, config: RunConfig) -> Iterator[Trackers]:
    """Start the configured trackers and finish them when the run ends.

    Raises EnvironmentProblem for one that is not installed, not logged in or not reachable.
    """
    check_trackers(config.training.trackers)
    trackers = Trackers(session)
    try:
        for name in config.training.trackers:
            trackers.logs[name] = _start(name, session.run, config)
        if trackers.logs:
            where = "; ".join(log.where for log in trackers.logs.values())
            session.emit(events.Resolved(field="training.trackers", value=", ".join(trackers.logs), reason=where))
        yield trackers
    finally:
        trackers.finish("failed")  # nothing is left to finish when the run has ended as it should


def _start(name: Tracker, run: RunFolder, config: RunConfig) -> Log:
    spec = config.training
    known = read_plan(run).get("tracker_ids")
    ids = known if isinstance(known, dict) else {}
    opening = Opening(
        run=run,
        project=spec.tracker_project or os.environ.get(_PROJECT_VARIABLES.get(name, "")) or DEFAULT_PROJECT,
        tags=tuple(dict.fromkeys((*spec.tracker_tags, *labels.tags(run)))),
        config=_settings(config),
        earlier_id=ids.get(name),
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        log = _KINDS[name](opening)
    except Exception as error:  # the edge to a service of others, which may fail in any way
        raise EnvironmentProblem(
            f"the tracker {name} cannot be started: {_first_line(error)}",
            hint=f"{_HINTS.get(name, '')} Or remove it from training.trackers.".strip(),
        ) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # SwanLab takes Ctrl-C for itself, which means "save and stop" here
    if log.id is not None:
        record(run, tracker_ids={**ids, name: log.id})
    return log


def _settings(config: RunConfig) -> dict[str, Any]:
    """Settings by dotted key, as plain values without local paths."""
    shown = published(config)
    plain = (str, int, float, bool)
    found = {key: value(shown, key) for key in fields()}
    return {key: each if isinstance(each, plain) else str(each) for key, each in found.items() if each is not None}


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
