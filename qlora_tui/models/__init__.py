"""What is known of a base model without loading it."""

from qlora_tui.models.describe import describe
from qlora_tui.models.facts import ModelFacts

__all__ = ["ModelFacts", "describe"]
