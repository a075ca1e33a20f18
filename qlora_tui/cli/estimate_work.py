"""Steps, tokens and training time of a run, as `qlora-tui estimate` prints them."""

import textwrap
from typing import TYPE_CHECKING, Any

from qlora_tui.cli.output import write_line
from qlora_tui.forecast.forecast import Forecast
from qlora_tui.forecast.outlook import Outlook, Question
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.models.facts import ModelFacts

_WIDTH = 80


def look(asked: Question, facts: "ModelFacts") -> tuple[Forecast, str]:
    """Return the forecast and what its time is based on. Measures this machine if no run and no measurement is known.

    The measurement takes some seconds and is kept.
    """
    outlook = Outlook()
    seen = outlook.of(asked, facts)
    if seen.work is not None and seen.duration is None and outlook.claim(asked):
        narrate("note: Measuring the speed of this machine once, which takes a few seconds.")
        outlook.measure(asked)
        seen = outlook.of(asked, facts)
    return seen, outlook.note(asked, seen)


def write(seen: Forecast, note: str) -> None:
    """Write one paragraph, and nothing when no part is known."""
    if seen.work is None:
        return
    time = f", about {seen.time}" if seen.time else ""
    basis = f" ({note})" if note else ""
    write_line(textwrap.fill(f"{seen.steps}{time}{basis}", _WIDTH))
    write_line()


def as_json(seen: Forecast, note: str) -> dict[str, Any]:
    """Return the forecast as plain data: null where something is unknown."""
    work, took = seen.work, seen.duration
    return {
        "forecast": {
            "steps": work.steps if work else None,
            "tokens": work.tokens if work else None,
            "tokens_are_exact": work.exact if work else None,
            "eval_tokens": work.eval_tokens if work else None,
            "training_s": round(took.seconds, 1) if took else None,
            "step_s": round(took.step_s, 4) if took else None,
            "basis": note or None,
        }
    }
