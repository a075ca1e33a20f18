"""What the widgets of a run show: one immutable value, made by the reader alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from qlora_tui.hardware import Machine
from qlora_tui.memory.stored_estimate import StoredEstimate
from qlora_tui.runs.heartbeat import Silence
from qlora_tui.runs.jobs import Status
from qlora_tui.runs.state import RunState
from qlora_tui.ui.curves import Curves
from qlora_tui.ui.load_history import Load


class LogTail(NamedTuple):
    """The newest lines of what the worker printed; `first` is the number of the first one, from 0."""

    first: int = 0
    lines: tuple[str, ...] = ()


class RunView(NamedTuple):
    """A run at one moment. Sizes in bytes."""

    name: str
    folder: Path
    status: Status | Literal["reading", "removed"]
    """As `jobs.status`, or that the log is still being read, or that the folder has gone."""
    state: RunState = RunState()
    curves: Curves = Curves()
    log: LogTail = LogTail()
    machine: Machine | None = None
    loads: tuple[Load, ...] = ()
    """Load of the machine, newest reading last."""
    worker_bytes: int | None = None
    """Main memory of the worker, while it lives."""
    silence: Silence | None = None
    """Since when the worker has not responded, if so."""
    damage: tuple[str, ...] = ()
    """One sentence for each damaged file of a run that is not active."""
    estimate: StoredEstimate | None = None
    """The memory estimate from before the start."""
    is_demo: bool = False
    """Whether this is the demonstration of the bundled model."""

    @property
    def shown_status(self) -> str:
        """Status, or a note that the worker does not respond."""
        return "not responding" if self.silence else self.status

    @property
    def is_live(self) -> bool:
        return self.status in ("running", "starting")

    @property
    def can_resume(self) -> bool:
        return self.status in ("created", "queued", "stopped", "cancelled", "failed", "crashed")

    @property
    def can_be_extended(self) -> bool:
        """Whether the run has finished and may be trained further."""
        return self.status == "finished"

    @property
    def resumes_from(self) -> str:
        """Where a resume would begin, for people."""
        checkpoints = self.state.checkpoints
        return f"from step {checkpoints[-1].step}" if checkpoints else "from the start"
