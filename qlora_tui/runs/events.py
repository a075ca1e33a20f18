"""What a worker says, one JSON line each. The fields of every event kind, their units, and reading and writing them.

The worker is the only writer of a run's events. What the events mean is decided in `state.fold` alone.
"""

import os
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from qlora_tui.atomic import storage_errors

EVENTS_VERSION = 1
_READ_BYTES = 1 << 16
_TAIL_BYTES = 1 << 20

StageName = Literal[
    "starting", "importing", "downloading", "loading", "quantizing", "tokenizing", "training", "evaluating",
    "sampling", "saving", "verifying",
]  # fmt: skip


class Event(BaseModel):
    """Sequence number (from 1, without gaps) and wall-clock time in seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    v: int = EVENTS_VERSION
    seq: int = 0
    time_s: float = 0.0


class Started(Event):
    """A worker process took the run's lock. `resumed_from_step` is None for a run that starts from nothing."""

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
    """The value chosen for a setting that was "auto", and why."""

    kind: Literal["resolved"] = "resolved"
    field: str
    value: str
    reason: str


class ModelLoaded(Event):
    kind: Literal["model_loaded"] = "model_loaded"
    model: str
    parameters: int
    trainable_parameters: int
    parameters_by_dtype: dict[str, int]
    stored_bytes: int
    trainable_bytes: int


class DatasetReady(Event):
    """`report` is what `data.prepare` measured: rows, tokens, what was cut or dropped, fingerprint."""

    kind: Literal["dataset_ready"] = "dataset_ready"
    train_rows: int | None
    eval_rows: int
    report: dict[str, Any] = {}


class TrainingPlanned(Event):
    kind: Literal["training_planned"] = "training_planned"
    total_steps: int
    steps_per_epoch: int | None
    effective_batch_rows: int


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
    | Checkpoint | Warned | ControlAcknowledged | Replanned | Stopped | Failed | Finished
)  # fmt: skip

_decoder: TypeAdapter[list[AnyEvent]] = TypeAdapter(list[Annotated[AnyEvent, Field(discriminator="kind")]])


def decode(lines: list[bytes]) -> list[AnyEvent]:
    """The events on complete lines, but for lines without one this version knows. Many at once are decoded faster."""
    try:
        known = _decoder.validate_json(b"[%s]" % b",".join(lines))
    except ValidationError:
        known = []
    if len(known) == len(lines):
        return known
    middle = len(lines) // 2
    return decode(lines[:middle]) + decode(lines[middle:]) if middle else []


class EventReader:
    """Reads a growing events file by byte offset. A torn last line is left for the next call."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.unreadable_lines = 0

    def batches(self) -> Iterator[list[AnyEvent]]:
        """Yield the events appended since the last call, a few hundred at a time. A missing file has no events."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset)
            rest = b""
            while chunk := file.read(_READ_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                self.offset += sum(map(len, lines)) + len(lines)
                known = decode(lines)
                self.unreadable_lines += len(lines) - len(known)
                yield known

    def read(self) -> Iterator[AnyEvent]:
        """The same one by one; to be read to its end, because the next call starts after a whole batch."""
        return chain.from_iterable(self.batches())


class EventWriter:
    """Appends events with one write each. Only the process that holds the run's lock may have one.

    Raises StorageError when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(path):
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._drop_torn_tail()
        self._seq = self._last_seq()

    def write(self, event: AnyEvent) -> AnyEvent:
        """Stamp `event` with the next sequence number and the time, append it, and return it as written."""
        stamped = event.model_copy(update={"seq": self._seq + 1, "time_s": round(time.time(), 3)})
        line = stamped.model_dump_json().encode("utf-8", "replace") + b"\n"
        with storage_errors(self.path):
            size_bytes = os.fstat(self._handle).st_size
            try:
                while line:
                    line = line[os.write(self._handle, line) :]
            except OSError:
                os.ftruncate(self._handle, size_bytes)
                raise
        self._seq += 1
        return stamped

    def sync(self) -> None:
        """Make everything written so far survive a power failure."""
        with storage_errors(self.path):
            os.fsync(self._handle)

    def was_removed(self) -> bool:
        """Whether the file that is written to is no longer at its path."""
        try:
            return not os.path.samestat(os.fstat(self._handle), self.path.stat())
        except OSError as error:
            return isinstance(error, FileNotFoundError)

    def close(self) -> None:
        os.close(self._handle)

    def _drop_torn_tail(self) -> None:
        position = os.fstat(self._handle).st_size
        while position > 0:
            start = max(0, position - _TAIL_BYTES)
            newline = os.pread(self._handle, position - start, start).rfind(b"\n")
            position = start + newline + 1
            if newline >= 0:
                break
        os.ftruncate(self._handle, position)

    def _last_seq(self) -> int:
        end = os.fstat(self._handle).st_size
        tail = os.pread(self._handle, min(end, _TAIL_BYTES), max(0, end - _TAIL_BYTES))
        known = decode(tail.split(b"\n"))
        return known[-1].seq if known else 0
