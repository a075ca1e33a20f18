"""How long the draft trains, for the screen: what is known of its rows, of earlier runs and of this machine."""

from qlora_tui.config.run import RunConfig
from qlora_tui.data.volume import Volume, volume
from qlora_tui.errors import QloraError
from qlora_tui.forecast import speed as speeds
from qlora_tui.forecast.duration import Observed, observed
from qlora_tui.forecast.forecast import Forecast, forecast
from qlora_tui.forecast.speed import Kind, Speed
from qlora_tui.forecast.work import Rows, rows_of
from qlora_tui.memory.device import Device
from qlora_tui.models.facts import ModelFacts
from qlora_tui.ui.pricing import Price

_SLOW_PARAMETERS = 2e9
"""A larger model trains for days on a CPU; said where that was not measured."""

_FREE_FOR_MEASURING = 2 << 30
"""Bytes of a GPU; with less, a measurement could end another run."""


class Outlook:
    """Keeps what was found, so that a change of the draft costs no second look. For threads; nothing here draws."""

    def __init__(self) -> None:
        self._volumes: dict[str, Volume | None] = {}
        self._seen: dict[tuple[str, str, str, str], Observed | None] = {}
        self._speeds: dict[str, Speed] = {}
        self._claimed: set[str] = set()
        self._failed: set[str] = set()
        self._sample: tuple[RunConfig, float] | None = None

    def sampled(self, config: RunConfig, tokens_per_row: float) -> None:
        """The first rows of a configuration's data were tokenized."""
        self._sample = (config, tokens_per_row)

    def of(self, found: Price, facts: ModelFacts) -> Forecast:
        """The forecast of a priced draft; without a time for a device that is not here."""
        return forecast(
            found.config,
            facts,
            checkpointing=found.estimate.checkpointing,
            rows=self._rows(found.config, found),
            seen=self._run_of(found) if found.here else None,
            speed=self._speed(Kind.of(found.config, found.device)) if found.here else None,
        )

    def note(self, found: Price, seen: Forecast) -> str:
        """What a time rests on, or why there is none."""
        if seen.duration is not None:
            return seen.duration.basis
        if not found.here:
            return "no time is known for a card that is not in this machine"
        if seen.work is None:
            return ""
        key = Kind.of(found.config, found.device).key
        if found.device.kind == "cuda" and found.device.free_bytes <= _FREE_FOR_MEASURING:
            return "the GPU is too full to be measured"
        return "this machine could not be measured" if key in self._failed else "this machine is being measured"

    def claim(self, found: Price) -> bool:
        """Whether to measure now: enough memory is free, and no other process has started the measurement."""
        key = Kind.of(found.config, found.device).key
        room = found.device.kind == "cpu" or found.device.free_bytes > _FREE_FOR_MEASURING
        if not (found.here and room) or key in self._claimed:
            return False
        self._claimed.add(key)
        return True

    def measure(self, found: Price) -> None:
        """Measure this machine in a child process. Blocking, for some seconds."""
        kind = Kind.of(found.config, found.device)
        try:
            self._speeds[kind.key] = speeds.measure(kind, found.device)
        except QloraError:
            self._failed.add(kind.key)

    def is_slow(self, config: RunConfig, facts: ModelFacts, device: Device, found: Price) -> bool:
        """Return whether a model that fits into RAM would train for more than a day on a `device` of this machine."""
        if device.kind != "cpu":
            return False
        speed = self._speed(Kind.of(config, device))
        rows = self._rows(config, found)
        seen = forecast(config, facts, checkpointing=False, rows=rows, seen=None, speed=speed)
        return seen.is_long if seen.duration is not None else facts.parameters > _SLOW_PARAMETERS

    def _rows(self, config: RunConfig, found: Price) -> Rows | None:
        counted = found.counted.rows(config) if found.counted is not None else None
        if counted is not None:
            return counted
        key = config.data.model_dump_json()
        if key not in self._volumes:
            self._volumes[key] = volume(config.data)
        rows = rows_of(config, self._volumes[key])
        if rows is None or self._sample is None:
            return rows
        sampled, tokens = self._sample
        if (sampled.data, sampled.model.id) != (config.data, config.model.id):
            return rows
        return Rows(rows.train, min(tokens, config.training.max_length_tokens), rows.eval, False)

    def _run_of(self, found: Price) -> Observed | None:
        config = found.config
        key = (config.model.id, config.quantization.kind, config.adapter.kind, found.device.kind)
        if key not in self._seen:
            self._seen[key] = observed(config, found.device)
        return self._seen[key]

    def _speed(self, kind: Kind) -> Speed | None:
        if kind.key not in self._speeds and (found := speeds.known(kind)) is not None:
            self._speeds.setdefault(kind.key, found)  # a measurement may have ended meanwhile
        return self._speeds.get(kind.key)
