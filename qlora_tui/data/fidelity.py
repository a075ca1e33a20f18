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
    found = []
    for index, (turn, text) in enumerate(_places(turns, rendered)):
        for part in _missing(turn, text):
            found.append(Loss(index + 1, part, bool(answers) and index < answers[-1]))
    return found


def is_trimmed(turns: Sequence[Turn], rendered: Rendered) -> bool:
    """Return whether the template removes white space at the ends of a trained answer."""
    answers = [
        (turn["content"], text)
        for turn, text in _places(turns, rendered)
        if turn["role"] == "assistant" and not turn.get("untrained") and not _THINKING.match(turn["content"])
    ]
    return any(
        content != content.strip() and _is_in(content, text) and not _contains(content, text)
        for content, text in answers
    )


def _places(turns: Sequence[Turn], rendered: Rendered) -> Iterator[tuple[Turn, str]]:
    """Yield each turn with the text to search it in."""
    answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    # A template that joins answers, or of which only the last could be found, is held to the whole text.
    spans = dict(zip(answers, rendered.answers, strict=True)) if len(answers) == len(rendered.answers) else {}
    for index, turn in enumerate(turns):
        start, end = spans.get(index, (0, len(rendered.text)))
        yield turn, rendered.text[start:end]


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
    """Return whether `text` contains `said` without the white space around it, literally or JSON-escaped."""
    said = said.strip()
    return not said or _contains(said, text)


def _contains(said: str, text: str) -> bool:
    return said in text or any(json.dumps(said, ensure_ascii=ascii_only)[1:-1] in text for ascii_only in (False, True))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
