"""The first section of Setup: which base model. Looks for models, in threads, and shows what it finds."""

from collections.abc import Mapping, Sequence

from textual import on, work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.message import Message
from textual.timer import Timer
from textual.worker import get_current_worker

from qlora_tui.config.run import RunConfig
from qlora_tui.errors import QloraError
from qlora_tui.models.choices import Choice, folder_choices, hub_choice, local_choices, of_facts
from qlora_tui.ui.widgets.model_picker import ModelPicker
from qlora_tui.ui.widgets.settings_form import SettingsForm, remaining

PAUSE_S = 0.4
"""Seconds without a key before the hub is asked."""

_SEARCHED_CHARACTERS = 3


class ModelSection(VerticalScroll):
    """Posts ModelPicker.Taken for a choice, ConfigEdited for the other settings, Listed when other models are shown."""

    DEFAULT_CSS = "ModelSection { height: 1fr; }"

    class Listed(Message):
        """Other models are shown, or more is known of one."""

    class _Found(Message):
        """A search has ended."""

        def __init__(self, text: str, choices: Sequence[Choice], status: str) -> None:
            super().__init__()
            self.text = text
            self.choices = choices
            self.status = status

    class _Described(Message):
        def __init__(self, choice: Choice) -> None:
            super().__init__()
            self.choice = choice

    def __init__(self) -> None:
        super().__init__(id="section-model")
        self._local: list[Choice] = []
        self._found: list[Choice] = []
        self._text = ""
        self._status = "looking for models …"
        self._chosen = ""
        self._before_search: Timer | None = None
        self._before_describing: Timer | None = None
        self._asked: set[str] = set()
        self._described: dict[str, Choice] = {}

    def compose(self) -> ComposeResult:
        yield ModelPicker()
        yield SettingsForm((), remaining("model", "model.id"), title="Revision, device, dtype, remote code …")

    def on_mount(self) -> None:
        self._list_local()

    def show(self, config: RunConfig, pending: Mapping[str, str], reasons: Mapping[str, str]) -> None:
        """Show the draft."""
        self.query_one(SettingsForm).show(config, pending, reasons)
        if config.model.id != self._chosen:
            self._chosen = config.model.id
            self._refresh()

    @property
    def picker(self) -> ModelPicker:
        return self.query_one(ModelPicker)

    def _refresh(self) -> None:
        words = self._text.lower().split()
        here = [one for one in self._local if all(word in one.id.lower() for word in words)]
        known = {one.id for one in here}
        shown = [*here, *(one for one in self._found if one.id not in known)]
        self.picker.show([self._described.get(one.id, one) for one in shown], self._chosen, self._status)
        self.post_message(self.Listed())

    @on(ModelPicker.SearchChanged)
    def _search_changed(self, message: ModelPicker.SearchChanged) -> None:
        message.stop()
        self._text, self._found = message.text.strip(), []
        self._described = {known: choice for known, choice in self._described.items() if not choice.problem}
        self._asked &= self._described.keys()  # what could not be told may be told now
        self._status = f"{len(self._local)} models here and well known"
        self.workers.cancel_group(self, "search")
        if self._before_search is not None:
            self._before_search.stop()
        if _is_path(self._text):
            self._status = "model folders"
            self._search(self._text)
        elif len(self._text) >= _SEARCHED_CHARACTERS:
            self._status = "asking the hub …"
            self._before_search = self.set_timer(PAUSE_S, lambda: self._search(self._text))
        self._refresh()

    @on(ModelPicker.Marked)
    def _marked(self, message: ModelPicker.Marked) -> None:
        message.stop()
        choice = message.choice
        if self._before_describing is not None:
            self._before_describing.stop()
        if choice.facts is None and not choice.problem and choice.id not in self._asked:
            self._before_describing = self.set_timer(PAUSE_S, lambda: self._begin_describing(choice))

    def _begin_describing(self, choice: Choice) -> None:
        self._asked.add(choice.id)
        self._describe(choice)

    @on(_Found)
    def _show_found(self, message: _Found) -> None:
        if message.text == self._text:
            self._found, self._status = list(message.choices), message.status
            self._refresh()

    @on(_Described)
    def _show_described(self, message: _Described) -> None:
        self._described[message.choice.id] = message.choice
        self._refresh()

    @work(thread=True, group="local", exclusive=True, exit_on_error=False)
    def _list_local(self) -> None:
        choices = local_choices()
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._show_local, choices)

    def _show_local(self, choices: list[Choice]) -> None:
        self._local = choices
        self._status = f"{len(choices)} local and well-known models; / searches them and the hub"
        self._refresh()

    @work(thread=True, group="search", exclusive=True, exit_on_error=False)
    def _search(self, text: str) -> None:
        from qlora_tui.models.search import search

        try:
            if _is_path(text):
                choices = folder_choices(text)
                status = f"{len(choices)} model folders" if choices else f"no model folder at {text}"
            else:
                choices = [hub_choice(match) for match in search(text, limit=30)]
                status = f"{len(choices)} found on the hub" if choices else f"nothing on the hub is called {text}"
        except QloraError as error:
            choices, status = [], f"{error.message}. {error.hint}"
        if not get_current_worker().is_cancelled:
            self.post_message(self._Found(text, choices, status))

    @work(thread=True, group="describe", exit_on_error=False)
    def _describe(self, choice: Choice) -> None:
        from dataclasses import replace

        from qlora_tui.models import describe

        try:
            found = of_facts(describe(choice.id), stored_bytes=choice.stored_bytes)
        except QloraError as error:
            found = replace(choice, problem=f"{error.message}. {error.hint}".strip())
        self.post_message(self._Described(found))

    def show_badges(self, badges: Mapping[str, str]) -> None:
        """Say which of the models fit."""
        self.picker.show_badges(badges)


def _is_path(text: str) -> bool:
    return text.startswith((".", "/", "~"))
