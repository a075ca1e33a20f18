"""The last section of Setup: how the weights are updated, the settings that matter first."""

from collections.abc import Mapping

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from qlora_tui.config.run import RunConfig
from qlora_tui.ui.widgets.run_name_field import RunNameField
from qlora_tui.ui.widgets.settings_form import SettingsForm, remaining

_FIRST = (
    "training.micro_batch_size",
    "training.gradient_accumulation_steps",
    "training.max_length_tokens",
    "training.epochs",
    "training.max_steps",
    "training.learning_rate",
    "training.schedule",
    "training.optimizer",
    "training.loss_on",
    "training.packing",
    "training.gradient_checkpointing",
    "training.eval_every_steps",
    "training.save_every_steps",
)
_ADVANCED = tuple(remaining("training", *_FIRST))
PRICED = (*_FIRST, *_ADVANCED)
"""Settings whose effect on memory is shown, where there is one."""


class TrainingForm(VerticalScroll):
    """Posts ConfigEdited."""

    DEFAULT_CSS = "TrainingForm { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__(id="section-training")

    def compose(self) -> ComposeResult:
        yield RunNameField()
        yield SettingsForm(_FIRST, _ADVANCED)

    def show(self, config: RunConfig, pending: Mapping[str, str], reasons: Mapping[str, str]) -> None:
        """Show the draft."""
        self.query_one(SettingsForm).show(config, pending, reasons)

    def show_effects(self, effects: Mapping[str, str]) -> None:
        """Say beside each setting what it costs."""
        self.query_one(SettingsForm).show_effects(effects)
