"""The conversations of the template matrix. Texts differ in every turn, so that each can be found in the tokens."""

from typing import Any

Row = dict[str, Any]


def said(role: str, content: str | None, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def user(content: str) -> Row:
    return said("user", content)


def answer(content: str, **more: Any) -> Row:
    return said("assistant", content, **more)


def _call(name: str, number: str | None, **arguments: Any) -> Row:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return call if number is None else {"id": number, **call}


_SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}, "required": ["city"]}
_TOOLS = [
    {"type": "function", "function": {"name": name, "description": "d", "parameters": _SCHEMA}}
    for name in ("weather", "traffic")
]
_ROME, _OSLO = _call("weather", "abcdefghi", city="Rome"), _call("traffic", "abcdefghj", city="Oslo", days=2)
_ASKED = [user("Good day"), answer("Hello there.")]
_NEXT = [user("What else?"), answer("Nothing more.")]


def _called(*calls: Row, content: str = "") -> Row:
    results = [
        said(
            "tool",
            f"result{at}",
            name=call["function"]["name"],
            **({"tool_call_id": call["id"]} if "id" in call else {}),
        )
        for at, call in enumerate(calls)
    ]
    turns = [user("How is it?"), answer(content, tool_calls=list(calls)), *results, answer("Sunny and calm.")]
    return {"messages": turns, "tools": _TOOLS}


def _chat(*turns: Row) -> Row:
    return {"messages": list(turns)}


def _thought(about: str, reply: str) -> Row:
    return answer(f"<think>\nreason {about}\n</think>\n\n{reply}")


CONVERSATIONS: dict[str, Row] = {
    "one answer": _chat(*_ASKED),
    "three rounds": _chat(*_ASKED, *_NEXT, user("Really?"), answer("Yes, truly.")),
    "a tool call at the end": {"messages": _called(_ROME)["messages"][:2], "tools": _TOOLS},
    "a tool call, its result and an answer": _called(_ROME),
    "two tool calls in one turn": _called(_ROME, _OSLO),
    "text and a tool call in one turn": _called(_ROME, content="Let me look."),
    "a tool call without an id": _called(_call("weather", None, city="Rome")),
    "tools that are not called": {"messages": _ASKED, "tools": _TOOLS},
    "`<think>` in the last answer": _chat(user("2+2?"), _thought("one", "Four.")),
    "`<think>` in two answers": _chat(user("2+2?"), _thought("one", "Four."), user("3+3?"), _thought("two", "Six.")),
    "`<think>` in an earlier answer": _chat(user("2+2?"), _thought("one", "Four."), *_NEXT),
    "`<think>` inside an answer": _chat(user("Which tag?"), answer("Write <think>idea</think> first.")),
    "`reasoning_content` of the last answer": _chat(user("2+2?"), answer("Four.", reasoning_content="reason one")),
    "`reasoning_content` of an earlier answer": _chat(
        user("2+2?"), answer("Four.", reasoning_content="reason one"), *_NEXT
    ),
    "a system turn first": _chat(said("system", "Be brief."), *_ASKED, *_NEXT),
    "a system turn in the middle": _chat(*_ASKED, said("system", "Be brief."), *_NEXT),
    "two system turns": _chat(said("system", "Be brief."), said("system", "Be kind."), *_ASKED),
    "a system turn and an answer": _chat(said("system", "Be brief."), answer("Hello there.")),
    "two user turns in a row": _chat(user("Good day"), user("to you"), answer("Hello there.")),
    "two answers in a row": _chat(*_ASKED, answer("And welcome.")),
    "an opening answer": _chat(answer("Welcome here."), *_ASKED),
    "a question without an answer at the end": _chat(*_ASKED, user("What else?")),
    "an empty answer": _chat(*_ASKED, user("What else?"), answer("")),
    "an empty question": _chat(user(""), answer("Hello there.")),
    "an answer with weight 0": _chat(user("Insult me"), answer("Rude words.", weight=0), *_NEXT),
    "an answer with train false": _chat(user("Insult me"), answer("Rude words.", train=False), *_NEXT),
    "code with indentation": _chat(user("Write it"), answer("```python\ndef f(x):\n    if x:\n\treturn 1\n```")),
    "white space around texts": _chat(user("  Good day \n"), answer("\n  Hello there.  \n")),
    "special tokens in a question": _chat(user("Say <|im_end|> and </s> [/INST] <|eot_id|>"), answer("Hello there.")),
    "special tokens in an answer": _chat(user("Which mark?"), answer("Use <|im_end|> or </s> [INST] <|end|> here.")),
    "template code in texts": _chat(user("{{ x }}"), answer("{% if y %} {# z #}")),
    "other scripts and emoji": _chat(user("Grüße 数据 שלום"), answer("Привет 👩‍👩‍👧 مرحبا é")),
    "a long answer": _chat(user("Count"), answer(" ".join(f"number {at}" for at in range(1500)))),
}
"""Descriptions and rows, in the order of the page's columns."""
