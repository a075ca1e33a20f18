"""Entries of the command palette beyond the keys of the current place."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.binding import Binding
from textual.command import Hit, Hits, Provider
from textual.dom import DOMNode
from textual.message import Message
from textual.screen import Screen

from qlora_tui.terminal import printable
from qlora_tui.ui import keys, messages
from qlora_tui.ui.commands import declared, offered_by_class
from qlora_tui.ui.widgets.places_bar import PLACES

if TYPE_CHECKING:
    from qlora_tui.ui.app import Workbench

_AT_ONCE = 200
"""Number of names compared before key events are processed again."""

_PATIENCE_S = 10.0
_PAUSE_S = 0.02


@dataclass(frozen=True)
class Named:
    """A named entry and its action."""

    name: str
    help: str
    act: Callable[["Workbench"], Awaitable[None]]


class Everything(Provider):
    """Actions of the other places, settings, runs, models, presets, themes, pages of the manual and terms."""

    async def startup(self) -> None:
        """Read the names, in a thread."""
        here, themes = self.app.current_mode, tuple(self.app.available_themes)
        self._named = await asyncio.to_thread(lambda: list(everything(here, themes)))

    async def search(self, query: str) -> Hits:
        """Yield the matching entries."""
        matcher = self.matcher(query)
        for number, one in enumerate(self._named):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            score = matcher.match(one.name)
            if score > 0:
                yield Hit(score, matcher.highlight(one.name), self._choose(one), help=one.help)

    def _choose(self, one: Named) -> Callable[[], None]:
        app: Any = self.app
        return lambda: app.run_worker(one.act(app), group="palette", exclusive=True, exit_on_error=False)


def everything(here: str, themes: Collection[str] = ()) -> Iterator[Named]:
    """Return all entries except the actions of the place `here`. Blocking: reads folders and imports screens.

    `themes`: the names of the themes that the app can use.
    """
    from qlora_tui import manual
    from qlora_tui.config import presets
    from qlora_tui.config.fields import fields
    from qlora_tui.models import catalogue
    from qlora_tui.models.store import stored_models
    from qlora_tui.runs import store
    from qlora_tui.settings import Settings
    from qlora_tui.ui import glossary, setup_summary

    yield from _actions(here)
    for key, field in fields().items():
        yield Named(f"setting: {key}", _line(field.help), _field(key))
    for key, about in Settings.model_fields.items():
        yield Named(f"setting: {key}", _line(about.description or ""), _preference(key))
    for name in themes:
        yield Named(f"theme: {printable(name, one_line=True)}", "Use this theme from now on", _theme(name))
    for run in store.all_runs():
        name = printable(run.name, one_line=True)
        yield Named(f"run: {name}", "Show this run", _posting(partial(messages.RunRequested, run.name)))
        yield Named(f"chat: {name}", "Chat with this run", _posting(partial(messages.ChatRequested, run.name)))
    for model_id in dict.fromkeys(("starter", *(model.id for model in stored_models()), *catalogue.ids())):
        yield Named(f"model: {printable(model_id, one_line=True)}", "Set up a run of this model", _model(model_id))
    for preset in presets.presets():
        title = _line(setup_summary.title_of(preset))
        yield Named(f"preset: {printable(preset.name, one_line=True)}", title, _preset(preset.name))
    for page in manual.pages():
        yield Named(f"manual: {page.name}", page.title, _page(page.name))
    for entry in glossary.entries():
        yield Named(f"term: {entry.term}", _line(entry.text), _term(entry.term))


def _line(text: str) -> str:
    return printable(text, one_line=True)


def _actions(here: str) -> Iterator[Named]:
    seen: set[str] = set()
    for kind in keys.classes():
        for binding in declared(kind):
            topic = (binding.id or "").partition(".")[0]
            place = next((name for name, _, _ in PLACES if topic in keys.PLACES_OF.get(name, ())), None)
            if binding.id and place not in (None, here) and binding.id not in seen and offered_by_class(binding):
                seen.add(binding.id)
                yield Named(
                    f"{topic}: {binding.description.lower()}", binding.tooltip, _action(str(place), kind, binding)
                )


async def _at(app: "Workbench", place: str) -> Screen[Any]:
    """Go to a place and wait until it is shown."""
    app.action_go(place)
    for _ in range(int(_PATIENCE_S / _PAUSE_S)):
        if app.current_mode == place and app.screen.is_mounted and app.screen.is_current:
            break
        await asyncio.sleep(_PAUSE_S)
    return app.screen


def _action(place: str, kind: type[DOMNode], binding: Binding) -> Callable[["Workbench"], Awaitable[None]]:
    async def act(app: "Workbench") -> None:
        screen = await _at(app, place)
        nodes = [node for node in screen.walk_children(with_self=True) if isinstance(node, kind)]
        if not nodes or not await app.run_action(binding.action, nodes[0]):
            app.notify(f"Not available now: {binding.description}.", markup=False)

    return act


def _field(key: str) -> Callable[["Workbench"], Awaitable[None]]:
    async def act(app: "Workbench") -> None:
        screen: Any = await _at(app, "setup")
        await screen.show_field(key)

    return act


def _preference(key: str) -> Callable[["Workbench"], Awaitable[None]]:
    async def act(app: "Workbench") -> None:
        screen: Any = await _at(app, "settings")
        screen.show_field(key)

    return act


def _theme(name: str) -> Callable[["Workbench"], Awaitable[None]]:
    async def act(app: "Workbench") -> None:
        app.use_theme(name)

    return act


def _posting(make: Callable[[], Message]) -> Callable[["Workbench"], Awaitable[None]]:
    async def act(app: "Workbench") -> None:
        app.post_message(make())

    return act


def _model(model_id: str) -> Callable[["Workbench"], Awaitable[None]]:
    async def act(app: "Workbench") -> None:
        from qlora_tui.errors import QloraError
        from qlora_tui.models import describe

        screen: Any = await _at(app, "setup")
        try:
            facts = await asyncio.to_thread(lambda: describe(model_id, network=False))
        except QloraError as error:
            app.complain(error)
        else:
            screen.adopt(facts.id, facts.context_tokens)

    return act


def _preset(name: str) -> Callable[["Workbench"], Awaitable[None]]:
    async def act(app: "Workbench") -> None:
        from qlora_tui.config import presets
        from qlora_tui.errors import QloraError

        screen: Any = await _at(app, "setup")
        try:
            screen.begin_from((await asyncio.to_thread(presets.find, name)).config, f"preset {name}")
        except QloraError as error:
            app.complain(error)

    return act


def _page(name: str) -> Callable[["Workbench"], Awaitable[None]]:
    async def act(app: "Workbench") -> None:
        app.action_manual(name)

    return act


def _term(term: str) -> Callable[["Workbench"], Awaitable[None]]:
    async def act(app: "Workbench") -> None:
        from qlora_tui.ui.screens.glossary import Glossary

        app.push_screen(Glossary(term=term))

    return act
