"""The runs and checkpoints that are available for chat."""

from __future__ import annotations

from typing import NamedTuple

from qlora_tui.runs import checkpoints, store
from qlora_tui.runs.store import RunFolder


class Offer(NamedTuple):
    """The weights of one run."""

    run: str
    adapter: tuple[int, int] | None
    """Identity of the finished adapter. Changes when the run writes a new one. None if there is none."""

    checkpoints: tuple[int, ...] = ()
    """Steps of the complete checkpoints, newest first."""

    @property
    def default_checkpoint(self) -> int | None:
        """Step of the checkpoint to load by default; None for the finished adapter."""
        return self.checkpoints[0] if self.checkpoints and self.adapter is None else None


def offers() -> tuple[Offer, ...]:
    """Return every run that has an adapter or a checkpoint, newest first. Blocking."""
    found = [_offer(run) for run in store.all_runs()]
    return tuple(one for one in found if one.adapter or one.checkpoints)


def offer(name: str) -> Offer:
    """Return the weights of one run. Raises NotFoundError."""
    return _offer(store.find(name))


def _offer(run: RunFolder) -> Offer:
    written = [
        one.step for one in checkpoints.all_checkpoints(run.checkpoints) if (one.path / checkpoints.MARKER).is_file()
    ]
    return Offer(run.name, _identity(run), tuple(written))


def _identity(run: RunFolder) -> tuple[int, int] | None:
    try:
        about = run.adapter.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns
