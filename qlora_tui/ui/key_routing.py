"""Key routing: the app's own keys take precedence over editors and dialogs, and text typed ahead is not lost."""

import asyncio
from collections.abc import Iterator
from time import monotonic
from typing import TypeVar

from textual import events
from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import key_to_character
from textual.screen import ModalScreen

from qlora_tui.ui.terminal_app import TerminalApp

ReturnType = TypeVar("ReturnType")
DIALOG = "dialog"
"""Group of the workers that open a dialog."""

_DIALOG_WAIT_S = 1.0
_LOOK_S = 0.01


def is_text(key: str) -> bool:
    """Whether a key types a character, so that it belongs to a focused editor."""
    character = key_to_character(key)
    return character is not None and character.isprintable()


class KeyRouting(TerminalApp[ReturnType]):
    """Change Textual's key order in four cases.

    - A key of the app that types no character (F1 to F12, Ctrl+Q) works while an editor has the focus, though Textual's
      editors bind some of them, and while a dialog is open.
    - A key that a person chose for an action, and that types no character, comes before the keys of the focused widget.
    - A character that was typed while the focus moved goes to the editor that has the focus now.
    - A key that was pressed while an action prepares its dialog goes to the dialog.

    A screen with `TAKES_EVERY_KEY` is left alone.
    """

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key) and not event.is_forwarded:
            if is_text(event.key):
                await self._dialog_opened()
            vars(event)["aimed_at"] = self.focused or self.screen
        await super().on_event(event)

    async def _dialog_opened(self) -> None:
        """Wait while an action prepares its dialog and the dialog gets its focus, up to a limit."""
        end = monotonic() + _DIALOG_WAIT_S
        while self._opening_dialog and monotonic() < end:
            await asyncio.sleep(_LOOK_S)

    @property
    def _opening_dialog(self) -> bool:
        screen = self.screen
        if isinstance(screen, ModalScreen):
            return not screen.is_mounted or (screen.focused is None and bool(screen.focus_chain))
        return any(worker.group == DIALOG and not worker.is_finished for worker in self.workers)

    async def _on_key(self, event: events.Key) -> None:
        """Come before Textual's own handler, which follows unless it is prevented."""
        focused = self.focused
        late = focused is not None and vars(event).get("aimed_at") not in (None, focused)
        if late and focused is not None and focused.check_consume_key(event.key, event.character):
            event.prevent_default()
            key = events.Key(event.key, event.character)
            vars(key)["aimed_at"] = focused
            focused._forward_event(key)

    async def _check_bindings(self, key: str, priority: bool = False) -> bool:
        if getattr(self.screen, "TAKES_EVERY_KEY", False):
            return False
        if priority and not is_text(key):
            for node, binding in self._early(key):
                if await self.run_action(binding.action, node):
                    return True
        return await super()._check_bindings(key, priority)

    def _early(self, key: str) -> Iterator[tuple[DOMNode, Binding]]:
        """The bindings of a key that come before the focused widget's own, the nearest first."""
        in_front = True
        for node, bindings in self.screen._binding_chain:
            for binding in bindings.key_to_bindings.get(key, ()):
                if binding.id and (node is self or (in_front and binding.id in self._keymap)):
                    yield node, binding
            in_front = in_front and not node.is_modal

    def leave_dialogs(self) -> None:
        """Dismiss every dialog over the current place."""
        while isinstance(self.screen, ModalScreen):
            self.screen.dismiss()
