"""Which format rows have: found from their structure over a sample, with the evidence and a confidence."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from qlora_tui.config.data import ColumnMap, Format
from qlora_tui.data.candidates import Candidate, candidates, expected_kinds
from qlora_tui.data.column_profile import ColumnProfile, profiles
from qlora_tui.data.turns import ROLE_KEYS
from qlora_tui.data.unused_columns import repeated_prompts, unused_columns, unused_text
from qlora_tui.errors import DataError, nearest

Row = dict[str, Any]
Settings = dict[str, str | list[str]]
"""Settings by key, as the user would write them."""

SAMPLE_ROWS = 200
_LEAST_CONFIDENCE = 0.5
_CLEAR_MARGIN = 0.03
_SHOWN_CHOICES = 4
_MANY_REPEATED = 0.5
_WHICH_COLUMNS = 'Say which columns to use, such as data.columns.prompt = "..." and data.columns.response = "..."'


@dataclass(frozen=True)
class Detection:
    format: Format
    confidence: float
    """0 to 1: how sure the format fits; the share of sampled rows that fit enters it. 1 when given by hand."""

    evidence: list[str]
    columns: ColumnMap = field(default_factory=ColumnMap)
    """The columns that are used, found or given by hand."""

    unused: list[str] = field(default_factory=list)
    """Columns of the sampled rows that are not used."""

    unused_text: list[str] = field(default_factory=list)
    """Unused columns with text that is not in the used columns."""

    unused_keys: list[str] = field(default_factory=list)
    """Keys of turns that are not read."""


class UnclearFormatError(DataError):
    """A person has to say what the columns hold."""

    def __init__(self, message: str, columns: Iterable[str], *, hint: str, choices: Sequence[Settings] = ()) -> None:
        super().__init__(message, hint=hint)
        self.columns = list(columns)
        """Every column there is."""
        self.choices = list(choices)
        """Settings by key, for each reading that fits."""


def detect(rows: list[Row], wanted: Format, given: ColumnMap, label: str, ignored: Collection[str] = ()) -> Detection:
    """Return the format of `rows`, respecting the explicit settings. `label` names the source in messages.

    Raises DataError for a column that does not exist, when no format or several formats fit, and when the only reading
    that fits would lose text or train one prompt on many answers.
    """
    rows = [{name: value for name, value in row.items() if name not in ignored} for row in rows] if ignored else rows
    found = _reading(rows, wanted, given, label)
    used = set(found.columns.model_dump(exclude_none=True).values())
    unused, text = unused_columns(rows, used), unused_text(rows, used)
    return replace(found, unused=unused, unused_text=text, unused_keys=_unused_keys(rows, found.columns.messages))


def _unused_keys(rows: list[Row], turns: str | None) -> list[str]:
    """Return the keys of turns that hold something and are not read, the most frequent first."""
    if turns is None:
        return []
    (profile,) = profiles([{turns: row.get(turns)} for row in rows]).values()
    return [key for key, _ in profile.unused_keys.most_common()]


def _reading(rows: list[Row], wanted: Format, given: ColumnMap, label: str) -> Detection:
    columns = profiles(rows)
    _check_given(given, columns, label)
    fitting = [candidate for candidate in candidates(columns, given) if _allowed(candidate, wanted, given)]
    if wanted != "auto":
        return _given_format(fitting, wanted, columns, label)
    found = _undominated(fitting)
    if not found:
        raise _nothing_fits(columns, label)
    best = found[0]
    if best.format == "text" and given.text is None:
        _check_single_messages(best, columns, label)
    if best.score < _LEAST_CONFIDENCE:
        raise _unsure(_close_to(best, fitting), columns, label)
    close = _close_to(best, found)
    if len(close) > 1:
        message = f"{label}: {len(close)} readings fit and none is clear; columns: {_described(columns)}"
        raise _ambiguous(message, columns, close)
    if not _settled_by_hand(given):
        _check_nothing_lost(best, rows, columns, label)
        _check_prompts(best, rows, columns, label)
    likely = [one for one in found if one.score >= _LEAST_CONFIDENCE]
    evidence = [*best.evidence, *(f"also possible: {other.format} ({other.shown()})" for other in likely[1:4])]
    return Detection(best.format, round(best.score, 2), evidence, best.columns)


def late_columns(
    new: Row, row: Row, found: Detection, wanted: Format, given: ColumnMap
) -> list[tuple[str, str | None]]:
    """Return the columns of `new`, a part of `row`, that the sampled rows should have had, each with its kind.

    These are columns whose name the format reads and, unless a person settled the format, columns with text of their
    own, which have no kind.
    """
    kinds = expected_kinds(found.format, found.columns)
    telling = [name for name, value in new.items() if value not in (None, "", [], {})]
    settled = wanted != "auto" or _settled_by_hand(given)
    saying = [] if settled else unused_text([row], [name for name in row if name not in new])
    return [(name, kinds.get(name.lower())) for name in telling if name.lower() in kinds or name in saying]


def _settled_by_hand(given: ColumnMap) -> bool:
    return bool(given.messages or given.text or given.chosen or (given.prompt and given.response))


def _check_nothing_lost(best: Candidate, rows: list[Row], columns: dict[str, ColumnProfile], label: str) -> None:
    """Raise DataError if the rows contain text that `best` would leave out."""
    left = unused_text(rows, best.used())
    if not left:
        return
    named = " and ".join(repr(name) for name in left[:_SHOWN_CHOICES]) + (" and others" * (len(left) > _SHOWN_CHOICES))
    message = (
        f"{label}: {'columns' if len(left) > 1 else 'column'} {named} would not be trained: "
        f"format {best.format!r} reads {best.shown()}; columns: {_described(columns)}"
    )
    raise _asking(message, columns, [*_with_column(best, left, rows), {"data.ignore_columns": left}])


def _with_column(best: Candidate, left: list[str], rows: list[Row]) -> list[Settings]:
    """Readings of a pair that also use the one column that `best` leaves out."""
    mapped = best.columns
    if len(left) != 1 or mapped.prompt is None or mapped.response is None:
        return []
    (name,) = left
    found: list[Settings] = []
    if mapped.system is None and len({repr(row.get(mapped.prompt)) for row in rows}) == 1:
        found.append(_pair_settings("two-column", prompt=name, response=mapped.response, system=mapped.prompt))
    if mapped.context is None and all(isinstance(row.get(name), str | None) for row in rows):
        found.append(_pair_settings("alpaca", prompt=mapped.prompt, context=name, response=mapped.response))
    return found


def _pair_settings(format_name: Format, **columns: str) -> Settings:
    return {"data.format": format_name, **{f"data.columns.{field}": name for field, name in columns.items()}}


def _check_prompts(best: Candidate, rows: list[Row], columns: dict[str, ColumnProfile], label: str) -> None:
    """Raise DataError if most rows share their prompt with a row that has another answer."""
    mapped = best.columns
    if mapped.prompt is None or mapped.response is None or mapped.label is not None:
        return
    asked = [name for name in (mapped.prompt, mapped.context, mapped.system, mapped.history) if name is not None]
    repeated, example = repeated_prompts(rows, asked, mapped.response)
    if repeated < _MANY_REPEATED * len(rows):
        return
    shown = example if len(example) <= 60 else f"{example[:59]}…"
    message = (
        f"{label}: {repeated:,} of {len(rows):,} sampled rows share their prompt with a row that has another answer, "
        f"such as {shown!r} in column {mapped.prompt!r}; columns: {_described(columns)}"
    )
    raise _asking(message, columns, [best.settings()])


def _asking(message: str, columns: dict[str, ColumnProfile], choices: Sequence[Settings]) -> UnclearFormatError:
    ways = "; or ".join(map(_written, choices))
    start = "Choose one" if len(choices) > 1 else "If this is intended"
    return UnclearFormatError(message, columns, hint=f"{start}: {ways}.", choices=choices)


def _check_given(given: ColumnMap, columns: dict[str, ColumnProfile], label: str) -> None:
    for field_name, column in given.model_dump(exclude_none=True).items():
        if column not in columns:
            raise UnclearFormatError(
                f"{label} has no column {column!r} (data.columns.{field_name})",
                columns,
                hint=nearest(column, list(columns)),
            )


def _check_single_messages(text: Candidate, columns: dict[str, ColumnProfile], label: str) -> None:
    """Raise where a column says whose each text is: conversations that are spread over rows are no finished text."""
    for name, profile in columns.items():
        if name.lower() in ROLE_KEYS and profile.role_names / profile.rows >= _LEAST_CONFIDENCE:
            raise UnclearFormatError(
                f"{label}: each row is one message of a conversation, its role in {name!r}; "
                f"columns: {_described(columns)}",
                columns,
                hint="Take rows that hold whole conversations; those of OpenAssistant are in data.source = "
                f'"oasst1". To train single messages without their role: {_written(text.settings())}.',
            )


def _allowed(candidate: Candidate, wanted: Format, given: ColumnMap) -> bool:
    if wanted not in {"auto", candidate.format}:
        return False
    used = candidate.columns.model_dump()
    return all(used[name] == column for name, column in given.model_dump(exclude_none=True).items())


def _undominated(found: list[Candidate]) -> list[Candidate]:
    """Best first, without those whose columns are all part of a candidate of the same or a higher score."""
    kept: list[Candidate] = []
    for candidate in sorted(found, key=lambda one: -one.score):
        if not any(candidate.used() <= better.used() for better in kept):
            kept.append(candidate)
    return kept


def _given_format(fitting: list[Candidate], wanted: Format, columns: dict[str, ColumnProfile], label: str) -> Detection:
    best = max(fitting, key=lambda one: one.score, default=None)
    if best is None:
        raise UnclearFormatError(
            f"{label}: no column fits format {wanted!r}; columns: {_described(columns)}",
            columns,
            hint="Name the columns, such as data.columns.prompt = ..., or let the format be detected (auto).",
        )
    return Detection(wanted, 1.0, ["the format is given, not detected", *best.evidence], best.columns)


def _nothing_fits(columns: dict[str, ColumnProfile], label: str) -> DataError:
    return UnclearFormatError(
        f"{label}: no known format fits; columns: {_described(columns)}",
        columns,
        hint=f'{_WHICH_COLUMNS}, or data.columns.text = "...".',
    )


def _close_to(best: Candidate, found: list[Candidate]) -> list[Candidate]:
    """`best` and those whose score is hardly lower, best first."""
    ordered = sorted(found, key=lambda one: -one.score)
    return [one for one in ordered if best.score - one.score < _CLEAR_MARGIN]


def _unsure(close: list[Candidate], columns: dict[str, ColumnProfile], label: str) -> DataError:
    shown = f"columns: {_described(columns)}"
    if len(close) > 1:
        problem = f"{label}: the columns do not say what is asked and what is answered; {shown}"
    else:
        problem = f"{label}: no reading fits most of the rows ({close[0].evidence[0]}); {shown}"
        only = close[0]
        if only.format == "text" and len(columns) > 1:
            hint = f"{_WHICH_COLUMNS}; or train only {only.columns.text!r}, as text: {_written(only.settings())}."
            return UnclearFormatError(problem, columns, hint=hint)
    return _ambiguous(problem, columns, close)


def _ambiguous(message: str, columns: dict[str, ColumnProfile], close: list[Candidate]) -> UnclearFormatError:
    """Several readings fit, or one does by its structure alone."""
    return _asking(message, columns, [one.settings() for one in close[:_SHOWN_CHOICES]])


def _written(settings: Settings) -> str:
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())


def _described(columns: dict[str, ColumnProfile]) -> str:
    shown = [f"{name} ({profile.describe()})" for name, profile in list(columns.items())[:12]]
    return ", ".join(shown) + (", ..." if len(columns) > 12 else "") if shown else "none"
