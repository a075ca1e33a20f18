"""What a sample of rows holds in each column."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from qlora_tui.data.marked_text import CHIP2, GUANACO, HH
from qlora_tui.data.turns import KNOWN_KEYS, ROLES, written_list

_MAX_JSON_TEXT_CHARS = 1 << 20
ValueKind = Literal["text", "messages", "sharegpt", "number", "object", "list", "null"]


@dataclass
class ColumnProfile:
    name: str
    rows: int
    """Rows in the sample."""

    kinds: Counter[ValueKind] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    """How many texts carry turns as markers, by the name of the markers."""

    falsehoods: int = 0
    """How many values are false."""

    truth_values: int = 0
    """How many values are true or false."""

    role_names: int = 0
    """How many texts are the name of a role and nothing else."""

    roles: Counter[str] = field(default_factory=Counter)
    """Of the turns in lists, as they are written."""

    unused_keys: Counter[str] = field(default_factory=Counter)
    """What turns in lists hold besides role, content and tool calls."""

    def share(self, kind: ValueKind) -> float:
        """Share of all sampled rows, 0 to 1, whose value is of `kind`."""
        return self.kinds[kind] / self.rows if self.rows else 0.0

    def share_when_present(self, kind: ValueKind) -> float:
        """The same among the rows that have a value."""
        present = sum(count for other, count in self.kinds.items() if other != "null")
        return self.kinds[kind] / present if present else 0.0

    def speaking_share(self) -> float:
        """Share of all sampled rows, 0 to 1, whose value can be one side of a conversation."""
        kinds: tuple[ValueKind, ...] = ("text", "messages", "sharegpt", "number")
        return sum(self.share(kind) for kind in kinds)

    def main_kind(self) -> ValueKind:
        """The most frequent kind; null only when there is nothing else."""
        present = Counter({kind: count for kind, count in self.kinds.items() if kind != "null"})
        return present.most_common(1)[0][0] if present else "null"

    def describe(self) -> str:
        names = {"messages": "turns", "sharegpt": "turns", "null": "empty"}
        return names.get(self.main_kind(), self.main_kind())


def profiles(rows: list[dict[str, Any]]) -> dict[str, ColumnProfile]:
    """The profile of every column, in order of first appearance."""
    found: dict[str, ColumnProfile] = {}
    for row in rows:
        for name, value in row.items():
            profile = found.setdefault(name, ColumnProfile(name, len(rows)))
            _observe(profile, value)
    return found


def _observe(profile: ColumnProfile, value: Any) -> None:
    kind = _kind(value)
    profile.kinds[kind] += 1
    profile.falsehoods += value is False
    profile.truth_values += isinstance(value, bool)
    if kind == "text":
        profile.role_names += value.strip().lower() in ROLES
        for markers in (HH, GUANACO, CHIP2):
            profile.marked[markers.name] += markers.marks(value)
    elif kind in {"messages", "sharegpt"} and isinstance(value, list):
        profile.roles.update(str(turn.get("role", turn.get("from"))) for turn in value)
        held = (key for turn in value for key, content in turn.items() if content not in (None, "", [], {}))
        profile.unused_keys.update(str(key) for key in held if key not in KNOWN_KEYS)


def _kind(value: Any) -> ValueKind:
    if value is None:
        return "null"
    if isinstance(value, str):
        return (_turns_kind(written_list(value)) if len(value) <= _MAX_JSON_TEXT_CHARS else None) or "text"
    if isinstance(value, bool | int | float):
        return "number"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return _turns_kind(value) or "list"
    return "object"


def _turns_kind(value: Any) -> ValueKind | None:
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        return None
    if all("role" in turn and ("content" in turn or "tool_calls" in turn) for turn in value):
        return "messages"
    if all("from" in turn and "value" in turn for turn in value):
        return "sharegpt"
    return None
