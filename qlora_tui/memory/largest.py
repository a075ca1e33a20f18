"""The most that fits: micro batch, row length or rank."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from qlora_tui.config.run import RunConfig
from qlora_tui.memory.device import Device
from qlora_tui.memory.estimate import estimate, fits, verdict
from qlora_tui.models.facts import ModelFacts

Quantity = Literal["batch", "length", "rank"]
QUANTITIES: Mapping[Quantity, tuple[str, str]] = {
    "batch": ("training", "micro_batch_size"),
    "length": ("training", "max_length_tokens"),
    "rank": ("adapter", "rank"),
}
_SMALLEST: Mapping[Quantity, int] = {"batch": 1, "length": 8, "rank": 1}
_FINENESS = 128
_LARGEST: Mapping[Quantity, int] = {"batch": 4096, "length": 1 << 20, "rank": 4096}


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

    It ends at `limit`, and rows are taken to be as long as allowed when the length is asked for.
    `replay`: with the fragmentation that replays of the allocator find, which takes seconds; then the value is the
    largest one to within 1 %.
    """
    search = Search(config, facts, device, quantity, None if quantity == "length" else longest_tokens)
    value = search.estimated()
    if not replay:
        return value
    value = search.replayed(value)
    while value and not search.is_sure(value):
        value = search.replayed(value - 1, below=value)
    return value


def limit(facts: ModelFacts, quantity: Quantity) -> int:
    """The most that is looked for: the model's context; its hidden size, beyond which a rank adds nothing."""
    most = {"length": facts.context_tokens, "rank": facts.hidden_size}.get(quantity)
    return min(_LARGEST[quantity], most or _LARGEST[quantity])


@dataclass(frozen=True, slots=True)
class Search:
    """For the largest value of one quantity."""

    config: RunConfig
    facts: ModelFacts
    device: Device
    quantity: Quantity
    longest_tokens: int | None

    def estimated(self) -> int:
        """With the usual fragmentation, in milliseconds."""
        return _last_with_room(self._room, _SMALLEST[self.quantity], limit(self.facts, self.quantity))

    def replayed(self, guess: int, below: int | None = None) -> int:
        """With a replay for each value that is tried, beginning at `guess`."""
        most = limit(self.facts, self.quantity) if below is None else below - 1
        smallest = _SMALLEST[self.quantity]
        if most < smallest:
            return 0
        return _last_surviving(self._survives, min(max(guess, smallest), most), smallest, most)

    def is_sure(self, value: int) -> bool:
        """By the whole estimate, which begins its replays elsewhere: luck with one capacity is not enough."""
        found = estimate(self._with(value), self.facts, self.device, longest_tokens=self.longest_tokens, replay=True)
        return verdict(found, self.device.free_bytes).sure

    def _room(self, value: int) -> int:
        found = estimate(self._with(value), self.facts, self.device, longest_tokens=self.longest_tokens)
        return self.device.free_bytes - found.high_bytes

    def _survives(self, value: int) -> bool:
        return fits(self._with(value), self.facts, self.device, longest_tokens=self.longest_tokens)

    def _with(self, value: int) -> RunConfig:
        table_name, name = QUANTITIES[self.quantity]
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
