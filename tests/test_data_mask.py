"""What is trained: the preview shows exactly the labels that reach the model, and these are the answers."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from data_material import ask, byte_level_tokenizer, columns, conversations, metaspace_tokenizer, starter_tokenizer
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

from qlora_tui.data.lengths import Limits
from qlora_tui.data.named_templates import NAMED
from qlora_tui.data.preview import PreviewRow, preview
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.row_encoder import Rules
from qlora_tui.data.spans import Conversation, render_text
from qlora_tui.data.templates import resolve
from qlora_tui.data.turn_fitting import fit_turns

TEMPLATES = ["auto", *NAMED]
ROWS = columns(conversations(200))
UNLIMITED = Limits(max_tokens=10**9)


def recipe(name: str, tokenizer: Any, **rules: Any) -> Recipe:
    return Recipe(tokenizer, resolve(name, tokenizer), Rules(**({"limits": UNLIMITED} | rules)))


def shown(rows: list[PreviewRow]) -> Counter[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """(ids, trained) of each previewed training row."""
    return Counter(
        (tuple(token.id for token in piece), tuple(token.trained for token in piece))
        for row in rows
        for piece in row.pieces
    )


def trainer(dataset: Dataset, tokenizer: Any, folder: Path, **options: Any) -> SFTTrainer:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    config = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, per_device_train_batch_size=8, report_to=[], **options
    )
    return SFTTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)


def fed(batches: Any) -> Counter[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """(ids, trained) of each row in the batches of a padded data loader."""
    rows: Counter[tuple[tuple[int, ...], tuple[bool, ...]]] = Counter()
    for batch in batches:
        for ids, labels, mask in zip(
            batch["input_ids"].tolist(), batch["labels"].tolist(), batch["attention_mask"].tolist(), strict=True
        ):
            length = sum(mask)
            assert all(label in (-100, ids[at]) for at, label in enumerate(labels)), "a label is another token"
            assert set(labels[length:]) <= {-100}, "padding is trained"
            rows[tuple(ids[:length]), tuple(label != -100 for label in labels[:length])] += 1
    return rows


@pytest.mark.parametrize("name", TEMPLATES)
def test_preview_shows_the_labels_of_the_batches(name: str, tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer(markers=True) if name != "auto" else starter_tokenizer()
    made = recipe(name, tokenizer)
    dataset = Dataset.from_dict(made.encoder()(ROWS))
    loader = trainer(dataset, tokenizer, tmp_path, max_length=None).get_train_dataloader()
    rows = fed(loader)
    assert rows == shown(preview(made, ROWS))
    assert rows.total() == 200


def test_preview_shows_the_labels_of_packed_batches(tmp_path: Path) -> None:
    tokenizer = starter_tokenizer()
    made = recipe("auto", tokenizer, limits=Limits(max_tokens=256))
    dataset = Dataset.from_dict(made.encoder()(ROWS))
    options = {"packing": True, "packing_strategy": "bfd", "max_length": 256}
    rows: Counter[tuple[tuple[int, ...], tuple[bool, ...]]] = Counter()
    for batch in trainer(dataset, tokenizer, tmp_path, **options).get_train_dataloader():
        ids, labels, positions = (batch[name][0].tolist() for name in ("input_ids", "labels", "position_ids"))
        starts = [at for at, position in enumerate(positions) if position == 0] + [len(ids)]
        for start, end in pairwise(starts):
            rows[tuple(ids[start:end]), tuple(label != -100 for label in labels[start:end])] += 1
    assert rows == shown(preview(made, ROWS))


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "tokenizer",
    [
        starter_tokenizer(),
        byte_level_tokenizer(markers=True),
        byte_level_tokenizer(markers=False),
        metaspace_tokenizer(),
    ],
    ids=["starter", "markers", "no-markers", "metaspace"],
)
def test_what_is_trained_is_each_answer_and_its_end(name: str, tokenizer: Any) -> None:
    made = recipe(name, tokenizer)
    for row, messages in zip(made.encoder().encode(ROWS), ROWS["messages"], strict=True):
        ids, labels = row.pieces[0]
        turns = fit_turns(made.template, _stored(messages))
        answers = [turn["content"].strip() for turn in turns if turn["role"] == "assistant"]
        runs = [tokenizer.decode(run) for run in _runs(ids, labels)]
        assert len(runs) == len(answers)
        for run, answer in zip(runs, answers, strict=True):
            text, _, after = run.strip().partition(answer)
            assert (text, bool(after)) == ("", True), f"{run!r} is not {answer!r} and an end"
            assert after.strip() in {"</s>", "<|im_end|>"} | {
                end + stop for end in ("", NAMED.get(name, NAMED["chatml"]).stop) for stop in ("", "</s>", "<|im_end|>")
            }
        assert labels[0] == -100


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "tokenizer", [starter_tokenizer(), byte_level_tokenizer(markers=False), metaspace_tokenizer()],
    ids=["starter", "no-markers", "metaspace"],
)  # fmt: skip
def test_prompts_have_the_tokens_they_have_when_the_model_is_asked(name: str, tokenizer: Any) -> None:
    made = recipe(name, tokenizer, loss_on="last-response")
    for row, messages in zip(made.encoder().encode(ROWS), ROWS["messages"], strict=True):
        turns = fit_turns(made.template, _stored(messages))
        answers = [at for at, turn in enumerate(turns) if turn["role"] == "assistant"]
        if name in ("alpaca", "plain") and len(answers) > 1:
            continue  # Written again as history, an earlier answer may join with the space or letter before it.
        last = answers[-1]
        text = render_text(tokenizer, made.template.portable, [Conversation(turns[:last])], add_generation_prompt=True)[
            0
        ]
        asked = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids, labels = row.pieces[0]
        answer_at = next(at for at, label in enumerate(labels) if label != -100)
        assert ids[:answer_at] == asked


@pytest.mark.parametrize("name", ["alpaca", "plain"])
def test_a_later_prompt_has_the_tokens_it_has_when_the_model_is_asked(name: str) -> None:
    # This vocabulary writes a space again after each end token, and these templates are cut at the answers.
    tokenizer = metaspace_tokenizer()
    made = recipe(name, tokenizer)
    turns = ask("one", "first") + ask("two", "second")
    ids, labels = made.encoder().encode(columns([turns]))[0].pieces[0]
    asked = render_text(
        tokenizer, made.template.portable, [Conversation(_stored(turns)[:3])], add_generation_prompt=True
    )
    later = tokenizer(asked[0], add_special_tokens=False)["input_ids"]
    later = later[later.index(tokenizer.eos_token_id) :]
    answer_at = len(ids) - len(_runs(ids, labels)[-1])
    assert ids[answer_at - len(later) : answer_at] == later


def test_an_answer_that_ends_in_an_emoji_is_trained_to_its_last_byte() -> None:
    tokenizer = byte_level_tokenizer(markers=True)
    ids, labels = recipe("guanaco", tokenizer).encoder().encode(columns([ask("hello", "bye 🦩")]))[0].pieces[0]
    trained = tokenizer.decode([label for label in labels if label != -100])
    assert trained == " bye 🦩</s>"
    assert len(ids) > len(tokenizer("hello bye")["input_ids"])


def test_last_response_trains_only_the_last_answer() -> None:
    tokenizer = starter_tokenizer()
    rows = columns([ask("one", "first") + ask("two", "second")])
    ids, labels = recipe("chatml", tokenizer, loss_on="last-response").encoder().encode(rows)[0].pieces[0]
    assert [tokenizer.decode(run) for run in _runs(ids, labels)] == ["second<|im_end|>"]


def test_everything_trains_all_but_the_first_token() -> None:
    rows = columns([ask("one", "first")])
    ids, labels = recipe("chatml", starter_tokenizer(), loss_on="everything").encoder().encode(rows)[0].pieces[0]
    assert labels == [-100, *ids[1:]]


@pytest.mark.parametrize("tokenizer", [starter_tokenizer(), byte_level_tokenizer(markers=True), metaspace_tokenizer()])
def test_finished_text_is_trained_whole_and_ends_once(tokenizer: Any) -> None:
    text = "### Human: Hi### Assistant: Hello"
    rows = columns(texts=[text, text + tokenizer.eos_token])
    first, second = (row.pieces[0] for row in recipe("auto", tokenizer).encoder().encode(rows))
    assert first == second
    ids, labels = first
    assert labels == [-100, *ids[1:]]
    assert ids[-1] == tokenizer.eos_token_id != ids[-2]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def _stored(messages: list[dict[str, Any]]) -> list[Any]:
    import json

    kept = [{key: value for key, value in turn.items() if value is not None} for turn in messages]
    return [turn | ({"tool_calls": json.loads(turn["tool_calls"])} if "tool_calls" in turn else {}) for turn in kept]


def _runs(ids: list[int], labels: list[int]) -> list[list[int]]:
    """The stretches of trained tokens."""
    runs: list[list[int]] = []
    before = -100
    for token_id, label in zip(ids, labels, strict=True):
        if label != -100:
            if before == -100:
                runs.append([])
            runs[-1].append(token_id)
        before = label
    return runs
