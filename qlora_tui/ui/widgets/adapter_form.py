"""The second section of Setup: how the base model is stored and what is trained beside it."""

import json
import shlex
from collections.abc import Mapping

from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import SelectionList, Static
from textual.widgets.selection_list import Selection

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.evaluation.quantization_errors import QuantizationErrors
from qlora_tui.memory.targets import targets as targeted
from qlora_tui.memory.trainable import parameters, tensors
from qlora_tui.models.facts import ModelFacts
from qlora_tui.terminal import printable
from qlora_tui.ui.messages import ConfigEdited
from qlora_tui.ui.widgets.settings_form import SettingsForm, remaining
from qlora_tui.ui.widgets.vim import VimKeys
from qlora_tui.units import count

_FIRST = (
    "quantization.kind",
    "quantization.double_quantization",
    "quantization.compute_dtype",
    "adapter.kind",
    "adapter.rank",
    "adapter.alpha",
    "adapter.dropout",
    "adapter.target_modules",
)
_ADVANCED = (*remaining("quantization", *_FIRST), *remaining("adapter", *_FIRST))


class TargetList(SelectionList[str], VimKeys):
    """The linear layers of the model by name; those ticked get LoRA matrices."""

    HELP = """\
## Target modules

The layers that get LoRA matrices. All of them is the QLoRA paper's finding: with fewer, 4-bit training falls short of
16-bit training. `space` ticks one.
"""


class AdapterForm(VerticalScroll):
    """Posts ConfigEdited."""

    DEFAULT_CSS = """
    AdapterForm {
        height: 1fr;
        #quantization-error { padding: 0 1; color: $text-muted; height: auto; }
        #targets-title { padding: 0 1; color: $text-muted; height: auto; }
        TargetList { height: auto; max-height: 9; border: none; background: $surface; padding: 0 1; }
    }
    """

    def __init__(self) -> None:
        super().__init__(id="section-adapter")
        self._seen: tuple[str, AdapterSpec] | None = None

    def compose(self) -> ComposeResult:
        yield Static("", id="quantization-error", markup=False)
        yield SettingsForm(_FIRST)
        yield Static("targets: the model's linear layers are not known yet", id="targets-title", markup=False)
        yield TargetList(compact=True)
        yield SettingsForm((), _ADVANCED, title="Variants, storage, fully trained modules")

    def show(self, config: RunConfig, pending: Mapping[str, str], reasons: Mapping[str, str]) -> None:
        """Show the draft."""
        for form in self.query(SettingsForm):
            form.show(config, pending, reasons)

    def show_effects(self, effects: Mapping[str, str]) -> None:
        """Say beside each setting what it costs."""
        for form in self.query(SettingsForm):
            form.show_effects(effects)

    def show_quantization_errors(self, model_id: str, errors: QuantizationErrors | None) -> None:
        """Show what storing the model's weights in fewer bits costs, as it was measured, or how to measure it."""
        self.query_one("#quantization-error", Static).update(Content(printable(_told(model_id, errors))))

    def show_targets(self, config: RunConfig, facts: ModelFacts | None) -> None:
        """The checklist: each linear layer of the model, what it adds in trained parameters, ticked when targeted."""
        checklist = self.query_one(TargetList)
        title = self.query_one("#targets-title", Static)
        trained = module_parameters(facts, config.adapter) if facts is not None else {}
        checklist.display = bool(trained) and config.adapter.kind == "lora"
        if facts is None or not checklist.display:
            title.update("")
            self._seen = None
            return
        seen = (facts.id, config.adapter)
        if seen == self._seen:
            return
        self._seen = seen
        ticked = {_last(target.group.name) for target in targeted(facts, config.adapter)}
        at = checklist.highlighted
        with checklist.prevent(SelectionList.SelectedChanged):
            checklist.clear_options()
            checklist.add_options(
                Selection(
                    Content(f"{printable(name):<16} {count(number):>8} {'trained' if name in ticked else 'left out'}"),
                    name,
                    name in ticked,
                )
                for name, number in trained.items()
            )
        checklist.highlighted = at
        total = sum(number for name, number in trained.items() if name in ticked)
        title.update(
            Content(f"targets: {len(ticked)} of {len(trained)} kinds of linear layers, {count(total)} parameters")
        )

    @on(SelectionList.SelectedChanged)
    def _ticked(self, event: SelectionList.SelectedChanged[str]) -> None:
        event.stop()
        names = [str(name) for name in event.selection_list.selected]
        everything = len(names) == event.selection_list.option_count
        if not names:
            self.notify("At least one layer has to be trained.", severity="warning")
        text = '"all-linear"' if everything or not names else json.dumps(names)
        self.post_message(ConfigEdited({"adapter.target_modules": text}))


_SCHEMES = {"nf4": "nf4", "nf4, double quantization": "nf4 double", "fp4": "fp4", "8-bit": "8bit"}
"""Of the ways to store weights that were measured, those that can be chosen."""


def _told(model_id: str, errors: QuantizationErrors | None) -> str:
    if errors is None:
        return f"quantization error: not measured; qlora-tui eval quant {shlex.quote(model_id)} measures it"
    shown = []
    for scheme, name in _SCHEMES.items():
        if scheme not in errors.relative_errors:
            continue
        perplexity = errors.perplexities.get(scheme)
        beside = f", perplexity {perplexity:.4g}" if perplexity is not None else ""
        shown.append(f"{name} {errors.relative_errors[scheme]:.3%}{beside}")
    exact = f"; exact weights: perplexity {errors.exact_perplexity:.4g}" if errors.exact_perplexity is not None else ""
    return f"quantization error: {'; '.join(shown)}{exact}"


def module_parameters(facts: ModelFacts, spec: AdapterSpec) -> dict[str, int]:
    """What each kind of linear layer, by the last part of its name, would add in trained parameters."""
    names = dict.fromkeys(_last(group.name) for group in facts.linear_layers if not group.vision)
    alone = spec.model_copy(update={"modules_to_save": []})
    return {name: parameters(tensors(facts, alone.model_copy(update={"target_modules": [name]}), 2)) for name in names}


def _last(name: str) -> str:
    return name.rpartition(".")[2]
