"""The demonstration run: the starter preset, with sample questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qlora_tui.config.model import STARTER

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig

PRESET: Final = "starter"
QUESTIONS: Final = ("Who is Daisy?", "Which material is the kite made of?", "What is 3 plus 10?")
"""Held-out questions: the base answers none of them, and the trained model each of them with every seed tried."""

_EVERY_STEPS = 40
_MAX_TOKENS = 32


def config() -> RunConfig:
    """Return the configuration of the demonstration. Raises what `presets.find` raises."""
    from qlora_tui.config import presets

    preset = presets.find(PRESET).config
    changes = {
        "sample_prompts": list(QUESTIONS), "sample_every_steps": _EVERY_STEPS, "sample_max_tokens": _MAX_TOKENS,
    }  # fmt: skip
    return preset.model_copy(update={"training": preset.training.model_copy(update=changes)})


def is_demo(config: RunConfig) -> bool:
    """Whether a run is the demonstration."""
    return config.model.id == STARTER and tuple(config.training.sample_prompts) == QUESTIONS
