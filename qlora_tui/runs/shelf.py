"""All runs at a glance, read again only where something has changed. In bounded memory, whatever the runs hold."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

from qlora_tui.errors import StorageError
from qlora_tui.runs import damage, jobs, labels, store
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.heartbeat import Silence
from qlora_tui.runs.narration import left, stage
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder
from qlora_tui.runs.waiting import waiting

_CURVE_POINTS = 120


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What a list says of one run. Times in seconds, `created_s` and `last_event_s` since the epoch."""

    name: str
    status: jobs.Status
    step: int
    total_steps: int | None
    loss: float | None
    """Smoothed training loss at the last step."""
    eval_loss: float | None
    peak_bytes: int
    model: str
    data: str
    created_s: float | None
    last_event_s: float | None
    left: str
    """Time left as text; empty if unknown."""
    doing: str
    """What the worker is doing or why it ended, for people. Foreign text."""
    curve: tuple[float, ...]
    """The training loss over the whole run, at most 120 points."""
    tags: tuple[str, ...]
    silence: Silence | None = None
    """Since when the worker has not responded, if so."""
    damage: tuple[str, ...] = ()
    """One sentence for each damaged file; of the adapter only the sizes of its files are checked."""

    @property
    def shown_status(self) -> str:
        """Status, or a note that the worker does not respond."""
        return "not responding" if self.silence else self.status

    @property
    def live(self) -> bool:
        return self.status in ("running", "starting")


class Shelf:
    """Glimpses of all runs. Runs that live keep their folded state; of the others only the glimpse is kept."""

    def __init__(self) -> None:
        self._followers: dict[str, Follower] = {}
        self._known: dict[str, tuple[tuple[object, ...], Glimpse]] = {}
        self._reading = threading.Lock()

    def read(self) -> tuple[Glimpse, ...]:
        """A glimpse of every run, newest first. Blocking; a run that vanishes meanwhile is passed over.

        A second thread waits for the first, which leaves it next to nothing to read.
        """
        with self._reading:
            return tuple(self._glimpses())

    def _glimpses(self) -> Iterator[Glimpse]:
        names = set()
        in_queue = {entry.name for entry in waiting()}
        for run in store.all_runs():
            names.add(run.name)
            alive = jobs.is_alive(run)
            now = (alive, run.name in in_queue, *stamp(run))
            known = self._known.get(run.name)
            if known is None or known[0] != now or known[1].live:
                known = self._known[run.name] = (now, self._look(run, alive))
            yield known[1]
        for gone in self._known.keys() - names:
            self._known.pop(gone)
            self._followers.pop(gone, None)

    def _look(self, run: RunFolder, alive: bool) -> Glimpse:
        follower = self._followers.pop(run.name, None) or Follower(run)
        try:
            follower.catch_up()
        except StorageError as error:  # such as a log of another user: it must not hide the other runs
            return replace(glimpse(run, follower.state, "unreadable"), doing=error.message)
        if alive:
            self._followers[run.name] = follower
        seen = glimpse(run, follower.state, follower.status)
        silence = follower.silence
        return seen if silence is None else replace(seen, silence=silence, doing=f"{silence}. {silence.advice}")


def glimpse(run: RunFolder, state: RunState, status: jobs.Status) -> Glimpse:
    """What a list says of a run in this state."""
    plan = read_plan(run)
    created_s = plan.get("created_s")
    losses = [point.loss for point in state.steps.points() if point.loss is not None]
    return Glimpse(
        name=run.name,
        status=status,
        step=state.step_number,
        total_steps=state.plan.total_steps if state.plan else None,
        loss=state.smoothed_loss,
        eval_loss=state.evals.last.loss if state.evals.last else None,
        peak_bytes=state.peak_bytes,
        model=str(plan.get("model") or ""),
        data=str(plan.get("data") or ""),
        created_s=created_s if isinstance(created_s, int | float) else None,
        last_event_s=state.last_event_s or None,
        left=left(state) if status == "running" else "",
        doing=_doing(state, status),
        curve=_highest(losses),
        tags=labels.tags(run),
        damage=tuple(damage.found(run, state)) if status not in (*jobs.LIVE, "unreadable") else (),
    )


def _highest(losses: list[float]) -> tuple[float, ...]:
    """At most 120 losses, each the maximum of its part of the run, so that spikes are kept."""
    size = max(1, -(-len(losses) // _CURVE_POINTS))
    return tuple(max(losses[start : start + size]) for start in range(0, len(losses), size))


def _doing(state: RunState, status: jobs.Status) -> str:
    if state.failed is not None:
        return state.failed.message
    if status == "crashed":
        return f"the worker died at step {state.step_number}"
    if state.stage is None:
        return ""
    # How far training is, the steps say: the count of its stage is the one that it began with.
    return state.stage.stage if state.stage.stage == "training" else stage(state.stage)


def stamp(run: RunFolder) -> tuple[object, ...]:
    """Return a value that changes with the files that a glimpse is made from, and when they become readable."""
    stamps: list[object] = []
    for path in (run.config, run.plan, run.events, run.path / labels.FILE, *damage.adapter_files(run)):
        try:
            about = path.stat()
            stamps.append((about.st_size, about.st_ctime_ns))
        except OSError:
            stamps.append(None)
    return tuple(stamps)
