"""Settings one below the other, those that matter first, the others folded away. Generated from the configuration."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Collapsible

from qlora_tui.config.contradictions import without_effect
from qlora_tui.config.fields import fields, value
from qlora_tui.config.run import RunConfig
from qlora_tui.ui.widgets.setting_field import SettingField


class SettingsForm(Vertical):
    """One SettingField for each key."""

    DEFAULT_CSS = """
    SettingsForm { height: auto; }
    SettingsForm Collapsible { border-top: none; padding: 0; background: $background; }
    SettingsForm Collapsible Contents { padding: 0; }
    """

    FIELD: ClassVar[type[SettingField]] = SettingField

    def __init__(self, first: Iterable[str], advanced: Iterable[str] = (), *, title: str = "Advanced") -> None:
        super().__init__()
        self.first = tuple(first)
        self.advanced = tuple(advanced)
        self._title = title
        self._unfolded = False
        self._shown: tuple[RunConfig, Mapping[str, str], Mapping[str, str]] | None = None
        self._effects: Mapping[str, str] = {}

    def compose(self) -> ComposeResult:
        for key in self.first:
            yield self.FIELD(key)
        if self.advanced:
            yield Collapsible(title=f"{self._title} ({len(self.advanced)})")

    def show(self, config: RunConfig, pending: Mapping[str, str], reasons: Mapping[str, str]) -> None:
        """Show the draft, what was typed and does not validate, and the reasons."""
        self._shown = (config, pending, reasons)
        idle = {sentence.partition(" ")[0]: sentence for sentence in without_effect(config)}
        for field in self.query(SettingField):
            found = value(config, field.key)
            if field.key in pending:
                field.show_pending(pending[field.key])
            else:
                field.show(found, changed=found != field.setting.default)
            field.mark(reason=reasons.get(field.key, ""), idle=idle.get(field.key, ""))

    def show_effects(self, effects: Mapping[str, str]) -> None:
        """Say beside each setting what it costs."""
        self._effects = effects
        for field in self.query(SettingField):
            if field.key in effects:
                field.show_effect(effects[field.key])

    async def unfold(self) -> None:
        """Show the folded settings. Their fields are made now: most people never need them."""
        if self._unfolded or not self.advanced:
            return
        self._unfolded = True
        fold = self.query_one(Collapsible)
        fold.collapsed = False
        await fold.query_one(Collapsible.Contents).mount(*(self.FIELD(key) for key in self.advanced))
        if self._shown is not None:
            self.show(*self._shown)
        self.show_effects(self._effects)

    @on(Collapsible.Expanded)
    async def _expanded(self, event: Collapsible.Expanded) -> None:
        event.stop()
        await self.unfold()


def remaining(table: str, *without: str) -> list[str]:
    """Keys of a table of the configuration that are not among `without`."""
    return [key for key in fields() if key.startswith(f"{table}.") and key not in without]
