"""Damage of a run for the screen: from file sizes at once, from the content of the adapter when it has been read."""

import threading

from qlora_tui.runs import damage
from qlora_tui.runs.shelf import stamp
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder


class DamageCheck:
    """Checks one run again whenever one of its files has changed."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._stamp: tuple[object, ...] = ()
        self._found: tuple[str, ...] = ()

    def found(self, state: RunState) -> tuple[str, ...]:
        """Return one sentence for each damaged file. Reading a large adapter takes a while and is done in a thread."""
        now = stamp(self._run)
        if now != self._stamp:
            self._stamp = now
            self._found = tuple(damage.found(self._run, state))
            if not any("adapter is damaged" in sentence for sentence in self._found):
                threading.Thread(target=self._read, args=(now,), name="damage", daemon=True).start()
        return self._found

    def _read(self, began_with: tuple[object, ...]) -> None:
        sentence = damage.of_adapter(self._run, by_content=True)
        if sentence and began_with == self._stamp:
            self._found = (*self._found, sentence)
