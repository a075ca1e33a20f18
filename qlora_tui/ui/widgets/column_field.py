"""Which column holds what: chosen from the columns that the data has."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from textual.content import Content
from textual.widgets import Select

from qlora_tui.terminal import printable
from qlora_tui.ui.widgets.setting_field import SettingField
from qlora_tui.ui.widgets.settings_form import SettingsForm, remaining

_BY_ITSELF = "found by itself"


class ColumnField(SettingField):
    """A setting that names a column."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self._columns: Sequence[str] = ()
        self._offered: list[str] = []

    def _editor(self) -> Select[str]:
        return Select([(_BY_ITSELF, "")], allow_blank=False, compact=True, value="")

    def offer(self, columns: Sequence[str]) -> None:
        """Let one of these be chosen."""
        self._columns = columns
        self._fill()

    def show(self, found: Any, *, changed: bool) -> None:
        """Show the draft's column, also one that the data does not have."""
        self._shown = found
        self.set_class(changed, "-changed")
        self._fill()

    def _fill(self) -> None:
        chosen = str(self._shown or "")
        names = dict.fromkeys((*self._columns, *([chosen] if chosen else [])))
        select: Select[str] = self.query_one(Select)
        if not select.is_mounted:
            self.call_after_refresh(self._fill)
            return
        with select.prevent(Select.Changed):
            if list(names) != self._offered:  # An open list stays as it is.
                self._offered = list(names)
                shown = ((Content(printable(name, one_line=True)), name) for name in names)
                select.set_options([(_BY_ITSELF, ""), *shown])
            select.value = chosen

    @property
    def text(self) -> str:
        """The chosen column, as `--set` takes it."""
        chosen = super().text
        return json.dumps(chosen, ensure_ascii=False) if chosen else ""

    def _post(self, text: str) -> None:
        super()._post(json.dumps(text, ensure_ascii=False) if text else "")


class ColumnsForm(SettingsForm):
    """All of them, folded until a column must be chosen."""

    FIELD: ClassVar[type[SettingField]] = ColumnField

    def __init__(self) -> None:
        super().__init__((), remaining("data.columns"), title="Columns by hand")
        self._columns: Sequence[str] = ()

    def offer(self, columns: Iterable[str]) -> None:
        """The columns that the data has."""
        self._columns = list(columns)
        for field in self.query(ColumnField):
            field.offer(self._columns)

    async def unfold(self) -> None:
        """Show the fields."""
        await super().unfold()
        self.offer(self._columns)
