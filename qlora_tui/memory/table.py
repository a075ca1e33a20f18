"""What cards of the usual sizes can do."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.memory.device import CARDS_GB, Device, card
from qlora_tui.memory.estimate import Estimate, Verdict, estimate, verdict
from qlora_tui.memory.largest import QUANTITIES, Quantity, Search
from qlora_tui.models.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Row:
    """What one card can do. A quantity is 0 where nothing fits, whatever its value."""

    size_gb: float
    estimate: Estimate
    verdict: Verdict
    batch: int
    length_tokens: int
    rank: int


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
    shares: dict[Quantity, float] = dict.fromkeys(QUANTITIES, 1.0)
    rows = []
    for size_gb in sizes_gb:
        told(size_gb)
        where = card(size_gb)
        found, most = replayed.on(where), []
        for quantity in QUANTITIES:
            search = Search(config, facts, where, quantity, None if quantity == "length" else longest_tokens)
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
