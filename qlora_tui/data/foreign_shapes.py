"""Convert rows published or exported by other programs into columns that the formats know.

Each layout is recognized by its keys, row by row; other rows are returned unchanged.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qlora_tui.data.bad_rows import RowError

Row = dict[str, Any]

_LIST_KEYS = ("conversations", "conversation", "messages", "dialogue", "dialog", "turns")
_JSON_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object",
    "set": "array", "tuple": "array",
}  # fmt: skip
_GLAIVE_SPEAKER = re.compile(r"(?:^|\n\n+)\s*(USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
_GLAIVE_CALL = re.compile(r'<functioncall>\s*\{\s*"name":\s*"([^"]+)"\s*,\s*"arguments":\s*(.*)\}\s*$', re.DOTALL)


@dataclass(frozen=True)
class Shape:
    """One foreign layout of rows."""

    name: str
    """Name of the layout in notes."""

    keys: tuple[str, ...]
    """Only rows with one of these columns can have it."""

    fits: Callable[[Row], bool]
    reshape: Callable[[Row], Iterator[Row]]
    """The rows inside one such row. Raises RowError for a value of the wrong type."""


def shape_of(row: Row) -> Shape | None:
    """The foreign layout of `row`; None when its columns are to be read as they are."""
    return next((shape for key in row for shape in _BY_KEY.get(key, ()) if shape.fits(row)), None)


def _rest(row: Row, *used: str) -> Row:
    return {name: value for name, value in row.items() if name not in used}


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _object(holder: Row, key: str) -> Row:
    """The object under `key`; an empty one where it is missing or null. Raises RowError."""
    if (value := holder.get(key)) is None:
        return {}
    if not isinstance(value, dict):
        raise RowError(f"{key!r} is not an object")
    return value


# ChatGPT: conversations.json of a data export; the messages are a tree, and the shown branch ends at current_node.


def _is_chatgpt(row: Row) -> bool:
    return isinstance(row.get("mapping"), dict) and "current_node" in row


def _chatgpt(row: Row) -> Iterator[Row]:
    branch: list[Row] = []
    nodes, at, seen = row["mapping"], row["current_node"], set[str]()
    while isinstance(at, str) and at not in seen and isinstance(node := nodes.get(at), dict):
        seen.add(at)
        turn = _chatgpt_turn(node.get("message"))
        if turn is not None:
            branch.insert(0, turn)
        at = node.get("parent")
    yield {"messages": branch, **_rest(row, "mapping", "current_node", "moderation_results", "plugin_ids")}


def _chatgpt_turn(message: Any) -> Row | None:
    """A visible turn; hidden system texts, browsing and tool code are not part of the conversation."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), dict):
        return None
    role = _object(message, "author").get("role")
    hidden = _object(message, "metadata").get("is_visually_hidden_from_conversation")
    if hidden or role not in ("system", "user", "assistant") or message.get("recipient", "all") != "all":
        return None
    parts = message["content"].get("parts") or []
    if not isinstance(parts, list):
        raise RowError("'parts' of a message is not a list")
    if not any(parts):
        return None
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": part.get("content_type", "object") if isinstance(part, dict) else "object"}
        for part in parts
    ]
    return {"role": role, "content": content}


# Claude: conversations.json of a data export.


def _is_claude(row: Row) -> bool:
    return isinstance(row.get("chat_messages"), list)


def _claude(row: Row) -> Iterator[Row]:
    turns = [
        {"role": message.get("sender"), "content": message.get("text") or message.get("content")}
        for message in row["chat_messages"]
        if isinstance(message, dict) and (message.get("text") or message.get("content"))
    ]
    yield {"messages": turns, **_rest(row, "chat_messages", "account", "summary")}


# Gemini: contents with role and parts, as its API takes and its tuning data has.


def _is_gemini(row: Row) -> bool:
    return _is_list_of(row.get("contents"), dict) and all("parts" in item for item in row["contents"])


def _gemini(row: Row) -> Iterator[Row]:
    turns = [turn for item in row["contents"] for turn in _gemini_turns(item)]
    instruction = row.get("systemInstruction") or row.get("system_instruction")
    if instruction:
        parts = instruction.get("parts") if isinstance(instruction, dict) else instruction
        turns.insert(0, {"role": "system", "content": parts})
    yield {"messages": turns, **_rest(row, "contents", "systemInstruction", "system_instruction")}


def _gemini_turns(item: Row) -> Iterator[Row]:
    parts = item["parts"] if isinstance(item["parts"], list) else [item["parts"]]
    calls = [_object(part, "functionCall") for part in parts if isinstance(part, dict) and "functionCall" in part]
    for part in parts:
        if isinstance(part, dict) and isinstance(answer := part.get("functionResponse"), dict):
            content = json.dumps(answer.get("response"), ensure_ascii=False)
            yield {"role": "tool", "name": answer.get("name"), "content": content}
    texts = [
        part for part in parts if not (isinstance(part, dict) and {"functionCall", "functionResponse"} & set(part))
    ]
    if texts or calls:
        turn: Row = {"role": item.get("role") or "user", "content": [_gemini_part(part) for part in texts]}
        if calls:
            turn["tool_calls"] = [
                {"function": {"name": call.get("name"), "arguments": call.get("args") or {}}} for call in calls
            ]
        yield turn


def _gemini_part(part: Any) -> Any:
    if isinstance(part, dict) and "text" not in part:
        return {"type": next(iter(part), "nothing")}
    return part


# xLAM (APIGen): a question, the tools as JSON, and the calls that answer it.


def _is_xlam(row: Row) -> bool:
    return {"query", "tools"} <= set(row) and _is_list_of(_parsed(row["answers"]), dict)


def _xlam(row: Row) -> Iterator[Row]:
    calls, tools = _parsed(row["answers"]), _parsed(row["tools"])
    asked = {"role": "user", "content": row["query"]}
    called = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": call} for call in calls] if isinstance(calls, list) else calls,
    }
    listed = [_xlam_tool(tool) for tool in tools] if _is_list_of(tools, dict) else tools
    yield {"messages": [asked, called], "tools": listed, **_rest(row, "query", "tools", "answers")}


def _xlam_tool(tool: Row) -> Row:
    """An xLAM tool as JSON schema. Its types are Python's names, with ", optional" where a value may be missing."""
    given = tool.get("parameters")
    if tool.get("type") == "function" or not isinstance(given, dict) or given.get("type") == "object":
        return tool
    properties, required = {}, []
    for name, parameter in given.items():
        about = dict(parameter) if isinstance(parameter, dict) else {}
        kind, _, optional = str(about.get("type", "")).partition(",")
        if "optional" not in optional and "default" not in about:
            required.append(name)
        about["type"] = _JSON_TYPES.get(kind.partition("[")[0].strip().lower(), kind.strip() or "string")
        properties[name] = about
    schema = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {**_rest(tool, "parameters"), "parameters": schema}}


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


# Glaive function calling: one text of USER:, ASSISTANT: and FUNCTION RESPONSE: beside a SYSTEM: text.


def _is_glaive(row: Row) -> bool:
    chat, system = row.get("chat"), row.get("system")
    return isinstance(chat, str) and chat.lstrip().startswith("USER:") and isinstance(system, str | None)


def _glaive(row: Row) -> Iterator[Row]:
    turns: list[Row] = []
    system = (row.get("system") or "").removeprefix("SYSTEM:").strip()
    if system:
        turns.append({"role": "system", "content": system})
    pieces = _GLAIVE_SPEAKER.split(row["chat"])
    for speaker, text in zip(pieces[1::2], pieces[2::2], strict=True):
        turns.append(_glaive_turn(_GLAIVE_ROLES[speaker], text.replace("<|endoftext|>", "").strip()))
    yield {"messages": turns, **_rest(row, "chat", "system")}


def _glaive_turn(role: str, text: str) -> Row:
    call = _GLAIVE_CALL.search(text) if role == "assistant" else None
    if call is None:
        return {"role": role, "content": text}
    arguments = call.group(2).strip()
    if arguments.startswith("'") and arguments.endswith("'"):  # JSON inside a Python string
        arguments = arguments[1:-1].replace("\\'", "'")
    calls = [{"function": {"name": call.group(1), "arguments": arguments}}]
    return {"role": role, "content": text[: call.start()].strip(), "tool_calls": calls}


# SQuAD: a passage, a question, and the answers that people marked in it.


def _is_squad(row: Row) -> bool:
    answers = row.get("answers")
    return {"context", "question"} <= set(row) and isinstance(answers, dict) and isinstance(answers.get("text"), list)


def _squad(row: Row) -> Iterator[Row]:
    yield {
        "question": row["question"],
        "context": row["context"],
        "answer": next(iter(row["answers"]["text"]), None),
        **_rest(row, "question", "context", "answers"),
    }


def _is_squad_article(row: Row) -> bool:
    return _is_list_of(row.get("paragraphs"), dict) and all("qas" in paragraph for paragraph in row["paragraphs"])


def _squad_article(row: Row) -> Iterator[Row]:
    for paragraph in row["paragraphs"]:
        for asked in paragraph["qas"] if _is_list_of(paragraph["qas"], dict) else ():
            answers = asked.get("answers")
            answer = answers[0].get("text") if _is_list_of(answers, dict) else None
            yield {"question": asked.get("question"), "context": paragraph.get("context"), "answer": answer}


# Plain lists: LIMA, UltraChat and others write only the texts, the user's first; Capybara writes pairs.


def _texts_key(row: Row) -> str | None:
    keys = ("data",) if set(row) == {"id", "data"} else _LIST_KEYS
    return next((key for key in keys if _is_list_of(row.get(key), str)), None)


def _alternating(row: Row) -> Iterator[Row]:
    key = _texts_key(row) or ""
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(row[key])]
    yield {"messages": turns, **_rest(row, key)}


def _pairs_key(row: Row) -> str | None:
    for key in _LIST_KEYS:
        if _is_list_of(row.get(key), dict) and all({"input", "output"} <= set(item) for item in row[key]):
            return key
    return None


def _paired(row: Row) -> Iterator[Row]:
    key = _pairs_key(row) or ""
    turns = [
        {"role": role, "content": pair[column]}
        for pair in row[key]
        for role, column in (("user", "input"), ("assistant", "output"))
    ]
    yield {"messages": turns, **_rest(row, key)}


# Unnatural Instructions: several examples under one instruction.


def _is_unnatural(row: Row) -> bool:
    instances = row.get("instances")
    return _is_list_of(instances, dict) and all("instruction_with_input" in item for item in row["instances"])


def _unnatural(row: Row) -> Iterator[Row]:
    reformulations = row.get("reformulations")
    for instance in [*row["instances"], *(reformulations if isinstance(reformulations, list) else [])]:
        if isinstance(instance, dict):
            yield {"input": instance.get("instruction_with_input"), "output": instance.get("output")}


_SHAPES = (
    Shape("a ChatGPT export", ("mapping",), _is_chatgpt, _chatgpt),
    Shape("a Claude export", ("chat_messages",), _is_claude, _claude),
    Shape("Gemini contents", ("contents",), _is_gemini, _gemini),
    Shape("xLAM tool calls", ("answers",), _is_xlam, _xlam),
    Shape("Glaive function calls", ("chat",), _is_glaive, _glaive),
    Shape("SQuAD", ("answers",), _is_squad, _squad),
    Shape("a SQuAD article", ("paragraphs",), _is_squad_article, _squad_article),
    Shape("Unnatural Instructions", ("instances",), _is_unnatural, _unnatural),
    Shape(
        "texts of user and assistant in turn", (*_LIST_KEYS, "data"), lambda row: bool(_texts_key(row)), _alternating
    ),
    Shape("pairs of input and output", _LIST_KEYS, lambda row: bool(_pairs_key(row)), _paired),
)
_BY_KEY = {key: [shape for shape in _SHAPES if key in shape.keys] for shape in _SHAPES for key in shape.keys}
