"""Conversations as turns: role names made one, OpenAI and ShareGPT lists read, tool calls kept."""

import ast
import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any, TypedDict

from qlora_tui.data.bad_rows import RowError
from qlora_tui.data.json_reader import describe
from qlora_tui.data.rows import Role, Turn

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_WEIGHT_KEYS = ("weight", "train")
_ARGUMENT_KEYS = ("arguments", "parameters", "input", "args")
_CALL_KEYS = {*_ARGUMENT_KEYS, "name", "description", "id", "call_id", "index", "type", "strict"}
KNOWN_KEYS = {
    *ROLE_KEYS, *CONTENT_KEYS, *REASONING_KEYS, *_WEIGHT_KEYS, "name", "tool_calls", "function_call", "tool_call_id",
}  # fmt: skip
"""What a turn's keys can be; others are not used."""
_MAX_PYTHON_CHARS = 1 << 20
"""Python's parser uses hundreds of bytes per byte of text."""

_PYTHON_LIST = re.compile(r"""\[\s*\{\s*['"]""")
_BETWEEN_DICTS = re.compile(r"\}\s*\n\s*\{")
"""numpy writes no commas between the objects of an array."""

_MAX_SHOWN_ROLES = "system, user, assistant, tool; or human, gpt, bot, model, function, observation"


class StoredTurn(TypedDict):
    """A turn as the arrow table holds it: the same fields in every row."""

    role: Role
    content: str
    context: str | None
    name: str | None
    tool_calls: str | None
    """JSON list of calls, or None."""
    call_id: str | None
    """For a tool result: the id of the call that it answers."""
    reasoning: str | None
    untrained: bool | None
    """True for an answer that the row excludes from training."""


_NOTHING_ELSE: StoredTurn = {
    "role": "user",
    "content": "",
    "context": None,
    "name": None,
    "tool_calls": None,
    "call_id": None,
    "reasoning": None,
    "untrained": None,
}


def clean_text(value: Any, what: str) -> str:
    """`value` when it is text that can be stored and tokenized. `what` names it, such as "column 'q'".

    Raises RowError for other types, null bytes and lone surrogates.
    """
    if not isinstance(value, str):
        raise RowError(f"{what} holds {describe(value)} where text belongs")
    if value.isascii():
        if "\x00" in value:
            raise RowError(f"{what} holds a null byte at character {value.index(chr(0)) + 1}")
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        raise RowError(f"{what} holds a lone surrogate (U+{code:04X}) at character {error.start + 1}") from None
    if "\x00" in value:
        raise RowError(f"{what} holds a null byte at character {value.index(chr(0)) + 1}")
    return value


def turn(role: Role, content: str, context: str | None = None) -> StoredTurn:
    """A plain turn."""
    return {**_NOTHING_ELSE, "role": role, "content": content, "context": context}


def unpacked(stored: Mapping[str, Any]) -> Turn:
    """Return a stored turn as templates read it: without its empty fields, tool calls read from their JSON."""
    turn = Turn(role=stored["role"], content=stored.get("content") or "")
    if stored.get("context"):
        turn["context"] = stored["context"]
    if stored.get("name"):
        turn["name"] = stored["name"]
    calls = stored.get("tool_calls")
    if calls:
        turn["tool_calls"] = json.loads(calls) if isinstance(calls, str) else calls
    if stored.get("call_id"):
        turn["tool_call_id"] = stored["call_id"]
    if stored.get("reasoning"):
        turn["reasoning_content"] = stored["reasoning"]
    if stored.get("untrained"):
        turn["untrained"] = True
    return turn


def written_list(text: str) -> Any:
    """Return the list that `text` contains as JSON or as a Python literal (as in CSV exports), else None."""
    if not text.startswith("["):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    if not _PYTHON_LIST.match(text) or len(text) > _MAX_PYTHON_CHARS:
        return None
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ast.literal_eval(_BETWEEN_DICTS.sub("}, {", text))
    return None


def stored_turns(value: Any, what: str) -> list[StoredTurn]:
    """The turns of an OpenAI or ShareGPT list, or of its JSON text. Raises RowError."""
    if isinstance(value, str):
        written = written_list(value)
        value = value if written is None else written
    if not isinstance(value, list):
        raise RowError(f"{what} holds {describe(value)} where a list of turns belongs")
    if not value:
        raise RowError(f"{what} holds no turns")
    return [_plain_turn(item) or _stored_turn(item, f"{what}, turn {index}") for index, item in enumerate(value, 1)]


def _plain_turn(item: Any) -> StoredTurn | None:
    """The turn of an object with a role and clean text and nothing else, as nearly all are; None for any other."""
    if type(item) is not dict or len(item) != 2:
        return None
    role, content = (item.get("role"), item.get("content")) if "role" in item else (item.get("from"), item.get("value"))
    if type(role) is not str or type(content) is not str or role == "function_call":
        return None
    known = ROLES.get(role)
    if known is None or "\x00" in content or not (content.isascii() or _encodable(content)):
        return None
    return {**_NOTHING_ELSE, "role": known, "content": content}


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError(f"{what} holds {describe(text)} where a list of turns belongs") from None


def _stored_turn(item: Any, what: str) -> StoredTurn:
    if not isinstance(item, dict):
        raise RowError(f"{what}: {describe(item)} where an object with role and content belongs")
    role_name = next((item[key] for key in ROLE_KEYS if item.get(key) is not None), None)
    if role_name is None:
        raise RowError(f"{what}: no role (keys: {', '.join(map(str, item)) or 'none'})")
    role = ROLES.get(role_name.strip().lower()) if isinstance(role_name, str) else None
    if role is None:
        raise RowError(f"{what}: unknown role {describe(role_name)} (known: {_MAX_SHOWN_ROLES})")
    content = _only(item, CONTENT_KEYS, what)
    calls = _only(item, ("tool_calls", "function_call"), what)
    if role_name == "function_call" and isinstance(content, str):
        calls, content = _parsed(content, what), ""
    if content is None and not calls:
        raise RowError(f"{what}: no content")
    name = item.get("name")
    return StoredTurn(
        role=role,
        content="" if content is None else _content(content, what),
        context=None,
        name=None if name is None else clean_text(name, f"{what}, name"),
        tool_calls=_calls(calls, what) if calls else None,
        call_id=item["tool_call_id"] if isinstance(item.get("tool_call_id"), str) else None,
        reasoning=_reasoning(item, what),
        untrained=_is_untrained(item, what) if role == "assistant" else None,
    )


def _reasoning(item: dict[str, Any], what: str) -> str | None:
    reasoning = _only(item, REASONING_KEYS, what)
    return clean_text(reasoning, f"{what}, reasoning") if reasoning else None


def _only(item: dict[str, Any], keys: tuple[str, ...], what: str) -> Any:
    """Return the value that `keys` hold; an empty one, or None, if all are empty. Raises RowError if two differ."""
    held = [key for key in keys if item.get(key) is not None]
    said = [key for key in held if item[key] not in ("", [], {})]
    if any(item[key] != item[said[0]] for key in said):
        raise RowError(f"{what}: {' and '.join(said)} differ, and only one can be trained")
    return item[(said or held)[0]] if held else None


def _is_untrained(item: dict[str, Any], what: str) -> bool | None:
    """Whether `weight: 0` or `train: false` takes the turn out of the loss. Raises RowError for other weights."""
    for key in _WEIGHT_KEYS:
        value = item.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            raise RowError(
                f"{what}: {key} is {describe(value)}; expected 1 or true (trained), or 0 or false (not trained)"
            )
        if not value:
            return True
    return None


def _content(value: Any, what: str) -> str:
    """Text, or the joined text parts of OpenAI's list form."""
    if not isinstance(value, list):
        return clean_text(value, f"{what}, content")
    texts = []
    for part in value:
        if isinstance(part, dict) and part.get("type", "text") != "text":
            raise RowError(f"{what}: content of type {describe(part['type'])}; only text can be trained")
        texts.append(clean_text(part.get("text") if isinstance(part, dict) else part, f"{what}, content"))
    return "".join(texts)


def _calls(calls: Any, what: str) -> str:
    """Tool calls as a JSON list in OpenAI's shape, `arguments` as an object where it is valid JSON."""
    if isinstance(calls, str):
        calls = _parsed(calls, what)
    listed = calls if isinstance(calls, list) else [calls]
    return json_text([_call(call, what) for call in listed], f"{what}, tool_calls")


def _call(call: Any, what: str) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise RowError(f"{what}: a tool call is {describe(call)} where an object belongs")
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(f"{what}: a tool call without the name of its function")
    unread = [key for key, value in function.items() if key not in _CALL_KEYS and value not in (None, "", [], {})]
    if unread:
        raise RowError(f"{what}: {unread[0]!r} in the call of {function['name']!r} would not be trained")
    arguments = _only(function, _ARGUMENT_KEYS, what)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise RowError(f"{what}: the arguments of {function['name']!r} are no valid JSON") from None
    kept: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}
    if isinstance(call.get("id"), str):
        kept["id"] = call["id"]
    return kept


def json_text(value: Any, what: str) -> str:
    """`value` as compact JSON that can be stored. Raises RowError."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError(f"{what} cannot be kept as JSON: {error}") from None
    return clean_text(text, what)
