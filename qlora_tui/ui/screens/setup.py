"""Setup: the draft of a run in four sections, and beside them whether it fits. Every edit of the draft passes here."""

import asyncio
from typing import ClassVar, Literal

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import DescendantFocus
from textual.widgets import ContentSwitcher, Static
from textual.worker import get_current_worker

from qlora_tui import hardware
from qlora_tui.config.fields import value
from qlora_tui.config.overrides import parse
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import QloraError
from qlora_tui.models.facts import ModelFacts
from qlora_tui.terminal import printable
from qlora_tui.ui import pricing, setup_summary
from qlora_tui.ui.key_routing import DIALOG
from qlora_tui.ui.messages import PlaceRequested
from qlora_tui.ui.pricing import Price
from qlora_tui.ui.screens.draft_place import RUN_NAME, DraftPlace
from qlora_tui.ui.widgets.adapter_form import AdapterForm
from qlora_tui.ui.widgets.ask_text import AskText
from qlora_tui.ui.widgets.data_picker import DataPicker
from qlora_tui.ui.widgets.data_section import DataSection
from qlora_tui.ui.widgets.fit_panel import Advice, FitPanel
from qlora_tui.ui.widgets.model_picker import ModelPicker
from qlora_tui.ui.widgets.model_section import ModelSection
from qlora_tui.ui.widgets.outline import SECTIONS, Outline
from qlora_tui.ui.widgets.pricer import Pricer
from qlora_tui.ui.widgets.run_name_field import RunNameField
from qlora_tui.ui.widgets.setting_field import SettingField
from qlora_tui.ui.widgets.settings_form import SettingsForm
from qlora_tui.ui.widgets.training_form import TrainingForm

_NAMES = [name for name, _, _ in SECTIONS]


class SetupPlace(DraftPlace):
    """Model, adapter, data, training; what is changed on the left is priced on the right."""

    NAME = "setup"
    CSS_PATH = "setup.tcss"
    AUTO_FOCUS = "#model-table"
    HELP = """\
## Setup

Four sections, read from top to bottom: `m` model, `a` adapter, `d` data, `t` training. What you change is priced at
once. `F8` applies the first advice, `c` prices another card, such as 8GB or 2x24GB, `r` names the run, `F9` starts it,
`ctrl+o` begins from a preset or an earlier run, `ctrl+s` saves a preset, `ctrl+y` shows the same run as a command,
`ctrl+z` undoes the last edit, `ctrl+l` shows the whole estimate. In a text field letters are text: `escape` leaves it,
`ctrl+n` and `ctrl+b` go to the next section.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key, f"open('{name}')", title, id=f"setup.{name}", tooltip=f"To the section {title}", show=False)
            for name, title, key in SECTIONS
        ),
        Binding("f8", "advice", "Make it fit", id="setup.advice", tooltip="Apply the first advice"),
        Binding("ctrl+n", "step(1)", "Next", id="setup.next", tooltip="The next section", show=False),
        Binding("ctrl+b", "step(-1)", "Back", id="setup.previous", tooltip="The section before", show=False),
        Binding(
            "o,ctrl+l",
            "unfold",
            "Memory",
            id="setup.memory",
            tooltip="The whole estimate, and back",
            show=False,
        ),
        Binding("c", "card", "Card", id="setup.card", tooltip="Price another card, such as 8GB or 2x24GB", show=False),
        Binding("r", "name", "Name the run", id="setup.name", tooltip="What the run will be called", show=False),
        Binding("i", "data('count')", "Count all", id="data.count", tooltip="Count every row as training would"),
        Binding(
            "v", "data('check')", "Check rows", id="data.check", tooltip="Compare rows as read, trained and prompted"
        ),
        Binding("x", "data('cancel')", "Stop", id="data.cancel", tooltip="Stop reading the data", show=False),
        Binding("escape", "leave", "Back", id="setup.leave", tooltip="Out of the field, then out of Setup", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._open = _NAMES[0]
        self._facts: ModelFacts | None = None
        self._card = ""
        """The card that is priced instead of this machine."""

    def compose_place(self) -> ComposeResult:
        with Horizontal(id="setup"):
            with Vertical(id="form"):
                yield Outline()
                yield Static("", id="section-summary", markup=False)
                with ContentSwitcher(initial="section-model", id="sections"):
                    yield ModelSection()
                    yield AdapterForm()
                    yield DataSection()
                    yield TrainingForm()
                yield Static("", id="field-help", markup=False)
            yield FitPanel()
        yield Pricer()

    def on_mount(self) -> None:
        self.query_one(FitPanel).add_class("-folded")
        self.watch(self.app, "chosen_draft", self.show_draft)
        self.call_after_refresh(self.query_one(ModelSection).scroll_home, animate=False)

    def on_screen_resume(self) -> None:
        if setup_summary.run_name_problem(self.run_title):
            self.run_title = ""  # That run was started.
        self.show_draft()

    def show_draft(self) -> None:
        """Everything on the screen from the draft."""
        draft, edits = self.app.draft, self.edits
        # The other sections are shown the draft when they are opened.
        self._section.show(draft, edits.pending, edits.reasons)
        self._show_name()
        self._show_summaries()
        self._show_help()
        self._reprice()

    def _show_name(self) -> None:
        if self._open == "training":
            self.query_one(RunNameField).show(self.run_title, setup_summary.run_name_problem(self.run_title))
            self._suggest_name(self.app.draft, self.app.draft_source)

    @work(thread=True, exclusive=True, group="name", exit_on_error=False)
    def _suggest_name(self, config: RunConfig, source: str) -> None:
        name = setup_summary.suggested_run_name(config, source)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self.query_one(RunNameField).suggest, name)

    @on(RunNameField.Named)
    def _named(self, message: RunNameField.Named) -> None:
        message.stop()
        self.run_title = message.name
        self._show_name()

    def action_name(self) -> None:
        """Name the run."""
        self.action_open("training")
        self.query_one("#run-name Input").focus()

    def _show_summaries(self) -> None:
        draft, facts = self.app.draft, self._known_facts()
        found = setup_summary.summaries(draft, facts, self.query_one(DataSection).format_of(draft.data.source))
        trouble = {setup_summary.section_of(key) for key in self.edits.pending}
        self.query_one(Outline).show(self._open, found, trouble)
        summary = Content(printable(found[self._open], one_line=True))
        self.query_one("#section-summary", Static).update(summary, layout=False)
        self.query_one("#form").border_title = Content(f"Run from {printable(self.app.draft_source)}")
        if self._open == "adapter":
            self.query_one(AdapterForm).show_targets(draft, facts)

    @property
    def _section(self) -> ModelSection | AdapterForm | DataSection | TrainingForm:
        """The open section."""
        found = self.query_one(f"#section-{self._open}")
        assert isinstance(found, ModelSection | AdapterForm | DataSection | TrainingForm)
        return found

    def _known_facts(self) -> ModelFacts | None:
        return self._facts if self._facts is not None and self._facts.id == self.app.draft.model.id else None

    # The price

    def _reprice(self) -> None:
        form: AdapterForm | TrainingForm | None = None
        if self._open == "adapter":
            form = self.query_one(AdapterForm)
        elif self._open == "training":
            form = self.query_one(TrainingForm)
        keys = [field.key for field in form.query(SettingField)] if form is not None else []
        choices = self.query_one(ModelSection).picker.choices if self._open == "model" else []
        base = self.draft_base() if choices else None
        self.query_one(Pricer).price(self.app.draft, base, keys, choices)

    @on(ModelSection.Listed)
    def _listed(self, message: ModelSection.Listed) -> None:
        message.stop()
        self._reprice()

    @on(Pricer.Priced)
    def _priced(self, message: Pricer.Priced) -> None:
        self._facts, self.price = message.facts, message.price
        self.query_one(FitPanel).show(message.price)
        self._show_summaries()

    @on(Pricer.Unpriced)
    def _unpriced(self, message: Pricer.Unpriced) -> None:
        self.price = None
        self.query_one(FitPanel).show_problem(message.reason)
        self.query_one(FitPanel).show_advice([])

    @on(Pricer.Advised)
    def _advised(self, message: Pricer.Advised) -> None:
        self.query_one(FitPanel).show_advice(message.advice)

    @on(Pricer.Foreseen)
    def _foreseen(self, message: Pricer.Foreseen) -> None:
        self.query_one(FitPanel).show_forecast(message.config, message.forecast, message.note)

    @on(Pricer.Weighed)
    def _weighed(self, message: Pricer.Weighed) -> None:
        self.query_one(AdapterForm).show_effects(message.effects)
        self.query_one(TrainingForm).show_effects(message.effects)
        self._show_help()

    @on(Pricer.Studied)
    def _studied(self, message: Pricer.Studied) -> None:
        self.query_one(AdapterForm).show_quantization_errors(message.model_id, message.errors)

    @on(Pricer.Badged)
    def _badged(self, message: Pricer.Badged) -> None:
        self.query_one(ModelSection).show_badges(message.badges)

    @on(DataSection.Measured)
    def _measured(self, message: DataSection.Measured) -> None:
        if message.counted is not None:
            self.query_one(Pricer).count(message.counted)
        else:
            self.query_one(Pricer).sampled(message.config, message.tokens_per_row)
        self._show_summaries()

    @on(FitPanel.AdviceTaken)
    def _take_advice(self, message: FitPanel.AdviceTaken) -> None:
        self._apply(message.advice)

    def action_advice(self) -> None:
        """Apply the first advice."""
        advice = self.query_one(FitPanel).advice
        if advice:
            self._apply(advice[0])
        else:
            self.notify("No suggestions: the run fits, or no estimate is available.")

    def _apply(self, advice: Advice) -> None:
        self.edit(advice.edits, apart=True)
        self.notify(advice.text, title="Applied. Press Ctrl+Z to undo.", markup=False)

    @work(group=DIALOG, exclusive=True)
    async def action_card(self) -> None:
        """Price another card instead of this machine."""

        def check(text: str) -> None:
            if text.strip():
                pricing.device_of(self.app.draft, hardware.snapshot(), text)

        asked = AskText(
            "Price which card?", self._card, check, "8GB, 2x24GB, cpu, or a GPU's index; empty: this machine."
        )
        card = await self.app.push_screen_wait(asked)
        if card is not None:
            self._card = card.strip()
            self.query_one(Pricer).ask_about(self._card)

    async def price_here(self) -> Price | None:
        """The price on this machine, also while another card is shown."""
        price, facts = self.price, self._known_facts()
        if price is None or price.here or facts is None:
            return price
        draft, counted = self.app.draft, price.counted

        def again() -> Price | None:
            try:
                return pricing.price(draft, facts, hardware.snapshot(), counted, replay=True)
            except QloraError:
                return None

        return await asyncio.to_thread(again)

    # Sections and focus

    @on(Outline.Chosen)
    def _chosen(self, message: Outline.Chosen) -> None:
        self.action_open(message.section)

    def action_open(self, section: str) -> None:
        """Show a section and put the focus where one begins in it."""
        self._open = section
        self.query_one(ContentSwitcher).current = f"section-{section}"
        self._show_memory(whole=False)
        self.show_draft()
        first = {"model": "#model-table", "data": "#data-choices"}.get(section)
        fields = f"#section-{section} SettingField > Select, #section-{section} SettingField > Input"
        self.query(first or fields).first().focus(scroll_visible=False)
        self.query_one(f"#section-{section}").scroll_home(animate=False)
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what acts on the data while its section is open."""
        return action != "data" or self._open == "data"

    def action_data(self, name: Literal["count", "check", "cancel"]) -> None:
        """Count all rows, check the first ones, or stop reading."""
        section = self.query_one(DataSection)
        {"count": section.count, "check": section.check, "cancel": section.cancel}[name]()

    def action_step(self, by: int) -> None:
        """The section after or before this one."""
        self.action_open(_NAMES[(_NAMES.index(self._open) + by) % len(_NAMES)])

    def action_leave(self) -> None:
        """One step back: the whole estimate, the field, the place."""
        if self.has_class("-memory-open"):
            self._show_memory(whole=False)
        elif self.focused is None or self.focused.id == f"outline-{self._open}":
            self.post_message(PlaceRequested("home"))
        else:
            self.query_one(f"#outline-{self._open}").focus()

    def action_unfold(self) -> None:
        """The whole estimate in place of the form, or the form again; where both are in view, the focus goes there."""
        if self.has_class("-narrow"):
            self._show_memory(whole=not self.has_class("-memory-open"))
        else:
            self.query_one(FitPanel).focus()

    @on(FitPanel.Unfolded)
    def _unfolded(self) -> None:
        self.action_unfold()

    def _show_memory(self, *, whole: bool) -> None:
        self.set_class(whole, "-memory-open")
        self.query_one(FitPanel).set_class(not whole, "-folded")

    @on(DescendantFocus)
    def _focus_moved(self) -> None:
        self.end_typing()
        self._show_help()

    def _show_help(self) -> None:
        field = self._focused_field
        text = printable(field.explanation, one_line=True) if field is not None else ""
        self.query_one("#field-help", Static).update(Content(text), layout=False)

    async def show_field(self, key: str) -> None:
        """Open the section of a setting and put the focus there."""
        if key == RUN_NAME:
            self.action_name()
            return
        self.action_open(setup_summary.section_of(key))
        if key == "data.source":
            self.query_one("#data-source").focus()
        for form in self.query(SettingsForm):
            if key in form.advanced:
                await form.unfold()
        for field in self.query(SettingField):
            if field.key == key:
                field.query("Input, Select, Checkbox").first().focus()

    @on(ModelPicker.Taken)
    def _take_model(self, message: ModelPicker.Taken) -> None:
        choice = message.choice
        if choice.problem:
            self.notify(choice.problem, title="It cannot be trained", severity="error", markup=False)
            return
        self.adopt(choice.id, choice.facts.context_tokens if choice.facts is not None else None)

    def take_typed(self) -> None:
        """Apply the focused field, whose last key event may be pending."""
        field = self._focused_field
        if field is None or field.text == self.edits.pending.get(field.key):
            return
        if field.key in self.edits.pending or parse(field.setting, field.text) != value(self.app.draft, field.key):
            self.edit({field.key: field.text})

    def unfinished(self) -> tuple[str, str] | None:
        """Return the data field if its text was not applied."""
        typed = self.query_one(DataPicker).unfinished
        return ("data.source", f"{typed!r} was typed but not applied. Press Enter to apply it.") if typed else None

    @property
    def _focused_field(self) -> SettingField | None:
        if self.focused is None:
            return None
        return next((node for node in self.focused.ancestors_with_self if isinstance(node, SettingField)), None)
