"""From a raw row to normal form, once the format and the columns are known."""

import json
import math
from collections.abc import Callable
from typing import Any, TypedDict

from qlora_tui.config.data import ColumnMap, Format
from qlora_tui.data.bad_rows import LeftOutError, RowError
from qlora_tui.data.marked_text import CHIP2, GUANACO, HH
from qlora_tui.data.rows import Role
from qlora_tui.data.turns import StoredTurn, clean_text, json_text, stored_turns, turn
from qlora_tui.errors import nearest


class NormalRow(TypedDict):
    """A row of the table that training reads: turns, or text that is trained as it stands."""

    messages: list[StoredTurn] | None
    text: str | None
    tools: str | None
    """JSON list of the tools the assistant may call."""

    rejected: list[StoredTurn] | None
    """The other side of a preference pair."""


Row = dict[str, Any]
Mapping = Callable[[Row], NormalRow]


def mapping(format_name: Format, columns: ColumnMap) -> Mapping:
    """Return the function from raw to normal rows.

    It raises RowError for an invalid row, and LeftOutError for a row that is intentionally not trained.
    """
    match format_name:
        case "messages" | "sharegpt":
            return lambda row: _messages(row, columns)
        case "preference":
            return lambda row: _preference(row, columns)
        case "hh-rlhf":
            return lambda row: _text(row, columns.chosen)
        case "guanaco" | "text":
            return lambda row: _text(row, columns.text)
        case "guanaco-turns" | "chip2":
            markers = GUANACO if format_name == "guanaco-turns" else CHIP2
            return lambda row: _normal(markers.split(_clean(row, columns.text), f"column {columns.text!r}"))
        case _:
            return lambda row: _pair(row, columns)


def _normal(turns: list[StoredTurn], rejected: list[StoredTurn] | None = None, tools: str | None = None) -> NormalRow:
    return NormalRow(messages=turns, text=None, tools=tools, rejected=rejected)


def _value(row: Row, column: str | None) -> Any:
    if column is None:
        raise RowError("no column is known for it")
    if column not in row:
        known = [str(key) for key in row]
        hint = nearest(column, known) if known else "The row is empty."
        raise RowError(f"no column {column!r}. {hint}")
    value = row[column]
    if value is None:
        raise RowError(f"column {column!r} is empty (null)")
    return value


def _clean(row: Row, column: str | None) -> str:
    return clean_text(_value(row, column), f"column {column!r}")


def _optional(row: Row, column: str | None) -> str:
    """Text of a column that may be missing or null in some rows."""
    if column is None or row.get(column) is None:
        return ""
    return clean_text(row[column], f"column {column!r}")


def _text(row: Row, column: str | None) -> NormalRow:
    text = _clean(row, column)
    if not text.strip():
        raise RowError(f"column {column!r} is blank")
    return NormalRow(messages=None, text=text, tools=None, rejected=None)


def _messages(row: Row, columns: ColumnMap) -> NormalRow:
    turns = stored_turns(_value(row, columns.messages), f"column {columns.messages!r}")
    return _normal(_with_system(turns, row, columns), tools=_tools(row, columns.tools))


def _with_system(turns: list[StoredTurn], row: Row, columns: ColumnMap) -> list[StoredTurn]:
    system = _optional(row, columns.system)
    if system.strip() and turns[0]["role"] != "system":
        return [turn("system", system), *turns]
    return turns


def _tools(row: Row, column: str | None) -> str | None:
    value = row.get(column) if column is not None else None
    if value is None or value == "" or value == []:
        return None
    what = f"column {column!r}"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowError(f"{what} holds tools that are no valid JSON") from None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowError(f"{what} must hold a list of tools")
    return json_text(value, what)


def _answer_text(value: Any, what: str) -> str:
    """Return text, or a number or boolean in JSON form."""
    if isinstance(value, bool | int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise RowError(f"{what} contains {value}, which is not a number")
        return json.dumps(value)
    return clean_text(value, what)


def _earlier_turns(row: Row, columns: ColumnMap) -> list[StoredTurn]:
    """The turns of the history column: pairs of a prompt and its answer."""
    value = row.get(columns.history) if columns.history is not None else None
    if not value:
        return []
    what = f"column {columns.history!r}"
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise RowError(f"{what} must be a list of [prompt, answer] pairs")
    roles: tuple[Role, Role] = ("user", "assistant")
    return [turn(role, _answer_text(text, what)) for pair in value for role, text in zip(roles, pair, strict=True)]


def _refuse_bad_answer(row: Row, columns: ColumnMap) -> None:
    if columns.label is not None and row.get(columns.label) in (False, 0):
        raise LeftOutError(f"column {columns.label!r} marks the answer as bad")


def _pair(row: Row, columns: ColumnMap) -> NormalRow:
    _refuse_bad_answer(row, columns)
    prompt, response = _value(row, columns.prompt), _value(row, columns.response)
    if isinstance(prompt, list) or isinstance(response, list):
        turns = [*_side(prompt, "user", columns.prompt), *_side(response, "assistant", columns.response)]
        return _normal(_with_system(turns, row, columns), tools=_tools(row, columns.tools))
    asked = _answer_text(prompt, f"column {columns.prompt!r}")
    context = _optional(row, columns.context)
    if not asked.strip() and context.strip():
        asked, context = context, ""
    answered = _answer_text(response, f"column {columns.response!r}")
    if not asked and not answered:
        raise RowError(f"columns {columns.prompt!r} and {columns.response!r} are both empty")
    turns = _earlier_turns(row, columns)
    if asked:
        turns.append(turn("user", asked, context if context.strip() else None))
    turns.append(turn("assistant", answered))
    return _normal(_with_system(turns, row, columns), tools=_tools(row, columns.tools))


def _side(value: Any, role: Any, column: str | None) -> list[StoredTurn]:
    what = f"column {column!r}"
    return stored_turns(value, what) if isinstance(value, list) else [turn(role, _answer_text(value, what))]


def _preference(row: Row, columns: ColumnMap) -> NormalRow:
    asked = [] if columns.prompt is None else _side(_value(row, columns.prompt), "user", columns.prompt)
    chosen = _conversation(_value(row, columns.chosen), columns.chosen, asked)
    rejected_value = row.get(columns.rejected) if columns.rejected is not None else None
    rejected = None if rejected_value is None else _conversation(rejected_value, columns.rejected, asked)
    return _normal(_with_system(chosen, row, columns), rejected, _tools(row, columns.tools))


def _conversation(value: Any, column: str | None, asked: list[StoredTurn]) -> list[StoredTurn]:
    """One side of a pair: a list of turns, an HH text, or an answer that follows the prompt."""
    what = f"column {column!r}"
    if isinstance(value, list):
        turns = stored_turns(value, what)
        return turns if turns[: len(asked)] == asked or turns[0]["role"] != "assistant" else [*asked, *turns]
    text = _answer_text(value, what)
    if HH.marks(text) or not asked:
        return HH.split(text, what)
    return [*asked, turn("assistant", text)]
