"""What every source is turned into: conversations of turns, or finished text."""

from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

Role = Literal["system", "user", "assistant", "tool"]


class Turn(TypedDict):
    """One message. The same keys as a chat template expects."""

    role: Role
    content: str
    context: NotRequired[str]
    """Text that belongs to a user's content (Alpaca's input). A template without a place for it puts it after the
    content and a blank line."""
    name: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    reasoning_content: NotRequired[str]
    """The assistant's reasoning before the answer."""
    untrained: NotRequired[bool]
    """Whether the row excludes this answer from training; not passed to templates."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row in normal form: either `turns`, or `text` that is trained as it stands."""

    turns: tuple[Turn, ...] = ()
    text: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    rejected: tuple[Turn, ...] = ()
    """The other side of a preference pair; not trained on."""
    origin: str = field(default="", compare=False)
    """Where the row came from, such as "train.jsonl:17", for error messages."""
