"""Which template a run uses, what that template can express, and how turns are made to fit it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from qlora_tui.data.asking import asking_template, asks_after_tools
from qlora_tui.data.named_templates import NAMED, source
from qlora_tui.data.rows import Role, Turn
from qlora_tui.data.spans import Conversation, Rendered, has_markers, render, render_text, without_markers
from qlora_tui.data.template_dates import with_fixed_day
from qlora_tui.data.template_environment import TemplateLimitError
from qlora_tui.data.tokenizer import Tokenizer, encode, opening_id, special_tokens
from qlora_tui.errors import DataError, ModelError

OWN = "the model's own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a template can express."""

    system: bool
    """Whether a system turn is rendered."""

    late_system: bool
    """Whether system turns after the first turn are rendered in their places."""

    tools: bool
    """Whether tool calls and tool results are rendered."""

    reasoning: bool
    """Whether the reasoning before the last answer is rendered."""

    alternates: bool
    """Whether user and assistant turns must take turns."""

    context: bool
    """Whether the template writes a turn's further context itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate(Abilities):
    name: str
    """A name from NAMED, or OWN."""

    jinja: str
    """What rows are rendered with."""

    portable: str
    """The same template without generation blocks and with matching prompts; saved with the adapter."""

    stops: bool
    """Whether what ends an answer is part of what is trained. If not, the end-of-text token is appended."""

    markers: tuple[str, ...]
    """Strings that the template writes around turns."""

    notes: tuple[str, ...]
    """What was decided and why."""


def resolve(name: str, tokenizer: Tokenizer, *, always_bos: bool = False) -> ChatTemplate:
    """The template for `data.template = name`.

    "auto" is the tokenizer's own chat template; without one ChatML if the tokenizer knows its markers as tokens, else
    Guanaco's, whose markers are plain words for any tokenizer. With `always_bos` a named template begins with
    the bos token even if the tokenizer does not add it. Raises DataError when the template cannot be used
    for training, ModelError when the tokenizer cannot end an answer.
    """
    if name != "auto":
        return _named(name, tokenizer, (), always_bos=always_bos)
    own = own_template(tokenizer)
    if own:
        return _own(own, tokenizer)
    name = "chatml" if set(NAMED["chatml"].markers) <= _known_tokens(tokenizer) else "guanaco"
    return _named(name, tokenizer, (f"the model has no chat template; {name!r} is used",), always_bos=always_bos)


def own_template(tokenizer: Tokenizer) -> str | None:
    """Return the tokenizer's own chat template, the default one of several."""
    own = tokenizer.chat_template
    return own.get("default") if isinstance(own, dict) else own


def abilities(name: str, tokenizer: Tokenizer) -> Abilities:
    """Return what `data.template = name` can express with a tokenizer that has this template as its own."""
    return _named_abilities(name) if name in NAMED else _abilities(tokenizer, own_template(tokenizer) or "")


def _named_abilities(name: str) -> Abilities:
    named = NAMED[name]
    return Abilities(
        system=True,
        late_system=not named.alternates,
        tools=False,
        reasoning=False,
        alternates=named.alternates,
        context=named.context,
    )


def _abilities(tokenizer: Tokenizer, jinja: str) -> Abilities:
    """Return what the template `jinja` can express, determined by rendering small conversations."""
    told = [Turn(role="user", content="q1q", context="c1c"), _DIALOGUE[1]]
    return Abilities(
        system=_renders(tokenizer, jinja, [_turn("system", "s1s"), *_DIALOGUE], ["s1s"]),
        late_system=_probe_late_system(tokenizer, jinja),
        tools=_probe_tools(tokenizer, jinja),
        reasoning=_renders(tokenizer, jinja, [_DIALOGUE[0], _THOUGHT], ["t1t", "a1a"]),
        alternates=not _renders(tokenizer, jinja, [_DIALOGUE[0], *_DIALOGUE], ["a1a"]),
        context=_renders(tokenizer, jinja, told, ["c1c"]),
    )


def _known_tokens(tokenizer: Tokenizer) -> set[str]:
    return set(tokenizer.get_added_vocab())


def _named(name: str, tokenizer: Tokenizer, notes: tuple[str, ...], *, always_bos: bool) -> ChatTemplate:
    named = NAMED[name]
    known = _known_tokens(tokenizer)
    if tokenizer.eos_token is None and named.stop not in known:
        raise ModelError(
            "the model's tokenizer has no end-of-text token, so a trained answer could never stop",
            hint="Set eos_token in the model's tokenizer_config.json.",
        )
    if named.stop and named.stop not in known:
        notes += (f"{named.stop} is not one token here, so {tokenizer.eos_token} is trained after it to end answers",)
    opens = opening_id(tokenizer, always_bos=always_bos) is not None
    jinja = source(name, opens=opens, known_tokens=known)
    return ChatTemplate(
        name=name,
        jinja=jinja,
        portable=without_markers(jinja),
        stops=True,
        markers=named.markers,
        notes=notes,
        **asdict(_named_abilities(name)),
    )


def _own(own: str, tokenizer: Tokenizer) -> ChatTemplate:
    marked = own if has_markers(own) else _training_variant(own) or own
    jinja, day = with_fixed_day(marked)
    _probe_answers(tokenizer, jinja)
    stops = _probe_stop(tokenizer, jinja)
    notes = []
    if not stops:
        notes.append(f"the chat template leaves answers open, so {tokenizer.eos_token} is trained after the last one")
    if day:
        notes.append(f"the chat template writes the date: rows are given {day}, the same every day")
    found = _abilities(tokenizer, jinja)
    portable = asking_template(tokenizer, jinja, own, system=found.system, reasoning=found.reasoning)
    if found.tools and not asks_after_tools(tokenizer, jinja, portable, _TOOL_DIALOGUE):
        found = replace(found, tools=False)
        notes.append(
            "the chat template's prompt after a tool result does not match the training format; "
            "tool calls are written as text"
        )
    if portable != without_markers(own):
        notes.append(
            "the chat template's prompts do not match the training format; "
            "a matching template is saved with the adapter"
        )
    return ChatTemplate(
        name=OWN,
        jinja=jinja,
        portable=portable,
        stops=stops,
        markers=tuple(token for token in special_tokens(tokenizer) if token in own),
        notes=tuple(notes),
        **asdict(found),
    )


def _training_variant(template: str) -> str | None:
    """TRL's version, with generation blocks, of a model family's template. TRL itself is not imported: it is slow."""
    from importlib.util import find_spec

    found = find_spec("trl")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "chat_templates"
    for variant in sorted(folder.glob("*_training.jinja")):
        original = variant.with_name(variant.name.replace("_training", ""))
        if original.is_file() and original.read_text(encoding="utf-8") == template:
            return variant.read_text(encoding="utf-8")
    return None


def _turn(role: Role, content: str) -> Turn:
    return Turn(role=role, content=content)


_DIALOGUE = [_turn("user", "q1q"), _turn("assistant", "a1a"), _turn("user", "q2q"), _turn("assistant", "a2a")]
_THOUGHT = Turn(role="assistant", content="a1a", reasoning_content="t1t")
_CALL_ID = "abcdefghi"
"""Mistral's templates take ids of nine letters and digits only."""

_CALL = {"type": "function", "id": _CALL_ID, "function": {"name": "f1f", "arguments": {"x": "v1v"}}}
_TOOL_DIALOGUE = [
    _DIALOGUE[0],
    Turn(role="assistant", content="", tool_calls=[_CALL]),
    Turn(role="tool", content="r1r", name="f1f", tool_call_id=_CALL_ID),
    _DIALOGUE[3],
]
_NAMED_HINT = 'Choose a named template, such as data.template = "chatml".'


def _probe_answers(tokenizer: Tokenizer, jinja: str) -> None:
    """Raise DataError unless the template renders a plain dialogue and its answers, only them, are found."""
    last_only = False
    try:
        rendered = render(tokenizer, jinja, [Conversation(_DIALOGUE)])[0]
    except DataError:
        last_only = True
        rendered = render(tokenizer, jinja, [Conversation(_DIALOGUE)], last_only=True)[0]
    except _TEMPLATE_ERRORS as error:
        raise DataError(
            f"the model's chat template cannot render a simple conversation: {error}", hint=_NAMED_HINT
        ) from error
    found = [rendered.text[start:end] for start, end in rendered.answers]
    expected = ["a2a"] if last_only else ["a1a", "a2a"]
    clean = len(found) == len(expected) and all(
        answer in text and "q1q" not in text and "q2q" not in text for answer, text in zip(expected, found, strict=True)
    )
    if not clean:
        raise DataError("the model's chat template does not mark its answers where they are", hint=_NAMED_HINT)


def _probe_stop(tokenizer: Tokenizer, jinja: str) -> bool:
    """Whether an answer's span ends in a special token: what tells the model to stop."""
    rendered = render(tokenizer, jinja, [Conversation(_DIALOGUE[:2])], last_only=True)[0]
    start, end = rendered.answers[-1]
    answer = rendered.text[start:end].rstrip()
    return any(answer.endswith(token) for token in _known_tokens(tokenizer) if token.strip())


def _probe_late_system(tokenizer: Tokenizer, jinja: str) -> bool:
    """Whether second and later system turns leave what comes before them as it is without them."""
    before = [_turn("system", "s1s"), *_DIALOGUE[:2]]
    for turns, at in (([*before, _turn("system", "s2s"), *_DIALOGUE[2:]], 3), ([before[0], *before], 1)):
        try:
            whole, start = render_text(tokenizer, jinja, [Conversation(turns), Conversation(turns[:at])])
        except TemplateLimitError:
            raise
        except _TEMPLATE_ERRORS:
            return False
        if not whole.startswith(start) or turns[at]["content"] not in whole[len(start) :]:
            return False
    return True


def _probe_tools(tokenizer: Tokenizer, jinja: str) -> bool:
    schema = {"type": "object", "properties": {"x": {"type": "string", "description": "d"}}}
    tool = {"type": "function", "function": {"name": "f1f", "description": "d", "parameters": schema}}
    return _renders(tokenizer, jinja, _TOOL_DIALOGUE, ["f1f", "v1v", "r1r"], [tool])


def _renders(
    tokenizer: Tokenizer, jinja: str, turns: Sequence[Turn], expected: list[str], tools: Sequence[dict[str, Any]] = ()
) -> bool:
    try:
        text = render_text(tokenizer, jinja, [Conversation(turns, tools)])[0]
    except TemplateLimitError:
        raise
    except _TEMPLATE_ERRORS:
        return False
    return all(part in text for part in expected)


_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError)
"""Exceptions of a chat template for turns it cannot render: an explicit refusal or an operation on a missing value."""


def render_rows(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    origins: Sequence[str],
    *,
    last_only: bool,
) -> list[Rendered]:
    """Render a batch; when the template refuses, raise DataError that names the first row it refuses."""
    refusals: tuple[type[Exception], ...] = (DataError, *_TEMPLATE_ERRORS)
    try:
        return render(tokenizer, template.jinja, conversations, last_only=last_only)
    except refusals:
        return [
            _render_row(template, tokenizer, one, origin, last_only=last_only)
            for one, origin in zip(conversations, origins, strict=True)
        ]


def _render_row(
    template: ChatTemplate, tokenizer: Tokenizer, one: Conversation, origin: str, *, last_only: bool
) -> Rendered:
    try:
        return render(tokenizer, template.jinja, [one], last_only=last_only)[0]
    except DataError as error:
        raise DataError(f"{origin}: {error.message}", hint=error.hint) from error
    except TemplateLimitError as error:  # of the template, not of the row: other rows may take as long
        raise ModelError(f"{origin}: the chat template was stopped: {error}", hint=_NAMED_HINT) from error
    except _TEMPLATE_ERRORS as error:
        raise DataError(f"{origin}: the chat template refuses this row: {error}", hint=_NAMED_HINT) from error


def stop_ids(template: ChatTemplate, tokenizer: Tokenizer) -> list[int]:
    """Ids appended after a row: none when the template ends answers itself, else the end-of-text token."""
    if template.stops:
        return []
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the model's tokenizer has no end-of-text token, so a trained answer could never stop",
            hint="Set eos_token in the model's tokenizer_config.json.",
        )
    return [tokenizer.eos_token_id]


def stop_token_id(template: ChatTemplate, tokenizer: Tokenizer) -> int | None:
    """The token a trained answer ends with."""
    if not template.stops:
        return tokenizer.eos_token_id
    rendered = render(tokenizer, template.jinja, [Conversation(_DIALOGUE[:2])], last_only=True)[0]
    answer = rendered.text[: rendered.answers[-1][1]].rstrip()
    ids: list[int] = encode(tokenizer, [answer])[0].ids
    return ids[-1] if ids else None
