"""Which format rows have: found from their structure over a sample, with the evidence and a confidence."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from qlora_tui.config.data import ColumnMap, Format
from qlora_tui.data.candidates import Candidate, candidates
from qlora_tui.data.column_profile import ColumnProfile, profiles
from qlora_tui.data.turns import ROLE_KEYS
from qlora_tui.errors import DataError, nearest

Row = dict[str, Any]

SAMPLE_ROWS = 200
_LEAST_CONFIDENCE = 0.5
_CLEAR_MARGIN = 0.03
_SHOWN_CHOICES = 4
_WHICH_COLUMNS = 'Say which columns to use, such as data.columns.prompt = "..." and data.columns.response = "..."'


@dataclass(frozen=True)
class Detection:
    format: Format
    confidence: float
    """0 to 1: how sure the format fits; the share of sampled rows that fit enters it. 1 when given by hand."""

    evidence: list[str]
    columns: ColumnMap = field(default_factory=ColumnMap)
    """The columns that are used, found or given by hand."""


class UnclearFormatError(DataError):
    """A person has to say what the columns hold."""

    def __init__(
        self, message: str, columns: Iterable[str], *, hint: str, choices: Sequence[dict[str, str]] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.columns = list(columns)
        """Every column there is."""
        self.choices = list(choices)
        """Settings by key, for each reading that fits."""


def detect(rows: list[Row], wanted: Format, given: ColumnMap, label: str) -> Detection:
    """The format of `rows`, within what was given by hand. `label` names the source in messages.

    Raises DataError for a column that does not exist, and when no format or several formats fit.
    """
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
    likely = [one for one in found if one.score >= _LEAST_CONFIDENCE]
    evidence = [*best.evidence, *(f"also possible: {other.format} ({other.shown()})" for other in likely[1:4])]
    return Detection(best.format, round(best.score, 2), evidence, best.columns)


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
    choices = [one.settings() for one in close[:_SHOWN_CHOICES]]
    ways = "; or ".join(map(_written, choices))
    return UnclearFormatError(message, columns, hint=f"Choose one: {ways}.", choices=choices)


def _written(settings: dict[str, str]) -> str:
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())


def _described(columns: dict[str, ColumnProfile]) -> str:
    shown = [f"{name} ({profile.describe()})" for name, profile in list(columns.items())[:12]]
    return ", ".join(shown) + (", ..." if len(columns) > 12 else "") if shown else "none"
