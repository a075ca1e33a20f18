"""`data check` shows rows as read, as trained and as prompted; no template changes a row silently."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, command
from transformers import PreTrainedTokenizerFast

from qlora_tui.config.data import SourceSpec
from qlora_tui.data.lengths import Limits
from qlora_tui.data.load import load_source
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.row_encoder import Rules
from qlora_tui.data.templates import resolve
from qlora_tui.engine.row_check import RowCheck, check_rows
from qlora_tui.errors import ExitCode
from qlora_tui.starter import MODEL_DIR

__all__ = ["command"]  # a fixture

Row = dict[str, Any]


def said(role: str, content: str, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def test_data_check_shows_the_row_the_trained_text_and_the_prompt(tmp_path: Path, command: Cli) -> None:
    path = tmp_path / "rows.jsonl"
    turns = [said("user", "Hi"), said("assistant", "BAD", weight=0), said("user", "No"), said("assistant", "GOOD")]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    result = command("data", "check", str(path), "--json")
    assert result.code == ExitCode.OK
    (row,) = json.loads(result.out)["rows"]
    assert row["status"] == "equal"
    assert row["trained"] == "GOOD<|im_end|>"
    assert row["prompt"].endswith("<|im_start|>user\nNo<|im_end|>\n<|im_start|>assistant\n")
    assert [turn["content"] for turn in row["turns"]] == ["Hi", "BAD", "No", "GOOD"]


def test_data_check_fails_without_a_trained_answer(tmp_path: Path, command: Cli) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"messages": [said("user", "Hi"), said("assistant", "Hello")]}
    path.write_text(json.dumps(good) + "\n" + json.dumps({"messages": [said("user", "Only?")]}) + "\n")
    result = command("data", "check", str(path))
    assert result.code == ExitCode.DATA
    assert "1 of 2 rows fail; the first: rows.jsonl:2: not trained, no answer" in result.err
    assert "rows.jsonl:1\tequal" in result.out


FOLDER = Path((find_spec("trl").submodule_search_locations or [""])[0]) / "chat_templates"  # type: ignore[union-attr]
TEMPLATES = [
    "chatml", "llama-2", "llama-3", "mistral", "gemma", "phi", "alpaca", "guanaco", "cohere", "cohere2",
    "deepseek_r1_distill", "deepseekv3", "gemma3", "gemma4_v5", "glm4moe", "gptoss", "lfm2", "lfm2_2_5", "llama3",
    "llama3_1", "llama3_2", "nemotron_3_nano", "phi3", "phi3_5", "qwen2_5", "qwen3", "qwen3_5_think", "qwen3_8",
    "qwen3_instruct_2507",
]  # fmt: skip
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "w", "arguments": {"city": "Rome"}}}
OTHER = {"id": "abcdefghj", "type": "function", "function": {"name": "w", "arguments": {"city": "Oslo", "days": 2}}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "w", "description": "d", "parameters": SCHEMA}}]
ASKED = [said("user", "Hi"), said("assistant", "Hello.")]
RESULT = said("tool", "20", tool_call_id="abcdefghi", name="w")
THOUGHT = "<think>\nadd them\n</think>\n\n4"


def called(*calls: Row, content: str = "") -> list[Row]:
    results = [said("tool", str(at), tool_call_id=call["id"], name="w") for at, call in enumerate(calls)]
    return [said("user", "Weather?"), said("assistant", content, tool_calls=list(calls)), *results]


CONVERSATIONS: dict[str, Row] = {
    "one answer": {"messages": ASKED},
    "two answers": {"messages": [*ASKED, said("user", "And?"), said("assistant", "Bye.")]},
    "system": {"messages": [said("system", "Be short."), *ASKED]},
    "late system": {"messages": [*ASKED, said("system", "Be long."), *ASKED]},
    "two systems": {"messages": [said("system", "Be short."), said("system", "Be kind."), *ASKED]},
    "two users": {"messages": [said("user", "Hi"), said("user", "there"), said("assistant", "Hello.")]},
    "two assistants": {"messages": [*ASKED, said("assistant", "And welcome.")]},
    "opening line": {"messages": [said("assistant", "Welcome."), *ASKED]},
    "open question": {"messages": [*ASKED, said("user", "And?")]},
    "empty user": {"messages": [said("user", ""), said("assistant", "Hello.")]},
    "empty answer": {"messages": [*ASKED, said("user", "And?"), said("assistant", "")]},
    "untrained answer": {"messages": [said("user", "Hi"), said("assistant", "No.", weight=0), *ASKED]},
    "code": {"messages": [said("user", "Write"), said("assistant", "```python\ndef f():\n    return 1\n```\n")]},
    "whitespace": {"messages": [said("user", "  Hi \n"), said("assistant", "\n Hello.  \n")]},
    "lookalikes": {"messages": [said("user", "<|user|> [INST] x"), said("assistant", "### Human: </s> <|end|>")]},
    "braces": {"messages": [said("user", "{{ x }}"), said("assistant", "{% if y %} {# z #}")]},
    "other scripts": {"messages": [said("user", "Grüße 数据"), said("assistant", "Привет 👩‍👩‍👧")]},
    "thinking": {"messages": [said("user", "2+2?"), said("assistant", THOUGHT)]},
    "thinking twice": {"messages": [said("user", "2+2?"), said("assistant", THOUGHT)] * 2},
    "reasoning": {"messages": [said("user", "2+2?"), said("assistant", "4", reasoning_content="add them")]},
    "tool call": {"messages": [*called(CALL), said("assistant", "20 degrees.")], "tools": TOOLS},
    "text and call": {
        "messages": [*called(CALL, content="Let me see."), said("assistant", "20 degrees.")],
        "tools": TOOLS,
    },
    "two calls": {"messages": [*called(CALL, OTHER), said("assistant", "20 and 5.")], "tools": TOOLS},
    "call at the end": {"messages": called(CALL)[:2], "tools": TOOLS},
    "tools unused": {"messages": ASKED, "tools": TOOLS},
}


def checked(tokenizer: Any, template: Any, row: Row, path: Path) -> RowCheck:
    path.write_text(json.dumps(row) + "\n")
    loaded = load_source(SourceSpec(source=str(path)))
    (found,) = check_rows(Recipe(tokenizer, template, Rules(Limits(max_tokens=9000))), loaded.dataset[:])
    return found


def tokenizer_for(name: str) -> tuple[Any, Any]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(MODEL_DIR))
    tokenizer.bos_token = "<|endoftext|>"
    path = FOLDER / f"{name}.jinja"
    if not path.is_file():
        return tokenizer, resolve(name, tokenizer)
    tokenizer.chat_template = path.read_text(encoding="utf-8")
    return tokenizer, resolve("auto", tokenizer)


@pytest.mark.long
@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_loses_or_changes_a_conversation_silently(name: str, tmp_path: Path) -> None:
    """Each conversation is trained unchanged with a matching prompt, or it is reported or refused."""
    tokenizer, template = tokenizer_for(name)
    for title, row in CONVERSATIONS.items():
        found = checked(tokenizer, template, row, tmp_path / "rows.jsonl")
        assert found.status != "asked differently", (title, found.problem)
        if found.status in {"refused", "loss reported", "not trained"}:
            assert found.problem, title
            continue
        for turn in found.turns:
            if turn["role"] == "assistant":
                assert (turn["content"].strip().rpartition("</think>")[2].strip() in found.trained) is not turn.get(
                    "untrained", False
                ), title
