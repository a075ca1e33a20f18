"""What a worker says: the fields of every event kind and their units.

What the events mean is decided in `state.fold` alone.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

EVENTS_VERSION = 2
"""Version of lines with a checksum; lines of version 1 have none."""

StageName = Literal[
    "starting", "importing", "downloading", "loading", "quantizing", "tokenizing", "training", "evaluating",
    "sampling", "saving", "verifying",
]  # fmt: skip


class Event(BaseModel):
    """Sequence number (from 1, without gaps) and wall-clock time in seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    v: int = 1
    seq: int = 0
    time_s: float = 0.0


class Started(Event):
    """A worker process took the run's lock. `resumed_from_step` is None for a run that starts from nothing.

    Said again, with the same attempt, when that checkpoint turned out to be damaged and an earlier one is taken.
    """

    kind: Literal["started"] = "started"
    attempt: int
    pid: int
    process_start_s: float
    resumed_from_step: int | None = None
    versions: dict[str, str] = {}


class Created(Event):
    """First event of a run."""

    kind: Literal["created"] = "created"
    name: str
    program_version: str


class Stage(Event):
    """What the worker is doing now. `done` of `total` in `unit`, where that is known."""

    kind: Literal["stage"] = "stage"
    stage: StageName
    detail: str = ""
    done: int | None = None
    total: int | None = None
    unit: str = ""


class Resolved(Event):
    """The value chosen for a setting that was "auto", and why; for a run on a GPU always the device."""

    kind: Literal["resolved"] = "resolved"
    field: str
    value: str
    reason: str
    gpu_uuid: str = ""
    """Of model.device: which GPU this attempt works on, by the driver's name for it; empty when that is unknown."""


class ModelLoaded(Event):
    kind: Literal["model_loaded"] = "model_loaded"
    model: str
    parameters: int
    trainable_parameters: int
    parameters_by_dtype: dict[str, int]
    stored_bytes: int
    trainable_bytes: int
    fingerprint: str | None = None
    """Of the weights of a local model."""
    commit: str | None = None
    """Of a model on the hub."""


class DatasetReady(Event):
    """`report` is what `data.prepare` measured: rows, tokens, what was cut or dropped, fingerprint."""

    kind: Literal["dataset_ready"] = "dataset_ready"
    train_rows: int | None
    eval_rows: int
    report: dict[str, Any] = {}


class TrainingPlanned(Event):
    """Planned steps, and how often training pauses for other work. None: never."""

    kind: Literal["training_planned"] = "training_planned"
    total_steps: int
    steps_per_epoch: int | None
    effective_batch_rows: int
    eval_every_steps: int | None = None
    evals_at_end: int = 0
    """Number of evaluations after the last step, not counting the scheduled ones."""
    save_every_steps: int | None = None
    sample_every_steps: int | None = None
    samples_at_end: int = 0


class Step(Event):
    """One optimizer step. Loss is the mean over its trained tokens; bytes are 0 where there is no GPU.

    `reserved_bytes` is what the caching allocator holds: what is allocated, and what it keeps for later.
    """

    kind: Literal["step"] = "step"
    step: int
    epoch: float
    loss: float | None
    learning_rate: float
    grad_norm: float | None
    tokens: int
    tokens_per_s: float
    allocated_bytes: int = 0
    reserved_bytes: int = 0
    peak_bytes: int = 0


class Eval(Event):
    """One evaluation. The loss is the mean over the trained tokens of all evaluation rows."""

    kind: Literal["eval"] = "eval"
    step: int
    loss: float | None
    metrics: dict[str, float] = {}


class Sample(Event):
    kind: Literal["sample"] = "sample"
    step: int
    prompt: str
    answer: str


class Checkpoint(Event):
    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    folder: str
    size_bytes: int
    seconds: float
    best: bool = False


class Warned(Event):
    """Something the user should know; `code` is stable for scripts."""

    kind: Literal["warning"] = "warning"
    code: str
    message: str


class ControlAcknowledged(Event):
    kind: Literal["control_acknowledged"] = "control_acknowledged"
    id: str
    action: str


class Replanned(Event):
    """After memory ran out: settings changed for the rest of the run, dotted field to value."""

    kind: Literal["replanned"] = "replanned"
    changes: dict[str, Any]
    reason: str


class Extended(Event):
    """A resume changed the length of the run: dotted key to value, valid from this attempt on."""

    kind: Literal["extended"] = "extended"
    changes: dict[str, Any]


class Stopped(Event):
    """The worker ended before the last step. `checkpoint_step` is None when nothing resumable was written."""

    kind: Literal["stopped"] = "stopped"
    reason: Literal["stop_and_save", "cancel", "signal"]
    step: int
    checkpoint_step: int | None = None


class Failed(Event):
    kind: Literal["failed"] = "failed"
    message: str
    hint: str = ""
    where: str = ""
    exit_code: int = 1
    peak_bytes: int = 0


class Finished(Event):
    kind: Literal["finished"] = "finished"
    step: int
    train_seconds: float
    """What all attempts of the run spent on training, and this one on saving and checking."""
    metrics: dict[str, float] = {}
    peak_bytes: int = 0
    adapter_bytes: int = 0


AnyEvent = (
    Created | Started | Stage | Resolved | ModelLoaded | DatasetReady | TrainingPlanned | Step | Eval | Sample
    | Checkpoint | Warned | ControlAcknowledged | Replanned | Extended | Stopped | Failed | Finished
)  # fmt: skip
