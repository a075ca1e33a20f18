"""Which runs can be talked to, and with which of their weights."""

from __future__ import annotations

from typing import NamedTuple

from qlora_tui.runs import checkpoints, store
from qlora_tui.runs.store import RunFolder


class Offer(NamedTuple):
    """The weights of one run."""

    run: str
    adapter: tuple[int, int] | None
    """Identity of the finished adapter: changes when the run writes another one. None without one."""

    checkpoints: tuple[int, ...] = ()
    """Steps of the checkpoints that were written to the end, newest first."""

    @property
    def default_checkpoint(self) -> int | None:
        """Step of the checkpoint to load when none is asked for; None for the finished adapter."""
        return self.checkpoints[0] if self.checkpoints and self.adapter is None else None


def offers() -> tuple[Offer, ...]:
    """Return every run that has an adapter or a checkpoint, newest first. Blocking."""
    found = [_offer(run) for run in store.all_runs()]
    return tuple(one for one in found if one.adapter or one.checkpoints)


def offer(name: str) -> Offer:
    """Return what one run has. Raises NotFoundError when there is no such run."""
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
