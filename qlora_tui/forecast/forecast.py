"""The forecast of a run before it starts: steps, tokens, time, and the basis of the time."""

from dataclasses import dataclass

from qlora_tui.config.run import RunConfig
from qlora_tui.forecast.duration import Duration, Observed, duration
from qlora_tui.forecast.speed import Speed
from qlora_tui.forecast.work import Rows, Work, work_of
from qlora_tui.models.facts import ModelFacts
from qlora_tui.units import approximate_duration

LONG_S = 24 * 3600.0
"""From here on the time is said beside the verdict: that it fits is not enough to know."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Either part may be unknown."""

    work: Work | None
    duration: Duration | None

    @property
    def is_long(self) -> bool:
        """Whether it trains for more than a day."""
        return self.duration is not None and self.duration.seconds > LONG_S

    @property
    def time(self) -> str:
        """How long it trains; empty when that is unknown."""
        return approximate_duration(self.duration.seconds) if self.duration is not None else ""

    @property
    def steps(self) -> str:
        """Steps and tokens."""
        if self.work is None:
            return "steps unknown until the data is on this machine"
        size = "up to " if self.work.longest_assumed else "" if self.work.exact else "about "
        steps = f"{self.work.steps:,} step{'s' * (self.work.steps != 1)}"
        return f"{steps}, {size}{_rounded(self.work.tokens, exact=self.work.exact):,} tokens"


def forecast(
    config: RunConfig,
    facts: ModelFacts,
    *,
    checkpointing: bool,
    rows: Rows | None,
    seen: Observed | None,
    speed: Speed | None,
) -> Forecast:
    """Return the forecast of a run on this machine. `seen` and `speed` are None for a device that is not here."""
    work = work_of(config, rows)
    took = duration(config, facts, checkpointing, work, seen, speed) if work is not None else None
    return Forecast(work, took)


def _rounded(number: int, *, exact: bool) -> int:
    """Two figures of a number that is not exact."""
    digits = len(str(number)) - 2
    return number if exact or digits <= 0 else round(number, -digits)
