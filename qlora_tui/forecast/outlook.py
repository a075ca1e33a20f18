"""The forecast of a run on this machine: the rows of its data, earlier runs, and the measured speed."""

from dataclasses import dataclass

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

_SLOW_PARAMETERS = 2e9
"""On a CPU that was not measured, training a larger model is assumed to take days."""

_FREE_FOR_MEASURING = 2 << 30
"""Bytes of a GPU; with less, a measurement could end another run."""


@dataclass(frozen=True, slots=True)
class Question:
    """A run whose steps and time are asked for."""

    config: RunConfig
    device: Device
    here: bool
    """Whether the device is part of this machine."""

    checkpointing: bool
    """Whether activations are recomputed."""

    counted: Rows | None = None
    """The rows, if all of them were tokenized."""

    @property
    def kind(self) -> Kind:
        """The arithmetic of the run."""
        return Kind.of(self.config, self.device)


class Outlook:
    """Caches what was found, so that an edit does not cost a second look. Methods may block: call them in a thread."""

    def __init__(self) -> None:
        self._volumes: dict[str, Volume | None] = {}
        self._seen: dict[tuple[str, str, str, str], Observed | None] = {}
        self._speeds: dict[str, Speed] = {}
        self._claimed: set[str] = set()
        self._failed: set[str] = set()
        self._sample: tuple[RunConfig, float] | None = None

    def sampled(self, config: RunConfig, tokens_per_row: float) -> None:
        """Use the token count of the first rows of a configuration's data."""
        self._sample = (config, tokens_per_row)

    def of(self, asked: Question, facts: ModelFacts) -> Forecast:
        """Return the forecast of a run; without a time for a device that is not in this machine."""
        return forecast(
            asked.config,
            facts,
            checkpointing=asked.checkpointing,
            rows=self._rows(asked),
            seen=self._run_of(asked) if asked.here else None,
            speed=self._speed(asked.kind) if asked.here else None,
        )

    def note(self, asked: Question, seen: Forecast) -> str:
        """Return what a time is based on, or why there is none."""
        if seen.duration is not None:
            return seen.duration.basis
        if not asked.here:
            return "no time is known for a card that is not in this machine"
        if seen.work is None:
            return ""
        if not _has_room(asked.device):
            return "the GPU is too full to be measured"
        return (
            "this machine could not be measured" if asked.kind.key in self._failed else "this machine is being measured"
        )

    def claim(self, asked: Question) -> bool:
        """Return whether to measure now: enough memory is free, and the measurement has not been started before."""
        key = asked.kind.key
        if not (asked.here and _has_room(asked.device)) or key in self._claimed:
            return False
        self._claimed.add(key)
        return True

    def measure(self, asked: Question) -> None:
        """Measure this machine in a child process. Takes some seconds."""
        try:
            self._speeds[asked.kind.key] = speeds.measure(asked.kind, asked.device)
        except QloraError:
            self._failed.add(asked.kind.key)

    def is_slow(self, asked: Question, facts: ModelFacts) -> bool:
        """Return whether a model that fits into RAM would train for more than a day on this machine's CPU."""
        if asked.device.kind != "cpu" or not asked.here:
            return False
        speed, rows = self._speed(asked.kind), self._rows(asked)
        seen = forecast(asked.config, facts, checkpointing=asked.checkpointing, rows=rows, seen=None, speed=speed)
        return seen.is_long if seen.duration is not None else facts.parameters > _SLOW_PARAMETERS

    def _rows(self, asked: Question) -> Rows | None:
        config = asked.config
        if asked.counted is not None:
            return asked.counted
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

    def _run_of(self, asked: Question) -> Observed | None:
        config = asked.config
        key = (config.model.id, config.quantization.kind, config.adapter.kind, asked.device.kind)
        if key not in self._seen:
            self._seen[key] = observed(config, asked.device)
        return self._seen[key]

    def _speed(self, kind: Kind) -> Speed | None:
        if kind.key not in self._speeds and (found := speeds.known(kind)) is not None:
            self._speeds.setdefault(kind.key, found)  # a measurement may have ended meanwhile
        return self._speeds.get(kind.key)


def _has_room(device: Device) -> bool:
    return device.kind == "cpu" or device.free_bytes > _FREE_FOR_MEASURING
