"""Conversations rendered to text, with the character spans that the assistant wrote.

The spans come from the template itself. A template with `{% generation %}` blocks is rendered with two noncharacters
written at their borders, which are taken out again before anything is tokenized; they cannot be confused with data,
because a pair is chosen that occurs nowhere in it. A template without such blocks is rendered again up to each answer,
and every one of these renderings must be the beginning of the whole: where it is not, there is no way to tell which
tokens are the answer's, and the row is refused with the reason. Nothing comes before an opening line of the assistant,
so its header is taken from what the template writes to ask for an answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from qlora_tui.data.rows import Turn
from qlora_tui.data.tokenizer import Tokenizer
from qlora_tui.errors import DataError

Span = tuple[int, int]
"""First character and the one after the last."""

_OTHER_MASK = (
    'Choose a named template, such as data.template = "chatml", or training.loss_on = "last-response" or "everything".'
)

_OPENING = re.compile(r"\{%([-+]?)\s*generation\s*([-+]?)%\}")
_CLOSING = re.compile(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}")
_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


@dataclass(frozen=True, slots=True)
class Conversation:
    turns: Sequence[Turn]
    tools: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    text: str
    answers: tuple[Span, ...]
    """One span for each assistant turn, in order: the answer and what ends it."""

    untrained: frozenset[int] = frozenset()
    """Indices of the answers that are not trained."""


def has_markers(template: str) -> bool:
    """Whether the template says itself what the assistant wrote."""
    return _OPENING.search(template) is not None


def without_markers(template: str) -> str:
    """The template with its generation blocks made ordinary ones: renders the same everywhere, also outside Python."""
    template = _OPENING.sub(r"{%\1 if true \2%}", template)
    return _CLOSING.sub(r"{%\1 endif \2%}", template)


def render(
    tokenizer: Tokenizer, template: str, conversations: Sequence[Conversation], *, last_only: bool = False
) -> list[Rendered]:
    """Render each conversation and find its answers.

    With `last_only` just the last answer must be findable, which more templates allow. Raises jinja2's TemplateError,
    TypeError or ValueError as the template does, and DataError when answers cannot be told from prompts.
    """
    if has_markers(template):
        return _render_marked(tokenizer, template, conversations)
    return [_render_by_prefixes(tokenizer, template, one, last_only=last_only) for one in conversations]


def render_text(
    tokenizer: Tokenizer, template: str, conversations: Sequence[Conversation], *, add_generation_prompt: bool = False
) -> list[str]:
    """Just the text of each conversation."""
    if any(one.tools for one in conversations):
        return [
            tokenizer.apply_chat_template(
                list(one.turns),
                list(one.tools) or None,
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
            for one in conversations
        ]
    texts: list[str] = tokenizer.apply_chat_template(
        [list(one.turns) for one in conversations],
        chat_template=template,
        add_generation_prompt=add_generation_prompt,
        tokenize=False,
    )
    return texts


def _render_marked(tokenizer: Tokenizer, template: str, conversations: Sequence[Conversation]) -> list[Rendered]:
    opening, closing = _free_pair(conversations)
    marked = _OPENING.sub(rf"{{%\1 generation %}}{{% if true %}}{opening}{{% endif \2%}}", template)
    marked = _CLOSING.sub(rf"{{%\1 if true %}}{closing}{{% endif %}}{{% endgeneration \2%}}", marked)
    borders = re.compile(f"[{opening}{closing}]")
    return [_unmark(text, borders) for text in render_text(tokenizer, marked, conversations)]


def _unmark(text: str, borders: re.Pattern[str]) -> Rendered:
    pieces = borders.split(text)
    answers: list[Span] = []
    position = 0
    for index, piece in enumerate(pieces):
        end = position + len(piece)
        # Borders alternate, so every second piece is the assistant's. Blocks that touch are one answer: some templates
        # give its end a block of its own.
        if index % 2 == 1:
            touches = bool(answers) and answers[-1][1] == position
            start = answers.pop()[0] if touches else position
            answers.append((start, end))
        position = end
    return Rendered("".join(pieces), tuple(answers))


def _free_pair(conversations: Sequence[Conversation]) -> tuple[str, str]:
    everything = "".join(_strings([[one.turns, one.tools] for one in conversations]))
    if everything.isascii():
        return _NONCHARACTERS[0], _NONCHARACTERS[1]
    free = [character for character in _NONCHARACTERS if character not in everything]
    if len(free) < 2:
        raise DataError(
            "the conversations use the Unicode noncharacters U+FDD0 to U+FDEF, which mark answers while rendering",
            hint="Remove these characters: no text should hold them.",
        )
    return free[0], free[1]


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _strings(item)]
    return []


def _render_by_prefixes(tokenizer: Tokenizer, template: str, one: Conversation, *, last_only: bool) -> Rendered:
    def up_to(count: int, *, prompt: bool) -> str:
        part = Conversation(one.turns[:count], one.tools)
        return render_text(tokenizer, template, [part], add_generation_prompt=prompt)[0]

    whole = up_to(len(one.turns), prompt=False)
    replies = [index for index, turn in enumerate(one.turns) if turn["role"] == "assistant"]
    answers: list[Span] = []
    for index in replies[-1:] if last_only else replies:
        through = whole if index + 1 == len(one.turns) else up_to(index + 1, prompt=False)
        before = up_to(index, prompt=True) if index else _before_opening(tokenizer, template, one.turns[0], through)
        if not (whole.startswith(through) and through.startswith(before)):
            raise DataError(
                f"the chat template renders turn {index + 1} differently when other turns follow, so the answer "
                "cannot be told from the prompt",
                hint=_OTHER_MASK,
            )
        answers.append((len(before), len(before) + len(through[len(before) :].rstrip("\n"))))
    assert all(first[1] <= second[0] for first, second in pairwise(answers))
    return Rendered(whole, tuple(answers))


def _before_opening(tokenizer: Tokenizer, template: str, opening: Turn, through: str) -> str:
    """What stands before the content of `opening`, the first turn, which `through` ends with."""
    asked = Conversation([Turn(role="user", content="q")])
    unasked, prompt = (
        render_text(tokenizer, template, [asked], add_generation_prompt=asks)[0] for asks in (False, True)
    )
    header = prompt.removeprefix(unasked)
    before, found, after = through.partition(header) if header else ("", "", "")
    if not (found and prompt.startswith(unasked) and after.lstrip().startswith(opening["content"].strip())):
        raise DataError(
            "the conversation begins with an opening line of the assistant, and the chat template does not show where "
            "its header ends",
            hint=_OTHER_MASK,
        )
    return before + header
