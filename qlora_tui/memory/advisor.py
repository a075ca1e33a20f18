"""What would make a run fit, and the most that fits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError
from qlora_tui.memory.changes import ladders
from qlora_tui.memory.device import CARDS_GB, Device, card
from qlora_tui.memory.estimate import Estimate, Verdict, estimate, verdict
from qlora_tui.models.facts import ModelFacts

Quantity = Literal["batch", "length", "rank"]
_KEYS: Mapping[Quantity, tuple[str, str]] = {
    "batch": ("training", "micro_batch_size"),
    "length": ("training", "max_length_tokens"),
    "rank": ("adapter", "rank"),
}
_SMALLEST: Mapping[Quantity, int] = {"batch": 1, "length": 8, "rank": 1}
_LARGEST: Mapping[Quantity, int] = {"batch": 4096, "length": 1 << 20, "rank": 4096}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change that needs less memory."""

    changes: tuple[str, ...]
    """As `--set` takes them: "training.gradient_checkpointing=on"."""

    need_bytes: int
    saves_bytes: int
    fits: bool
    why: str
    """What it costs."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one card can do. A quantity is 0 where nothing fits, whatever its value."""

    size_gb: float
    estimate: Estimate
    verdict: Verdict
    batch: int
    length_tokens: int
    rank: int


def suggestions(
    config: RunConfig, facts: ModelFacts, device: Device, *, longest_tokens: int | None = None
) -> tuple[Suggestion, ...]:
    """Changes that need less memory, those that change the training least first; empty when it fits already.

    Of a change by degrees the smallest one that makes it fit is named, else the largest. Those that make it fit come
    before those that do not; when none does alone, the first suggestion is what does together, if anything does.
    """
    now = estimate(config, facts, device, longest_tokens=longest_tokens)
    if _fits(now, device):
        return ()
    found: list[Suggestion] = []
    together: Suggestion | None = None
    for ladder in ladders(config, now):
        alone = together_now = None
        for changes in ladder.steps:
            attempt = _try(config, facts, device, longest_tokens, now, changes, ladder.cost)
            alone = attempt or alone
            if attempt is None or attempt.fits:
                break
        if alone is None or alone.saves_bytes <= 0:
            continue
        found.append(alone)
        if alone.fits or (together is not None and together.fits):
            continue
        before = together.changes if together else ()
        for changes in ladder.steps:
            together_now = _try(config, facts, device, longest_tokens, now, _merged(before, changes), "together")
            if together_now is None or together_now.fits:
                break
        together = together_now or together
    fitting = [each for each in found if each.fits]
    rest = [each for each in found if not each.fits]
    first = [together] if together is not None and together.fits and not fitting else []
    return (*fitting, *first, *rest)


def largest(
    config: RunConfig,
    facts: ModelFacts,
    device: Device,
    quantity: Quantity,
    *,
    longest_tokens: int | None = None,
    replay: bool = False,
) -> int:
    """The largest micro batch, row length in tokens or rank that fits, all else as it is; 0 when none does.

    A length ends at the model's context, and rows are taken to be as long as allowed when the length is asked for.
    `replay`: with the fragmentation that replays of the allocator find, which takes seconds.
    """
    rows_known = None if quantity == "length" else longest_tokens

    beyond = 0

    def room(value: int, *, replay: bool = False) -> int:
        found = estimate(_with(config, quantity, value), facts, device, longest_tokens=rows_known, replay=replay)
        return device.free_bytes - found.high_bytes - (0 if replay else beyond)

    limit = _LARGEST[quantity]
    if quantity == "length" and facts.context_tokens:
        limit = min(limit, facts.context_tokens)
    if quantity == "rank" and facts.hidden_size:
        limit = min(limit, facts.hidden_size)
    value = _last_with_room(room, _SMALLEST[quantity], limit)
    while replay and value and (short := -room(value, replay=True)) > 0:
        beyond += short
        value = _last_with_room(room, _SMALLEST[quantity], value - 1)
    return value


def table(
    config: RunConfig,
    facts: ModelFacts,
    sizes_gb: tuple[float, ...] = CARDS_GB,
    *,
    longest_tokens: int | None = None,
) -> tuple[Row, ...]:
    """What cards of the usual sizes can do, empty ones."""
    return tuple(_row(config, facts, size, longest_tokens) for size in sizes_gb)


def _row(config: RunConfig, facts: ModelFacts, size_gb: float, longest_tokens: int | None) -> Row:
    device = card(size_gb)
    found = estimate(config, facts, device, longest_tokens=longest_tokens)
    batch, length, rank = (
        largest(config, facts, device, quantity, longest_tokens=longest_tokens) for quantity in _KEYS
    )
    return Row(size_gb, found, verdict(found, device.free_bytes), batch, length, rank)


def _fits(found: Estimate, device: Device) -> bool:
    return verdict(found, device.free_bytes).sure


def _with(config: RunConfig, quantity: Quantity, value: int) -> RunConfig:
    table_name, name = _KEYS[quantity]
    spec = getattr(config, table_name)
    return config.model_copy(update={table_name: spec.model_copy(update={name: value})})


def _last_with_room(room: Callable[[int], int], low: int, high: int) -> int:
    """The largest value from `low` to `high` with room left; 0 when there is none. Room only shrinks with the value.

    Nearly linear as it is, the next guess is where a line through both ends meets zero, on either side of it in turn.
    """
    if high < low:
        return 0
    room_low, room_high = room(low), room(high)
    if room_low < 0 or room_high >= 0:
        return 0 if room_low < 0 else high
    while high - low > 1:
        share = room_low / (room_low - room_high) if room_low > room_high else 0.5
        for nudge in (0, 1):
            guess = min(max(low + round((high - low) * share) + nudge, low + 1), high - 1)
            left = room(guess)
            if left >= 0:
                low, room_low = guess, left
            else:
                high, room_high = guess, left
                break
        if high - low > 1:
            middle = (low + high) // 2
            left = room(middle)
            low, room_low, high, room_high = (
                (middle, left, high, room_high) if left >= 0 else (low, room_low, middle, left)
            )
    return low


def _try(
    config: RunConfig,
    facts: ModelFacts,
    device: Device,
    longest_tokens: int | None,
    now: Estimate,
    changes: tuple[str, ...],
    why: str,
) -> Suggestion | None:
    try:
        other = edited(config, changes)
    except ConfigError:
        return None
    found = estimate(other, facts, device, longest_tokens=longest_tokens)
    saves = now.high_bytes - found.high_bytes
    return Suggestion(changes, found.need_bytes, saves, _fits(found, device), why)


def _merged(earlier: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
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
