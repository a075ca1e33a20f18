"""Check that the rendered text contains the whole row: templates can silently drop parts of turns."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qlora_tui.data.rows import Turn
from qlora_tui.data.spans import Rendered

_THINKING = re.compile(r"\A\s*<think>\s*(.*?)\s*</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Loss:
    """A part of a turn that was not rendered in its place."""

    turn: int
    """Counted from 1."""

    part: Literal["text", "reasoning", "tool call"]
    earlier: bool
    """Whether an answer follows after it."""

    def __str__(self) -> str:
        return f"the {self.part} of turn {self.turn}"


def losses(turns: Sequence[Turn], rendered: Rendered) -> list[Loss]:
    """Return the parts of `turns` missing in `rendered`. Answers are searched in their spans, other turns anywhere."""
    answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    # A template that joins answers, or of which only the last could be found, is held to the whole text.
    spans = dict(zip(answers, rendered.answers, strict=True)) if len(answers) == len(rendered.answers) else {}
    found = []
    for index, turn in enumerate(turns):
        start, end = spans.get(index, (0, len(rendered.text)))
        text = rendered.text[start:end]
        for part in _missing(turn, text):
            found.append(Loss(index + 1, part, bool(answers) and index < answers[-1]))
    return found


def _missing(turn: Turn, text: str) -> Iterator[Literal["text", "reasoning", "tool call"]]:
    content, reasoning = turn["content"], turn.get("reasoning_content", "")
    if turn["role"] == "assistant" and not reasoning and (thought := _THINKING.match(content)):
        reasoning, content = thought.group(1), content[thought.end() :]
    if not all(_is_in(said, text) for said in (content, turn.get("context", ""))):
        yield "text"
    if not _is_in(reasoning, text):
        yield "reasoning"
    if not all(
        _is_in(leaf, text) for call in turn.get("tool_calls", ()) for leaf in _leaves(call.get("function", call))
    ):
        yield "tool call"


def _is_in(said: str, text: str) -> bool:
    """Return whether `text` contains `said`, literally or JSON-escaped."""
    said = said.strip()
    if not said or said in text:
        return True
    return any(json.dumps(said, ensure_ascii=ascii_only)[1:-1] in text for ascii_only in (False, True))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
