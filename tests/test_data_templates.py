"""Which template a run uses, what it writes, and which ones are refused with a reason."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import trl.chat_template_utils as trl_templates
from data_material import (
    CHATML,
    ask,
    byte_level_tokenizer,
    columns,
    metaspace_tokenizer,
    starter_tokenizer,
    texts,
    with_template,
)
from tokenizers import processors

from qlora_tui.config.data import DataSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.config.training import TrainingSpec
from qlora_tui.data.lengths import Limits
from qlora_tui.data.named_templates import NAMED
from qlora_tui.data.recipe import Recipe, recipe_of
from qlora_tui.data.report import refuse_untrainable
from qlora_tui.data.row_encoder import EncodedRow, Rules
from qlora_tui.data.spans import Conversation, has_markers, render_text
from qlora_tui.data.templates import OWN, resolve, stop_token_id
from qlora_tui.errors import DataError, ModelError

EXPECTED = {
    "chatml": (
        "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        "Hello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nCiao<|im_end|>\n"
    ),
    "llama-2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST] Ciao </s>"
    ),
    "llama-3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>"
        "\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nCiao<|eot_id|>"
    ),
    "mistral": "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] Bye [/INST] Ciao</s>",
    "gemma": (
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\nCiao<end_of_turn>\n"
    ),
    "phi": (
        "<s><|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n"
        "<|user|>\nBye<|end|>\n<|assistant|>\nCiao<|end|>\n"
    ),
    "alpaca": (
        "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response: Hello</s>\n\n### Instruction:\nBye\n\n### Response: "
        "Ciao</s>"
    ),
    "guanaco": "<s>Be brief. ### Human: Hi### Assistant: Hello</s>### Human: Bye### Assistant: Ciao</s>",
    "plain": "<s>Be brief.HiHello</s>ByeCiao</s>",
}  # fmt: skip


@pytest.mark.parametrize("name", list(NAMED))
def test_named_templates_write_what_their_models_know(name: str) -> None:
    tokenizer = byte_level_tokenizer(markers=True)
    system = {"role": "system", "content": "Be brief."}
    [(text, trained)] = texts(resolve(name, tokenizer), tokenizer, [[system, *ask("Hi", "Hello"), *ask("Bye", "Ciao")]])
    assert text == EXPECTED[name]
    stop = NAMED[name].stop or "</s>"
    assert trained.replace(" ", "") == f"Hello{stop}Ciao{stop}"


def test_alpaca_has_a_form_with_and_one_without_input() -> None:
    tokenizer = byte_level_tokenizer(markers=True)
    asked = {"role": "user", "content": "Add.", "context": "2 and 3"}
    answer = {"role": "assistant", "content": "5"}
    with_input, without = texts(resolve("alpaca", tokenizer), tokenizer, [[asked, answer], ask("Say hi.", "hi")])
    assert with_input[0] == (
        "<s>Below is an instruction that describes a task, paired with an input that provides further context. Write "
        "a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n2 and 3\n\n"
        "### Response: 5</s>"
    )
    assert without[0] == (
        "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nSay hi.\n\n### Response: hi</s>"
    )
    [(chatml, _)] = texts(resolve("chatml", tokenizer), tokenizer, [[asked, answer]])
    assert "Add.\n\n2 and 3<|im_end|>" in chatml


@pytest.mark.parametrize("name", ["auto", *NAMED])
@pytest.mark.parametrize("tokenizer", [starter_tokenizer(), byte_level_tokenizer(markers=False), metaspace_tokenizer()])
def test_the_saved_template_renders_the_same_and_needs_no_extension(name: str, tokenizer: Any) -> None:
    template = resolve(name, tokenizer)
    one = Conversation([*ask("Hi", "Hello"), *ask("Bye", "Ciao")])
    assert not has_markers(template.portable)
    for prompt in (False, True):
        rendered = [
            render_text(tokenizer, jinja, [one], add_generation_prompt=prompt)
            for jinja in (template.jinja, template.portable)
        ]
        assert rendered[0] == rendered[1]


def test_auto_is_the_models_own_then_chatml_then_plain_words() -> None:
    assert resolve("auto", starter_tokenizer()).name == OWN
    assert resolve("auto", with_template(None)).name == "chatml"
    chosen = resolve("auto", metaspace_tokenizer())
    assert chosen.name == "guanaco"
    assert any("no chat template" in note for note in chosen.notes)


@pytest.mark.parametrize(("name", "stop"), [("chatml", "<|im_end|>"), ("gemma", "<end_of_turn>"), ("alpaca", "</s>")])
def test_the_stop_token_is_the_one_the_template_ends_answers_with(name: str, stop: str) -> None:
    tokenizer = byte_level_tokenizer(markers=True)
    assert stop_token_id(resolve(name, tokenizer), tokenizer) == tokenizer.convert_tokens_to_ids(stop)


@pytest.mark.parametrize("name", ["chatml", "llama-3", "gemma", "phi"])
def test_a_marker_that_is_not_one_token_is_followed_by_the_end_token(name: str) -> None:
    tokenizer = byte_level_tokenizer(markers=False)
    template = resolve(name, tokenizer)
    [(_, trained)] = texts(template, tokenizer, [ask("Hi", "Hello")])
    assert trained == f"Hello{NAMED[name].stop}</s>"
    assert stop_token_id(template, tokenizer) == tokenizer.eos_token_id
    assert any(NAMED[name].stop in note for note in template.notes)


def test_a_template_without_markers_is_masked_by_its_own_prefixes() -> None:
    tokenizer = with_template(CHATML)
    own = texts(resolve("auto", tokenizer), tokenizer, [ask("Hi", "Hello") + ask("Bye", "Ciao\n\nand more")])
    assert own[0][1] == "Hello<|im_end|>Ciao\n\nand more<|im_end|>"


def test_a_template_that_rewrites_earlier_turns_is_refused_except_for_the_last_response() -> None:
    forgetful = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{{ m['content'] if loop.last or m['role'] == 'user' else '...' }}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer = with_template(forgetful)
    template = resolve("auto", tokenizer)
    rows = columns([ask("Hi", "Hello") + ask("Bye", "Ciao")])
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*turn 2.* cannot be told") as refused:
        Recipe(tokenizer, template, Rules(Limits(100))).encoder().encode(rows)
    assert "data.template" in refused.value.hint
    assert "last-response" in refused.value.hint
    row = Recipe(tokenizer, template, Rules(Limits(100), "last-response")).encoder().encode(rows)[0]
    _, labels = row.pieces[0]
    assert tokenizer.decode([label for label in labels if label != -100]) == "Ciao<|im_end|>"


def test_a_template_that_marks_the_wrong_text_is_refused() -> None:
    wrong = CHATML.replace("{{ '<|im_start|>'", "{% generation %}{{ '<|im_start|>'").replace(
        "{% endfor %}", "{% endgeneration %}{% endfor %}"
    )
    with pytest.raises(DataError, match="does not mark its answers"):
        resolve("auto", with_template(wrong))


def test_a_broken_template_is_refused_with_its_reason() -> None:
    with pytest.raises(DataError, match="cannot render a simple conversation: no thanks") as refused:
        resolve("auto", with_template("{{ raise_exception('no thanks') }}"))
    assert "data.template" in refused.value.hint


def test_a_template_that_leaves_answers_open_gets_the_end_token_at_the_end_of_a_row() -> None:
    tokenizer = with_template(
        "{% for m in messages %}{{ ('' if loop.first else '\n') + m['role'] + ': ' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\nassistant: ' }}{% endif %}"
    )
    template = resolve("auto", tokenizer)
    [(text, trained)] = texts(template, tokenizer, [ask("Hi", "Hello")])
    assert text == "user: Hi\nassistant: Hello</s>"
    assert trained.strip() == "Hello</s>"
    assert any("open" in note for note in template.notes)


def test_a_tokenizer_without_an_end_token_is_refused_where_one_is_needed() -> None:
    tokenizer = copy.deepcopy(byte_level_tokenizer(markers=True))
    tokenizer.eos_token = None
    assert resolve("chatml", tokenizer).stops
    with pytest.raises(ModelError, match="no end-of-text token"):
        resolve("alpaca", tokenizer)


_WITH_IMAGES = {"idefics3_training.jinja", "llava_next_training.jinja", "smolvlm_training.jinja"}
"""Their turns are lists of parts, not text."""
_FOLDER = Path(trl_templates.__file__).parent / "chat_templates"
FAMILIES = sorted({path.name for path in _FOLDER.glob("*_training.jinja")} - _WITH_IMAGES)


@pytest.mark.parametrize("variant", FAMILIES)
def test_the_chat_templates_of_model_families_can_be_trained_with(variant: str) -> None:
    """Their own templates have no generation blocks; those of TRL's variants are used and mark the answers only."""
    original = (_FOLDER / variant.replace("_training", "")).read_text()
    tokenizer = with_template(original)
    template = resolve("auto", tokenizer)
    rows = [ask("How are you?", "Very well"), ask("Hi", "Hello there") + ask("Bye", "Ciao bello")]
    for (_, trained), answers in zip(
        texts(template, tokenizer, rows), [["Very well"], ["Hello there", "Ciao bello"]], strict=True
    ):
        assert all(answer in trained for answer in answers)
        assert not any(asked in trained for asked in ("How are you?", "Hi", "Bye"))


@pytest.mark.parametrize("variant", FAMILIES)
def test_prompts_match_the_training_format(variant: str) -> None:
    """Each prompt of the saved template is a token prefix of a training row."""
    tokenizer = with_template((_FOLDER / variant.replace("_training", "")).read_text())
    template = resolve("auto", tokenizer)
    tokenizer.chat_template = template.portable
    rows = [ask("How are you?", "Very well"), ask("Hi", "Hello there") + ask("Bye", "Ciao bello")]
    for turns, row in zip(
        rows, Recipe(tokenizer, template, Rules(Limits(4000))).encoder().encode(columns(rows)), strict=True
    ):
        asked = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        ids, _ = row.pieces[0]
        assert ids[: len(asked)] == asked
        assert "Very well" in tokenizer.decode(ids[len(asked) :]) or "Ciao bello" in tokenizer.decode(ids[len(asked) :])


@pytest.mark.parametrize("family", ["llama3_1", "gemma3", "qwen2_5", "phi3", "glm4moe"])
def test_template_with_matching_prompts_is_saved_unchanged(family: str) -> None:
    original = (_FOLDER / f"{family}.jinja").read_text()
    assert resolve("auto", with_template(original)).portable == original


def test_template_with_mismatched_prompts_is_refused() -> None:
    counting = (
        "{{ messages|length }}{% for m in messages %}{{ '\n' + m['role'] + ': ' }}{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '\nassistant: ' }}{% endif %}"
    )
    with pytest.raises(DataError, match="do not match its training format") as refused:
        resolve("auto", with_template(counting))
    assert (
        "prompt '1\\nuser: q1q\\nassistant: ', training text '2\\nuser: q1q\\nassistant: a1a</s>'"
        in refused.value.message
    )
    assert "data.template" in refused.value.hint


def test_gemma_style_templates_get_the_system_turn_in_front_of_the_question() -> None:
    tokenizer = with_template((_FOLDER / "gemma.jinja").read_text())
    template = resolve("auto", tokenizer)
    assert not template.system
    system = {"role": "system", "content": "Be brief."}
    [(text, trained)] = texts(template, tokenizer, [[system, *ask("Hi", "Hello")]])
    assert "Be brief.\n\nHi" in text
    assert trained.strip() == "Hello<end_of_turn>"


def test_tools_are_kept_as_text_where_the_template_has_no_place_for_them() -> None:
    tokenizer = byte_level_tokenizer(markers=True)
    call = '[{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]'
    turns = [
        {"role": "user", "content": "2+3?"},
        {"role": "assistant", "content": "", "tool_calls": call},
        {"role": "tool", "content": "5", "name": "add"},
        {"role": "assistant", "content": "Five"},
    ]
    batch = columns([turns]) | {"tools": ['[{"type": "function", "function": {"name": "add"}}]']}
    recipe = Recipe(tokenizer, resolve("chatml", tokenizer), Rules(Limits(10**6)))
    ids, labels = recipe.encoder().encode(batch)[0].pieces[0]
    text = tokenizer.decode(ids)
    trained = tokenizer.decode([label for label in labels if label != -100])
    assert '<tools>\n{"type": "function", "function": {"name": "add"}}\n</tools>' in text
    assert "<tool_response>\n5\n</tool_response>" in text
    assert trained == '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|im_end|>Five<|im_end|>'


def test_rows_formatted_already_are_refused_with_the_fix() -> None:
    tokenizer = starter_tokenizer()
    recipe = Recipe(tokenizer, resolve("auto", tokenizer), Rules(Limits(4000)))
    doubled = ask("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Hello<|im_end|>")
    with pytest.raises(DataError, match=r"already hold .*'<\|im_start\|>' in rows.jsonl:1") as refused:
        _judge(recipe, columns([doubled] * 3))
    assert refused.value.hint
    with pytest.raises(DataError, match="nothing says which part is the answer") as refused:
        _judge(recipe, columns(texts=["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>"]))
    assert "everything" in refused.value.hint


def test_guanaco_text_is_not_taken_for_a_mistake() -> None:
    tokenizer = starter_tokenizer()
    recipe = Recipe(tokenizer, resolve("auto", tokenizer), Rules(Limits(4000)))
    _judge(recipe, columns(texts=["### Human: Hi### Assistant: Hello"]))


def test_conversations_cannot_move_the_mask_with_the_marks_of_the_renderer() -> None:
    tokenizer = starter_tokenizer()
    template = resolve("chatml", tokenizer)
    sly = "\ufdd0all of this\ufdd1"
    [(_, trained)] = texts(template, tokenizer, [ask(f"Hi {sly}", "Hello")])
    assert trained == "Hello<|im_end|>"


def _judge(recipe: Recipe, batch: dict[str, list[Any]]) -> list[EncodedRow]:
    encoder = recipe.encoder()
    encoder(batch)
    refuse_untrainable(encoder.tally, recipe.template, recipe.rules)
    return []


@pytest.mark.parametrize("name", ["alpaca", "guanaco", "plain"])
def test_the_original_recipe_begins_every_row_with_bos(name: str) -> None:
    """qlora.py does; the tokenizers of Pythia and others have a bos token and do not put it before texts."""
    tokenizer = copy.deepcopy(byte_level_tokenizer(markers=False))
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    assert tokenizer.bos_token_id not in tokenizer("a")["input_ids"]
    for recipe, begins in (("lean", False), ("original", True)):
        config = RunConfig(data=DataSpec(template=name), training=TrainingSpec(recipe=recipe, loss_on="everything"))
        made = recipe_of(config, tokenizer)
        [row] = made.encoder().encode(columns([ask("Hi", "Hello")]))
        ids, labels = row.pieces[0]
        assert (ids[0] == tokenizer.bos_token_id) is begins
        assert labels[0] == -100 and ids.count(tokenizer.bos_token_id) == int(begins)
        # Chat renders with the same text.
        asked = render_text(tokenizer, made.template.portable, [Conversation(ask("Hi", "Hello")[:1])])[0]
        assert asked.startswith(tokenizer.bos_token) is begins
        text = {"messages": [None], "text": ["Once upon a time"], "tools": [None], "origin": ["a:1"]}
        ids, labels = made.encoder().encode(text)[0].pieces[0]
        assert (ids[0] == tokenizer.bos_token_id) is begins and labels[0] == -100
