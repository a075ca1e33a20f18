"""Texts too long to be tokenized at once: the same tokens, in bounded memory, and a limit that is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from data_material import byte_level_tokenizer, columns, conversations, metaspace_tokenizer, starter_tokenizer

from qlora_tui.data import long_text
from qlora_tui.data.lengths import Limits
from qlora_tui.data.long_text import stretches
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.row_encoder import Rules
from qlora_tui.data.templates import resolve

TOKENIZERS = [starter_tokenizer(), byte_level_tokenizer(markers=False), metaspace_tokenizer()]
ROWS = columns(conversations(200, seed=11))
TEXTS = columns(texts=["\n".join(turn["content"] for turn in turns) for turns in ROWS["messages"]])


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["starter", "byte-level", "metaspace"])
@pytest.mark.parametrize("whole_characters", [1, 20, 90])
@pytest.mark.parametrize("rows", [ROWS, TEXTS], ids=["turns", "text"])
def test_text_in_stretches_has_the_tokens_of_the_whole(
    rows: dict[str, list[Any]], whole_characters: int, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(tokenizer, resolve("auto", tokenizer), Rules(Limits(max_tokens=10**9)))
    whole = recipe.encoder().encode(rows)
    monkeypatch.setattr(long_text, "WHOLE_CHARACTERS", whole_characters)
    assert recipe.encoder().encode(rows) == whole


def test_long_text_is_cut_between_words_and_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_text, "WHOLE_CHARACTERS", 50)
    random = Random(5)
    for words in (["door", "price", "of", "the"], ["数据", "дом"]):
        text = "\n".join(" ".join(random.choices(words, k=9)) for _ in range(60))
        cut = list(stretches(starter_tokenizer(), text))
        assert "".join(cut) == text
        assert max(map(len, cut)) < 150


def test_text_without_a_border_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_text, "WHOLE_CHARACTERS", 50)
    assert list(stretches(starter_tokenizer(), "x" * 500)) == ["x" * 500]


@pytest.mark.long
def test_a_row_of_ten_megabytes_takes_little_memory_to_tokenize(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from data_material import columns, ask, starter_tokenizer\n"
        "from test_data_long import Limits, Recipe, Rules, resolve\n"
        "tokenizer = starter_tokenizer()\n"
        "encoder = Recipe(tokenizer, resolve('auto', tokenizer), Rules(Limits(1024))).encoder()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "row = encoder.encode(columns([ask('hi', 'the price of the red door is 42\\n' * 320_000)]))[0]\n"
        "print(row.full_tokens, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    tokens, grown_kib = map(int, done.stdout.split())
    assert tokens > 2_000_000
    assert grown_kib < 700 << 10
