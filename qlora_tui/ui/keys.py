"""Every key of the workbench: the bindings that all its screens and widgets declare."""

from functools import cache
from importlib import import_module
from pkgutil import walk_packages

from textual.binding import Binding
from textual.dom import DOMNode

import qlora_tui.ui
from qlora_tui.ui.commands import declared

_EVERYWHERE = "workbench"


def classes() -> list[type[DOMNode]]:
    """Every screen and widget of the workbench. Imports all of them: call it in a thread."""
    for module in walk_packages(qlora_tui.ui.__path__, "qlora_tui.ui."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found: list[type[DOMNode]] = []
    unseen = [DOMNode]
    while unseen:
        kind = unseen.pop()
        unseen += [child for child in kind.__subclasses__() if child not in found]
        if kind.__module__.startswith("qlora_tui.ui."):
            found.append(kind)
    return sorted(set(found), key=lambda kind: (kind.__module__, kind.__qualname__))


@cache
def bindings() -> dict[str, Binding]:
    """All bindings by id; the keys of one that has several are joined by commas."""
    found: dict[str, Binding] = {}
    for kind in classes():
        own: dict[str, Binding] = {}
        for binding in declared(kind):
            if binding.id is None:
                continue
            before = own.get(binding.id)
            keys = f"{before.key},{binding.key}" if before and binding.key not in before.key.split(",") else binding.key
            own[binding.id] = binding.with_key(keys)
        found = own | found
    return dict(sorted(found.items()))


def clash(binding_id: str, key: str, keymap: dict[str, str]) -> str | None:
    """The id of another binding that answers to this key in the same place, or None."""
    topic = binding_id.partition(".")[0]
    for other, binding in bindings().items():
        near = topic == _EVERYWHERE or other.partition(".")[0] in (topic, _EVERYWHERE)
        if other != binding_id and near and key in keymap.get(other, binding.key).split(","):
            return other
    return None
