"""The command palette: everything a key does, named "topic: verb"."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from textual.binding import Binding
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode
from textual.screen import Screen
from textual.types import IgnoreReturnCallbackType

_SILENT_TOPICS = {"list", "confirm"}
"""Movements and answers make no sense out of their place."""


@dataclass(frozen=True)
class Command:
    """One binding as a command."""

    name: str
    help: str
    binding: Binding
    node: DOMNode


def commands(screen: Screen[object]) -> Iterator[Command]:
    """Every binding with an id of the app, the screen and what is on it, once."""
    seen: set[str] = set()
    shown = (node for node in screen.walk_children(with_self=False) if node.display)
    for node in (screen, *shown, screen.app):
        for binding in declared(type(node)):
            if binding.id and binding.id not in seen and _offered(node, binding):
                seen.add(binding.id)
                topic = "go to" if binding.action.startswith("go(") else binding.id.partition(".")[0]
                name = f"{topic}: {binding.description.lower()}"
                yield Command(name, binding.tooltip, binding, node)


def declared(kind: type[DOMNode]) -> Iterator[Binding]:
    """The bindings that a class and its bases declare."""
    for base in kind.__mro__:
        yield from Binding.make_bindings(base.__dict__.get("BINDINGS", ()))


def offered_by_class(binding: Binding) -> bool:
    """Return whether a binding is listed by name: no cursor movement, no dialog answer, no switch of place."""
    topic = (binding.id or "").partition(".")[0]
    parametrized = "(" in binding.action and ":" in binding.action
    return topic not in _SILENT_TOPICS and binding.action != "command_palette" and not parametrized


def _offered(node: DOMNode, binding: Binding) -> bool:
    name = binding.action.partition("(")[0]
    return offered_by_class(binding) and ("." in name or node.check_action(name, ()) is not False)


class Commands(Provider):
    """Commands of the place that one is in, and of the app."""

    @property
    def _commands(self) -> list[Command]:
        return list(commands(self.screen))

    async def discover(self) -> Hits:
        """All of them, before anything is typed."""
        for command in self._commands:
            yield DiscoveryHit(command.name, self._run(command), help=command.help)

    async def search(self, query: str) -> Hits:
        """Yield the matching entries."""
        matcher = self.matcher(query)
        for command in self._commands:
            score = matcher.match(command.name)
            if score > 0:
                yield Hit(score, matcher.highlight(command.name), self._run(command), help=command.help)

    def _run(self, command: Command) -> IgnoreReturnCallbackType:
        return partial(self.app.run_action, command.binding.action, command.node)
