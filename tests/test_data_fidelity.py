"""Settings of a row's turns are applied, and content that a template drops is refused or reported."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from qlora_tui.config.data import SourceSpec
from qlora_tui.data.lengths import Limits
from qlora_tui.data.load import load_source
from qlora_tui.data.mask import IGNORED
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.row_encoder import EncodedRow, Rules
from qlora_tui.data.templates import resolve
from qlora_tui.errors import DataError
from qlora_tui.starter import MODEL_DIR

Row = dict[str, Any]


def template_of_trl(name: str) -> str:
    spec = find_spec("trl")
    assert spec is not None and spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def encoded(folder: Path, row: Row, template: str, **rules: Any) -> tuple[PreTrainedTokenizerFast, EncodedRow]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(MODEL_DIR))
    if template != "chatml":
        tokenizer.chat_template = template_of_trl(template)
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    dataset = load_source(SourceSpec(source=str(path))).dataset
    chosen = resolve("chatml" if template == "chatml" else "auto", tokenizer)
    recipe = Recipe(tokenizer, chosen, Rules(Limits(max_tokens=40_000), **rules))
    return tokenizer, recipe.encoder().encode(dataset[:])[0]


def trained(folder: Path, row: Row, template: str, **rules: Any) -> str:
    tokenizer, one = encoded(folder, row, template, **rules)
    return tokenizer.decode(
        [token for ids, labels in one.pieces for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    )


def said(role: str, content: str, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize("template", ["chatml", "qwen3", "llama3_1", "gemma3", "gptoss", "deepseek_r1_distill"])
@pytest.mark.parametrize("key", [{"weight": 0}, {"train": False}])
def test_an_answer_marked_as_untrained_is_masked(tmp_path: Path, template: str, key: Row) -> None:
    turns = [said("user", "Hi"), said("assistant", "BAD", **key), said("user", "No"), said("assistant", "GOOD")]
    text = trained(tmp_path, {"messages": turns}, template)
    assert "GOOD" in text
    assert "BAD" not in text


@pytest.mark.parametrize("template", ["chatml", "qwen3", "llama3_1", "gemma3", "gptoss"])
@pytest.mark.parametrize("bad", ["BAD", "BAD " * 9000])
def test_an_untrained_answer_is_masked_also_where_everything_is_trained(
    tmp_path: Path, template: str, bad: str
) -> None:
    turns = [said("user", "Hi"), said("assistant", bad, weight=0), said("user", "No"), said("assistant", "GOOD")]
    text = trained(tmp_path, {"messages": turns}, template, loss_on="everything")
    assert "GOOD" in text and "No" in text
    assert "BAD" not in text


@pytest.mark.parametrize("template", ["chatml", "qwen3", "llama3_1", "gptoss"])
def test_an_untrained_last_answer_leaves_nothing_for_the_last_response(tmp_path: Path, template: str) -> None:
    turns = [said("user", "Hi"), said("assistant", "EARLIER"), said("user", "No"), said("assistant", "BAD", weight=0)]
    assert encoded(tmp_path, {"messages": turns}, template, loss_on="last-response")[1].dropped == "no answer"


def test_a_conversation_without_a_trained_answer_is_dropped(tmp_path: Path) -> None:
    turns = [said("user", "Hi"), said("assistant", "BAD", weight=0)]
    assert encoded(tmp_path, {"messages": turns}, "chatml")[1].dropped == "no answer"


@pytest.mark.parametrize(("template", "trimmed"), [("chatml", False), ("llama3_1", True), ("gemma3", True)])
def test_white_space_that_a_template_removes_around_an_answer_is_counted(
    tmp_path: Path, template: str, trimmed: bool
) -> None:
    _, row = encoded(tmp_path, {"messages": [said("user", "Hi"), said("assistant", " Hello.\n")]}, template)
    assert row.trimmed is trimmed
    _, row = encoded(tmp_path, {"messages": [said("user", " Hi "), said("assistant", "Hello.")]}, template)
    assert not row.trimmed


def test_fractional_turn_weight_is_refused(tmp_path: Path) -> None:
    turns = [said("user", "Hi"), said("assistant", "Half", weight=0.5)]
    with pytest.raises(DataError, match=r"turn 2: weight is the number 0.5"):
        trained(tmp_path, {"messages": turns}, "chatml")


def test_merged_trained_and_untrained_answers_are_refused(tmp_path: Path) -> None:
    turns = [said("user", "Hi"), said("assistant", "BAD", weight=0), said("assistant", "GOOD")]
    with pytest.raises(DataError):
        trained(tmp_path, {"messages": turns}, "gemma3")


@pytest.mark.parametrize("template", ["chatml", "qwen3", "gptoss", "glm4moe", "llama3_1", "deepseek_r1_distill"])
@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_the_reasoning_of_an_answer_is_trained(tmp_path: Path, template: str, key: str) -> None:
    turns = [said("user", "0+2?"), said("assistant", "2", **{key: "0 and two"})]
    assert "0 and two" in trained(tmp_path, {"messages": turns}, template)


def test_reasoning_that_a_template_leaves_out_of_earlier_answers_is_counted(tmp_path: Path) -> None:
    thought = [said("assistant", f"<think>\nthought {at}\n</think>\n\n{at}") for at in range(2)]
    turns = [said("user", "0?"), thought[0], said("user", "1?"), thought[1]]
    assert encoded(tmp_path, {"messages": turns}, "glm4moe")[1].loss == "the reasoning of turn 2"
    assert not encoded(tmp_path, {"messages": turns}, "qwen3")[1].loss


def calls(*cities: str, content: str = "") -> Row:
    made = [
        {"id": f"abcdefgh{at}", "type": "function", "function": {"name": "w", "arguments": {"city": city}}}
        for at, city in enumerate(cities)
    ]
    results = [said("tool", "20", tool_call_id=call["id"], name="w") for call in made]
    schema = {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}}
    return {
        "messages": [
            said("user", "Weather?"),
            said("assistant", content, tool_calls=made),
            *results,
            said("assistant", "20 degrees."),
        ],
        "tools": [{"type": "function", "function": {"name": "w", "description": "d", "parameters": schema}}],
    }


@pytest.mark.parametrize("template", ["llama3_1", "gptoss"])
def test_text_before_a_tool_call_that_a_template_drops_is_refused(tmp_path: Path, template: str) -> None:
    row = calls("Rome", content="Let me check.")
    with pytest.raises(DataError, match=r"rows.jsonl:1: the chat template drops the text of turn 2"):
        trained(tmp_path, row, template)
    assert encoded(tmp_path, row, template, skip_bad_rows=True)[1].dropped == "refused"
    assert "Let me check." in trained(tmp_path, row, "qwen3")


def test_a_second_tool_call_that_a_template_drops_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the chat template drops the tool call of turn 2"):
        trained(tmp_path, calls("Rome", "Oslo"), "gptoss")
    assert "Oslo" in trained(tmp_path, calls("Rome", "Oslo"), "qwen3")
