"""Every key of the workbench: the bindings that all its screens and widgets declare."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import walk_packages

from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import _normalize_key_list

import qlora_tui.ui
from qlora_tui.ui.commands import declared
from qlora_tui.ui.key_routing import is_text

_EVERYWHERE = "workbench"

TOGETHER = (
    {"home", "card", "list"},
    {"setup", "models", "data", "rows", "list"},
    {"run", "plot", "list", "watch"},
    {"runs", "list"},
    {"compare", "plot", "list"},
    {"chat", "prompt", "slider"},
    {"settings", "list"},
    {"glossary", "list"},
    {"manual", "list"},
    {"load", "list"},
    {"check", "list"},
    {"theme", "list"},
)
"""First parts of the ids of bindings that can be active at the same time."""

PLACES_OF = {
    "home": ("home",),
    "setup": ("setup", "models", "data", "rows"),
    "run": ("run", "plot"),
    "runs": ("runs",),
    "chat": ("chat",),
    "settings": ("settings",),
}
"""First parts of the ids of the actions of each place."""

_MOVES = ("up", "down", "left", "right", "home", "end", "pageup", "pagedown")
_BASIC = {
    *("enter", "escape", "tab", "shift+tab", "backspace", "delete", "ctrl+c"),
    *(f"{held}{key}" for key in _MOVES for held in ("", "shift+", "ctrl+", "ctrl+shift+")),
}
"""Keys needed for editing and for leaving a screen."""


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


def refusal(binding_id: str, key: str, keymap: Mapping[str, str]) -> str | None:
    """Return why this key cannot be bound to an action, or None if it works wherever the action is available."""
    if key in keymap.get(binding_id, "").split(",") or key in _keys(binding_id, {}):
        return None
    if key in _BASIC:
        return f"{key} is reserved for navigation, editing and dialogs"
    if is_text(key) and _works_in_editors(binding_id):
        return (
            f"{key} types text in an editor, where {binding_id} must work. Choose a function key or a Ctrl combination"
        )
    for other in bindings():
        if other != binding_id and key in _keys(other, keymap) and _together(binding_id, other):
            return f"{key} is already the key of {other}"
    return None


def refusals(keymap: Mapping[str, str]) -> dict[str, str]:
    """Return the actions of a keymap with unusable keys, with the reasons."""
    found = {}
    for binding_id, text in keymap.items():
        if binding_id not in bindings():
            found[binding_id] = "unknown action"
            continue
        others = {name: keys for name, keys in keymap.items() if name != binding_id}
        reasons = [refusal(binding_id, key, others) for key in named(text)]
        works = [key for key, reason in zip(named(text), reasons, strict=True) if reason is None]
        if not works:
            found[binding_id] = next(filter(None, reasons), "no key")
    return found


def named(keys: str) -> list[str]:
    """Return comma-separated keys as Textual names them: "?" is "question_mark"."""
    return [key for key in _normalize_key_list(keys).split(",") if key]


def _keys(binding_id: str, keymap: Mapping[str, str]) -> list[str]:
    return named(keymap.get(binding_id, bindings()[binding_id].key))


def _works_in_editors(binding_id: str) -> bool:
    """Return whether the action works independently of the focus: it has a non-text key, or no text keys."""
    own = _keys(binding_id, {})
    return any(not is_text(key) and key not in _BASIC for key in own) or not any(map(is_text, own))


def _together(one: str, other: str) -> bool:
    topics = {one.partition(".")[0], other.partition(".")[0]}
    if _EVERYWHERE in topics:
        return "watch" not in topics
    return len(topics) == 1 or any(topics <= group for group in TOGETHER)
