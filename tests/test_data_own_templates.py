"""A model's own template: where open answers end, opening lines of the assistant, and the dates it writes."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

import pytest
from data_material import CHATML, ask, columns, starter_tokenizer, texts, with_template
from transformers.utils import chat_template_utils

from qlora_tui.data.lengths import Limits
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.row_encoder import Rules
from qlora_tui.data.templates import resolve
from qlora_tui.errors import DataError

LINES = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("rows", "trained"),
    [
        (ask("Hi", "Hello"), "Hello</s>"),
        (ask("Hi", "Hello") + ask("Bye", "Ciao"), "HelloCiao</s>"),
        (ask("Hi", "Hello") + ask("Bye", ""), "Hello</s>"),
        (ask("Hi", "Hello") + ask("Bye", "Ciao")[:1], "Hello"),
    ],
)
def test_an_open_answer_is_ended_where_it_ends_and_not_after_the_line(rows: list[dict[str, Any]], trained: str) -> None:
    tokenizer = with_template(LINES)
    [(text, found)] = texts(resolve("auto", tokenizer), tokenizer, [rows])
    assert found.replace(" ", "") == trained
    assert "Hello</s>\n" in text or len(rows) > 2


def test_the_end_of_an_empty_answer_follows_its_prompt_directly() -> None:
    tokenizer = with_template(LINES)
    [(text, _)] = texts(resolve("auto", tokenizer), tokenizer, [ask("Hi", "")])
    assert text.endswith("</s>\n")


def test_an_opening_answer_without_a_token_before_it_is_a_reported_loss() -> None:
    tokenizer = starter_tokenizer()
    encoder = Recipe(tokenizer, resolve("plain", tokenizer), Rules(Limits(100))).encoder()
    opening, usual = encoder.encode(columns([[{"role": "assistant", "content": "Welcome!"}], ask("Hi", "Hello")]))
    assert opening.loss == "the first token of the first answer"
    assert not usual.loss


def test_an_opening_line_of_the_assistant_is_trained_as_its_answers_are() -> None:
    opening = {"role": "assistant", "content": "Welcome!"}
    tokenizer = with_template(CHATML)
    template = resolve("auto", tokenizer)
    rows = [[opening, *ask("Hi", "Hello")], [opening]]
    assert [trained for _, trained in texts(template, tokenizer, rows)] == [
        "Welcome!<|im_end|>Hello<|im_end|>",
        "Welcome!<|im_end|>",
    ]


def test_an_opening_line_that_cannot_be_told_from_its_header_is_refused() -> None:
    # Writes an opening line of the assistant in a way of its own, so that nothing shows where the header ends.
    tokenizer = with_template(
        "{% if messages[0]['role'] == 'assistant' %}{{ '[' }}{% endif %}"
        + CHATML.replace(
            "'<|im_start|>' + m['role'] + '\n'",
            "('@' if m['role'] == 'assistant' and loop.first else '<|im_start|>' + m['role'] + '\n')",
        )
    )
    encoder = Recipe(tokenizer, resolve("auto", tokenizer), Rules(Limits(100))).encoder()
    with pytest.raises(DataError, match=r"rows.jsonl:1: .*opening line") as refused:
        encoder.encode(columns([[{"role": "assistant", "content": "Welcome!"}, *ask("Hi", "Hello")]]))
    assert "data.template" in refused.value.hint


def test_a_template_that_writes_the_date_gives_the_same_tokens_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Tomorrow:
            return cls(2031, 3, 4, tzinfo=tz)

    dated = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}" + CHATML
    tokenizer = with_template(dated)
    template = resolve("auto", tokenizer)
    [(today, _)] = texts(template, tokenizer, [ask("Hi", "Hello")])
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    [(tomorrow, _)] = texts(template, tokenizer, [ask("Hi", "Hello")])
    assert today == tomorrow
    assert today.startswith("Today: 26 Jul 2024\n")
    assert any("26 Jul 2024" in note for note in template.notes)
    tokenizer.chat_template = template.portable
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert today.startswith(asked)


def test_a_date_whose_form_cannot_be_read_is_refused() -> None:
    with pytest.raises(DataError, match="date") as refused:
        resolve("auto", with_template("{% set form = '%Y' %}{{ strftime_now(form) }}" + CHATML))
    assert "data.template" in refused.value.hint


def test_all_of_a_text_can_be_trained_where_its_answers_cannot_be_told() -> None:
    forgetful = CHATML.replace("m['content']", "(m['content'] if loop.last or m['role'] == 'user' else '...')")
    tokenizer = with_template(forgetful)
    recipe = Recipe(tokenizer, resolve("auto", tokenizer), Rules(Limits(100), "everything"))
    [row] = recipe.encoder().encode(columns([ask("Hi", "Hello") + ask("Bye", "Ciao")]))
    ids, labels = row.pieces[0]
    assert labels == [-100, *ids[1:]]
