"""What would make a run fit, and the most that fits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError
from qlora_tui.memory.changes import ladders
from qlora_tui.memory.device import CARDS_GB, Device, card
from qlora_tui.memory.estimate import Estimate, Verdict, estimate, fits, verdict
from qlora_tui.models.facts import ModelFacts

Quantity = Literal["batch", "length", "rank"]
_KEYS: Mapping[Quantity, tuple[str, str]] = {
    "batch": ("training", "micro_batch_size"),
    "length": ("training", "max_length_tokens"),
    "rank": ("adapter", "rank"),
}
_SMALLEST: Mapping[Quantity, int] = {"batch": 1, "length": 8, "rank": 1}
_FINENESS = 128
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
    for ladder in ladders(config, facts, now):
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
    `replay`: with the fragmentation that replays of the allocator find, which takes seconds; then the value is the
    largest one to within 1 %.
    """
    search = _Search(config, facts, device, quantity, None if quantity == "length" else longest_tokens)
    value = search.estimated()
    if not replay:
        return value
    value = search.replayed(value)
    while value and not search.is_sure(value):
        value = search.replayed(value - 1, below=value)
    return value


@dataclass(frozen=True, slots=True)
class _Search:
    """For the largest value of one quantity."""

    config: RunConfig
    facts: ModelFacts
    device: Device
    quantity: Quantity
    longest_tokens: int | None

    def estimated(self) -> int:
        """With the usual fragmentation, in milliseconds."""
        return _last_with_room(self._room, _SMALLEST[self.quantity], self._limit)

    def replayed(self, guess: int, below: int | None = None) -> int:
        """With a replay for each value that is tried, beginning at `guess`."""
        most = self._limit if below is None else below - 1
        smallest = _SMALLEST[self.quantity]
        if most < smallest:
            return 0
        return _last_surviving(self._survives, min(max(guess, smallest), most), smallest, most)

    def is_sure(self, value: int) -> bool:
        """By the whole estimate, which begins its replays elsewhere: luck with one capacity is not enough."""
        found = estimate(self._with(value), self.facts, self.device, longest_tokens=self.longest_tokens, replay=True)
        return _fits(found, self.device)

    @property
    def _limit(self) -> int:
        most = {"length": self.facts.context_tokens, "rank": self.facts.hidden_size}.get(self.quantity)
        return min(_LARGEST[self.quantity], most or _LARGEST[self.quantity])

    def _room(self, value: int) -> int:
        found = estimate(self._with(value), self.facts, self.device, longest_tokens=self.longest_tokens)
        return self.device.free_bytes - found.high_bytes

    def _survives(self, value: int) -> bool:
        return fits(self._with(value), self.facts, self.device, longest_tokens=self.longest_tokens)

    def _with(self, value: int) -> RunConfig:
        table_name, name = _KEYS[self.quantity]
        spec = getattr(self.config, table_name)
        return self.config.model_copy(update={table_name: spec.model_copy(update={name: value})})


def _last_surviving(survives: Callable[[int], bool], guess: int, low: int, high: int) -> int:
    """The largest value from `low` to `high` that survives, to within 1 %, looked for around `guess`."""
    near = max(1, guess // _FINENESS)
    step = max(1, guess // 32)
    good, bad = low - 1, high + 1
    probe = guess
    while bad - good > near:
        if survives(probe):
            good = probe
        else:
            bad = probe
        if low <= good and bad <= high:
            probe = (good + bad) // 2
        else:
            probe = max(bad - step, low) if good < low else min(good + step, high)
            step *= 2
    return good if good >= low else 0


def table(
    config: RunConfig,
    facts: ModelFacts,
    sizes_gb: tuple[float, ...] = CARDS_GB,
    *,
    longest_tokens: int | None = None,
    told: Callable[[float], None] = lambda _: None,
) -> tuple[Row, ...]:
    """What cards of the usual sizes can do, empty ones. `told`: called with each size before its seconds of work."""
    replayed = _Replayed(config, facts, longest_tokens)
    shares: dict[Quantity, float] = dict.fromkeys(_KEYS, 1.0)
    rows = []
    for size_gb in sizes_gb:
        told(size_gb)
        where = card(size_gb)
        found, most = replayed.on(where), []
        for quantity in _KEYS:
            search = _Search(config, facts, where, quantity, None if quantity == "length" else longest_tokens)
            value = search.estimated()
            most.append(search.replayed(round(value * shares[quantity])))
            # Fragmentation takes much the same share of every card.
            shares[quantity] = most[-1] / value if value and most[-1] else 1.0
        rows.append(Row(size_gb, found, verdict(found, where.free_bytes), *most))
    return tuple(rows)


class _Replayed:
    """Estimates with a replay for cards that differ in nothing but their size: there are two at most."""

    def __init__(self, config: RunConfig, facts: ModelFacts, longest_tokens: int | None) -> None:
        self._config, self._facts, self._longest_tokens = config, facts, longest_tokens
        self._known: dict[str, Estimate] = {}

    def on(self, device: Device) -> Estimate:
        wanted = self._config.training.gradient_checkpointing
        found = self._settled("off" if wanted == "auto" else wanted)
        if wanted == "auto" and found.high_bytes + found.paged_bytes > device.free_bytes:
            found = self._settled("on")
        return replace(found, device=device)

    def _settled(self, checkpointing: str) -> Estimate:
        if checkpointing not in self._known:
            config = edited(self._config, (f"training.gradient_checkpointing={checkpointing}",))
            self._known[checkpointing] = estimate(
                config, self._facts, card(CARDS_GB[-1]), longest_tokens=self._longest_tokens, replay=True
            )
        return self._known[checkpointing]


def _fits(found: Estimate, device: Device) -> bool:
    return verdict(found, device.free_bytes).sure


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
