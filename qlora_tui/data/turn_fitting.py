"""Turns made to fit what a template can express, nothing of their text lost."""

import json
from collections.abc import Sequence
from typing import Any, cast

from qlora_tui.data.rows import Turn
from qlora_tui.data.templates import Abilities


def fit_turns(
    template: Abilities,
    turns: Sequence[Turn],
    tools: Sequence[dict[str, Any]] = (),
    system_prompt: str | None = None,
) -> list[Turn]:
    """The turns as the template can express them.

    A system turn the template does not know goes in front of the next user turn, or becomes one before an answer;
    tools, their calls and results become JSON text in the turns; turns of one role in a row are joined where the
    template demands alternation.
    """
    fitted = list(turns)
    if system_prompt and not any(turn["role"] == "system" for turn in fitted):
        fitted.insert(0, Turn(role="system", content=system_prompt))
    if not template.reasoning:
        fitted = [_with_reasoning_inside(turn) for turn in fitted]
    fitted = _with_call_ids(fitted) if template.tools else fitted
    if tools and not template.tools:
        fitted = _with_tool_list(fitted, tools)
    if not template.context:
        fitted = [_with_context_inside(turn) for turn in fitted]
    if not template.tools:
        fitted = [_tools_as_text(turn) for turn in fitted]
    if not template.system or template.alternates or not template.late_system:
        fitted = _fold_systems(fitted, keep_first=template.system)
    return _alternate(fitted) if template.alternates else fitted


def _with_reasoning_inside(turn: Turn) -> Turn:
    reasoning = turn.get("reasoning_content")
    if not reasoning:
        return turn
    thought = f"<think>\n{reasoning.strip()}\n</think>\n\n{turn['content']}"
    return _without(turn, "reasoning_content", content=thought)


def _without(turn: Turn, key: str, *, content: str) -> Turn:
    kept = {name: value for name, value in turn.items() if name != key}
    return cast(Turn, {**kept, "content": content})


def _with_call_ids(turns: list[Turn]) -> list[Turn]:
    """Return the turns with an id for each tool call and result: some templates require them."""
    fitted: list[Turn] = []
    waiting: list[str] = []
    given = 0
    for turn in turns:
        calls = turn.get("tool_calls")
        if calls:
            numbered = []
            for call in calls:
                given += 1
                numbered.append({"id": f"call{given:05}", **call})
            waiting = [call["id"] for call in numbered]
            turn = Turn(**{**turn, "tool_calls": numbered})
        elif turn["role"] == "tool":
            answered = turn.get("tool_call_id") or (waiting[0] if waiting else "call00000")
            waiting = [call for call in waiting if call != answered]
            turn = Turn(**{**turn, "tool_call_id": answered})
        fitted.append(turn)
    return fitted


def _with_context_inside(turn: Turn) -> Turn:
    context = turn.get("context")
    if not context:
        return turn
    return Turn(role=turn["role"], content=f"{turn['content']}\n\n{context}")


def _with_tool_list(turns: list[Turn], tools: Sequence[dict[str, Any]]) -> list[Turn]:
    listed = "\n".join(["<tools>", *(json.dumps(tool, ensure_ascii=False) for tool in tools), "</tools>"])
    if turns and turns[0]["role"] == "system":
        return [Turn(role="system", content=f"{turns[0]['content']}\n\n{listed}"), *turns[1:]]
    return [Turn(role="system", content=listed), *turns]


def _tools_as_text(turn: Turn) -> Turn:
    if turn["role"] == "tool":
        return Turn(role="user", content=f"<tool_response>\n{turn['content']}\n</tool_response>")
    calls = turn.get("tool_calls")
    if not calls:
        return turn
    written = [
        f"<tool_call>\n{json.dumps(call.get('function', call), ensure_ascii=False)}\n</tool_call>" for call in calls
    ]
    text = "\n".join([turn["content"], *written] if turn["content"] else written)
    return _without(turn, "tool_calls", content=text)


def _fold_systems(turns: list[Turn], *, keep_first: bool) -> list[Turn]:
    fitted: list[Turn] = []
    waiting = ""
    for index, turn in enumerate(turns):
        if turn["role"] == "system" and not (keep_first and index == 0):
            waiting += turn["content"] + "\n\n"
            continue
        if waiting and turn["role"] == "user":
            turn = Turn(**{**turn, "content": waiting + turn["content"]})
        elif waiting:  # The answer is prompted with this text, so it cannot go to a later turn.
            fitted.append(Turn(role="user", content=waiting.rstrip("\n")))
        waiting = ""
        fitted.append(turn)
    if waiting:
        fitted.append(Turn(role="user", content=waiting.rstrip("\n")))
    return fitted


def _joins(before: Turn, turn: Turn) -> bool:
    """Return whether two consecutive turns can be merged: same role, both trained or neither."""
    if "tool_calls" in turn or turn["role"] == "tool":
        return False
    return before["role"] == turn["role"] and before.get("untrained") == turn.get("untrained")


def _alternate(turns: list[Turn]) -> list[Turn]:
    fitted: list[Turn] = []
    for turn in turns:
        if fitted and _joins(fitted[-1], turn):
            added = _with_context_inside(turn)["content"]
            fitted[-1] = Turn(**{**fitted[-1], "content": f"{fitted[-1]['content']}\n\n{added}"})
        else:
            fitted.append(turn)
    first = 1 if fitted and fitted[0]["role"] == "system" else 0
    # Templates that alternate start with the user; an opening line of the assistant has no question to answer.
    if fitted and (len(fitted) == first or fitted[first]["role"] == "assistant"):
        fitted.insert(first, Turn(role="user", content=""))
    return fitted
