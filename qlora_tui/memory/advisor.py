"""What would make a run fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError
from qlora_tui.memory.changes import Changes, ladders
from qlora_tui.memory.device import Device
from qlora_tui.memory.estimate import Estimate, estimate, verdict
from qlora_tui.models.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change that needs less memory."""

    changes: Changes
    """As `--set` takes them: "training.gradient_checkpointing=on"."""

    need_bytes: int
    high_bytes: int
    """Upper bound of `need_bytes`, used to decide whether the run fits."""

    saves_bytes: int
    """Reduction of the needed memory, in bytes; at most what the run needs now."""

    fits: bool
    why: str
    """What it costs."""


def suggestions(
    config: RunConfig,
    facts: ModelFacts,
    now: Estimate,
    *,
    longest_tokens: int | None = None,
    replay: bool = False,
) -> tuple[Suggestion, ...]:
    """Changes that need less memory, those that change the training least first; empty when it fits already.

    Of a change by degrees the smallest one that makes it fit is named, else the largest. Those that make it fit come
    before those that do not; when none does alone, the first suggestion is what does together, if anything does.
    `now`: the estimate of the run as it is, with a replay or without one as `replay` says. With `replay`, what is said
    to fit does so by a replay of its own, which takes tenths of a second for each.
    """
    if _fits(now, now.device):
        return ()
    attempts = _Attempts(config, facts, now, longest_tokens, replay)
    found: list[Suggestion] = []
    together: Suggestion | None = None
    for ladder in ladders(config, facts, now):
        alone = attempts.best(ladder.steps, ladder.cost)
        if alone is None or alone.high_bytes >= now.high_bytes:
            continue
        if alone.fits or alone.saves_bytes > 0:
            found.append(alone)
        if alone.fits or (together is not None and together.fits):
            continue
        before = together.changes if together else ()
        together = attempts.best([_merged(before, changes) for changes in ladder.steps], "together") or together
    fitting = [each for each in found if each.fits]
    rest = [each for each in found if not each.fits]
    first = [together] if together is not None and together.fits and not fitting else []
    return (*fitting, *first, *rest)


class _Attempts:
    """At changes of one run."""

    def __init__(
        self, config: RunConfig, facts: ModelFacts, now: Estimate, longest_tokens: int | None, replay: bool
    ) -> None:
        self._config, self._facts, self._now = config, facts, now
        self._longest_tokens, self._replay = longest_tokens, replay
        self._usual = self._estimate(config, replay=False) if replay else now

    def best(self, steps: Sequence[Changes], why: str) -> Suggestion | None:
        """The first step that makes it fit, else the last one that can be tried."""
        best = None
        for changes in steps:
            attempt = self._attempt(changes, why)
            best = attempt or best
            if attempt is None or attempt.fits:
                break
        return best

    def _attempt(self, changes: Changes, why: str) -> Suggestion | None:
        try:
            other = edited(self._config, changes)
        except ConfigError:
            return None
        found, now, usual = self._estimate(other, replay=False), self._now, self._usual
        high = round(found.high_bytes * now.high_bytes / usual.high_bytes)
        need = round(found.need_bytes * now.need_bytes / usual.need_bytes)
        fits = _fits(found, now.device)
        if self._replay:
            # What a replay finds beyond the usual share of this run it is likely to find of a changed one.
            fits = high <= now.device.free_bytes
            if fits:
                found = self._estimate(other, replay=True)
                high, need, fits = found.high_bytes, found.need_bytes, _fits(found, now.device)
        return Suggestion(changes, need, high, now.need_bytes - need, fits, why)

    def _estimate(self, config: RunConfig, *, replay: bool) -> Estimate:
        return estimate(config, self._facts, self._now.device, longest_tokens=self._longest_tokens, replay=replay)


def _fits(found: Estimate, device: Device) -> bool:
    return verdict(found, device.free_bytes).sure


def _merged(earlier: Changes, later: Changes) -> Changes:
    """Both rows of changes; of two for one key the later one."""
    keys = {change.partition("=")[0]: change for change in (*earlier, *later)}
    return tuple(keys.values())


def as_flags(changes: tuple[str, ...]) -> str:
    """Changes as they are typed: --set a=b --set c=d."""
    return " ".join(f"--set {change}" for change in changes)


def as_json(suggestion: Suggestion) -> dict[str, Any]:
    """Plain data for programs."""
    return {
        "changes": list(suggestion.changes),
        "need_bytes": suggestion.need_bytes,
        "saves_bytes": suggestion.saves_bytes,
        "fits": suggestion.fits,
        "why": suggestion.why,
    }
