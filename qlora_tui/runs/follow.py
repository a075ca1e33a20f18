"""Reading a run while it is written, and knowing when no more will come."""

import time
from collections.abc import Iterator
from contextlib import suppress

from qlora_tui.runs import jobs
from qlora_tui.runs.event_log import EventReader
from qlora_tui.runs.events import AnyEvent
from qlora_tui.runs.garbage import uncollected
from qlora_tui.runs.heartbeat import Silence
from qlora_tui.runs.state import RunState, fold_all
from qlora_tui.runs.step_index import StepIndex
from qlora_tui.runs.store import RunFolder

POLL_S = 0.1
CRASH_CONFIRMED_S = 1.0
_WIND_DOWN_S = 10.0


class Follower:
    """The state of a run as far as its events were read."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.state = RunState()
        self.alive = False
        self.index = StepIndex()
        self._reader = EventReader(run.events)
        self._identity = self._own_identity = _identity(run)

    @property
    def status(self) -> jobs.Status:
        return jobs.status(self.run, self.state, alive=self.alive)

    @property
    def silence(self) -> Silence | None:
        """Since when the worker has not responded, and what to do; None if it responds or there is no worker."""
        return jobs.silence(self.run, alive=self.alive)

    @property
    def is_removed(self) -> bool:
        """Whether the folder was gone when it was last looked at."""
        return self._identity is None

    def moved_to(self) -> RunFolder | None:
        """Return the moved run folder if it is still in the same parent folder, else None."""
        if self._own_identity is None or _identity(self.run) == self._own_identity:
            return None
        with suppress(OSError):
            for path in self.run.path.parent.iterdir():
                if _identity(RunFolder(path)) == self._own_identity:
                    return RunFolder(path)
        return None

    def renew(self) -> bool:
        """Begin anew when the folder is not the one of before: removed, and made again under its name."""
        before, self._identity = self._identity, _identity(self.run)
        if self._identity in (None, before):
            return False
        self._own_identity = self._identity
        self.state = RunState()
        self.index = StepIndex()
        self._reader = EventReader(self.run.events)
        return True

    def advance(self) -> list[AnyEvent]:
        """Read and fold what was appended since the last call, a few hundred events at most.

        More at once would outlive a garbage collection or two, and then cost more to throw away than to read.
        """
        began = self._reader.offset
        for batch in self._reader.batches():
            self.state = fold_all(self.state, batch)
            self.state = jobs.with_damage(self.state, self._reader)
            self.index.add(began, batch)
            if batch:
                return batch
            began = self._reader.offset
        self.state = jobs.with_last_words(self.run, self.state, alive=self.alive)
        return []

    def catch_up(self) -> None:
        """Read everything there is. Liveness is read first: a worker that ends in between leaves its final event."""
        self.renew()
        self.alive = jobs.is_alive(self.run)
        with uncollected():
            while self.advance():
                pass

    def batches(self) -> Iterator[list[AnyEvent]]:
        """Yield new events, or an empty list every 0.1 s, until the run has ended or its worker is dead.

        Afterwards `status` says how it ended; a death without a final event is confirmed by a second look.
        """
        quiet_since_s = time.monotonic()
        dead_since_s: float | None = None
        while True:
            self.alive = jobs.is_alive(self.run)
            batch = self.advance()
            yield batch
            now_s = time.monotonic()
            if batch:
                quiet_since_s, dead_since_s = now_s, None
                continue
            if self.state.phase not in jobs.UNFINISHED:
                if not self.alive or now_s - quiet_since_s > _WIND_DOWN_S:
                    return
            elif self.alive:
                dead_since_s = None
            elif dead_since_s is None:
                dead_since_s = now_s
            elif now_s - dead_since_s > CRASH_CONFIRMED_S and self.status == "crashed":
                return
            time.sleep(POLL_S)


def _identity(run: RunFolder) -> tuple[int, int] | None:
    """Tells a run's folder from a later one of its name; None when there is none.

    A file that is made anew often gets the inode of the one before it.
    """
    try:
        about = run.config.stat()
    except OSError:
        return None
    return about.st_ino, about.st_ctime_ns
