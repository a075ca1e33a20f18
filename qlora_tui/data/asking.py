"""Check that prompts match the training format: each prompt must be a token prefix of a training row.

Some chat templates ask for an answer in a form that they never give to one, such as an opened `<think>`, or render
earlier answers in another way than the variant that rows are trained with. The template that is saved with the adapter
is therefore made from the one that rows are rendered with, and its prompts are compared with rows before training.
"""

import json
from collections.abc import Iterator, Sequence

from jinja2.exceptions import TemplateError

from qlora_tui.data.mask import encode_rendered
from qlora_tui.data.rows import Turn
from qlora_tui.data.spans import Conversation, render, render_text, without_markers
from qlora_tui.data.tokenizer import Tokenizer, encode
from qlora_tui.errors import DataError

_ANSWER = "a1a"
_ASKED = [Turn(role="user", content="q1q")]
_ANSWERED = [*_ASKED, Turn(role="assistant", content=_ANSWER)]
_MORE = [Turn(role="user", content="q2q"), Turn(role="assistant", content="a2a")]
_REFUSALS = (DataError, TemplateError, TypeError, ValueError, KeyError)
_SHOWN_CHARACTERS = 60


def asking_template(tokenizer: Tokenizer, jinja: str, own: str, *, system: bool, reasoning: bool) -> str:
    """Return a template without generation blocks whose prompts are prefixes of the rows that `jinja` renders.

    It is `own`, the model's, where that holds, else `jinja`, if need be with the header that it gives to trained
    answers as its prompt.
    A prompt that begins answers with and without reasoning is preferred. Raises DataError, with both strings, when no
    such template is found.
    """
    plain = without_markers(jinja)
    candidates = list(dict.fromkeys([without_markers(own), plain, *_with_headers(tokenizer, jinja, plain)]))
    dialogues = [_ANSWERED, [*_ANSWERED, *_MORE]]
    if system:
        dialogues.append([Turn(role="system", content="s1s"), *_ANSWERED])
    thought = [*_ASKED, Turn(role="assistant", content=_ANSWER, reasoning_content="t1t")]
    for tried in ([*dialogues, thought], dialogues) if reasoning else (dialogues,):
        for template in candidates:
            difference = _difference(tokenizer, jinja, template, tried)
            if not difference:
                return template
    difference = _difference(tokenizer, jinja, candidates[0], dialogues)
    raise DataError(
        f"the prompts of the model's chat template do not match its training format: {difference}",
        hint='Choose a named template, such as data.template = "chatml".',
    )


def asks_after_tools(tokenizer: Tokenizer, jinja: str, template: str, turns: Sequence[Turn]) -> bool:
    """Return whether the prompt of `template` after a tool result is a prefix of the row that `jinja` renders."""
    return not _difference(tokenizer, jinja, template, [turns])


def _with_headers(tokenizer: Tokenizer, jinja: str, plain: str) -> Iterator[str]:
    try:
        trained = render(tokenizer, jinja, [Conversation(_ANSWERED)], last_only=True)[0]
        (unasked,) = render_text(tokenizer, plain, [Conversation(_ASKED)])
    except _REFUSALS:
        return
    start, end = trained.answers[-1]
    if not trained.text.startswith(unasked):
        return
    # With and without what the template writes at the start of a trained answer, such as an empty thought.
    for stop in (trained.text.find(_ANSWER, start, end), start):
        yield _with_prompt(plain, trained.text[len(unasked) : stop])


def _with_prompt(plain: str, header: str) -> str:
    """Return `plain` with `header` as its generation prompt."""
    start = "{%- set asks = add_generation_prompt -%}{%- set add_generation_prompt = false -%}"
    end = "{%- if asks -%}{{- " + json.dumps(header, ensure_ascii=False) + " -}}{%- endif -%}"
    return start + plain.removesuffix("\n") + end


def _difference(tokenizer: Tokenizer, jinja: str, template: str, dialogues: Sequence[Sequence[Turn]]) -> str:
    """Return how a prompt of `template` differs from the rows of `jinja`, or an empty string."""
    for turns in dialogues:
        try:
            trained = render(tokenizer, jinja, [Conversation(turns)], last_only=True)[0]
            (prompt,) = render_text(tokenizer, template, [Conversation(turns[:-1])], add_generation_prompt=True)
        except _REFUSALS as error:
            return f"it rejects a plain question: {error}"
        row = encode_rendered(tokenizer, [trained])[0].ids
        asked = encode(tokenizer, [prompt])[0].ids
        if not trained.text.startswith(prompt) or row[: len(asked)] != asked:
            return _shown(prompt, trained.text, turns)
    return ""


def _shown(prompt: str, row: str, turns: Sequence[Turn]) -> str:
    """Return both strings, starting shortly before the first difference."""
    same = next((at for at, (a, b) in enumerate(zip(prompt, row, strict=False)) if a != b), min(len(prompt), len(row)))
    start = max(0, same - _SHOWN_CHARACTERS // 2)
    asked, trained = prompt[start : start + _SHOWN_CHARACTERS], row[start : start + _SHOWN_CHARACTERS]
    return f"prompt {asked!r}, training text {trained!r} (turn {len(turns)})"
