"""Conversations, rows and tokenizers that the data tests share."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from transformers import PreTrainedTokenizerFast

from qlora_tui.data.lengths import Limits
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.row_encoder import Rules
from qlora_tui.data.templates import ChatTemplate
from qlora_tui.starter import MODEL_DIR, TRAIN_DATA

MARKERS = [
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
]  # fmt: skip
_PIECES = [
    "What is the price of the red door?", "42", "a", "\n", "  two spaces ", "Grüße aus Köln", "дом", "数据",
    "👩‍👩‍👧 family", "ends with emoji 🙂", "\n\nleading newlines", "trailing newline\n", "def f(x):\n    return x\n",
    "[bold]markup[/bold]", "### a heading", "{{ not jinja }}", "{% if %}", "\\n escaped", "a\tb", "…", "<b>html</b>",
    "it's 3:45 — really?", "مرحبا", "́combining", "1,000.50 €", "--- rule ---", "x" * 60,
]  # fmt: skip


def conversations(count: int, seed: int = 7) -> list[list[dict[str, Any]]]:
    """Conversations of every shape: with and without system turn, context, many turns, tools, unusual text."""
    random = Random(seed)
    made = []
    for index in range(count):
        turns: list[dict[str, Any]] = []
        if random.random() < 0.3:
            turns.append(_turn("system", _text(random)))
        for _ in range(random.randint(1, 4)):
            context = _text(random) if random.random() < 0.2 else None
            turns.append(_turn("user", _text(random)) | {"context": context})
            if random.random() < 0.1:
                call = {"type": "function", "function": {"name": "look_up", "arguments": {"word": _text(random)}}}
                turns.append(_turn("assistant", "") | {"tool_calls": json.dumps([call])})
                turns.append(_turn("tool", _text(random)))
            turns.append(_turn("assistant", _text(random)))
        if index % 9 == 0:
            turns.append(_turn("user", _text(random)))
        made.append(turns)
    return made


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content, "context": None, "name": None, "tool_calls": None}


def _text(random: Random) -> str:
    return " ".join(random.choices(_PIECES, k=random.randint(1, 4))).strip("\n") or "word"


def columns(messages: list[list[dict[str, Any]]] | None = None, texts: list[str] | None = None) -> dict[str, list[Any]]:
    """A batch in normal form."""
    count = len(messages or texts or [])
    return {
        "messages": messages or [None] * count,
        "text": texts or [None] * count,
        "tools": [None] * count,
        "rejected": [None] * count,
        "origin": [f"rows.jsonl:{line}" for line in range(1, count + 1)],
    }


def ask(question: str, answer: str) -> list[dict[str, Any]]:
    return [_turn("user", question), _turn("assistant", answer)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def chat_rows(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in pairs]


@cache
def starter_tokenizer() -> Any:
    return PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)


@cache
def _sentences() -> list[str]:
    rows = [json.loads(line) for line in TRAIN_DATA.read_text(encoding="utf-8").splitlines()]
    return [turn["content"] for row in rows for turn in row["messages"]][:600] + _PIECES


@cache
def byte_level_tokenizer(*, markers: bool) -> Any:
    """Byte-level BPE that puts <s> before texts, as Llama 3's; with or without the templates' markers as tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", *(MARKERS if markers else [])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@cache
def metaspace_tokenizer() -> Any:
    """BPE that writes spaces as ▁ and puts one before texts, with bytes for unknown characters, as Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
        limit_alphabet=120,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def with_template(template: str | None, tokenizer: Any = None) -> Any:
    changed = copy.copy(tokenizer or byte_level_tokenizer(markers=True))
    changed.chat_template = template
    return changed


def texts(template: ChatTemplate, tokenizer: Any, rows: list[list[dict[str, Any]]]) -> list[tuple[str, str]]:
    """(all text, trained text) of each row."""
    recipe = Recipe(tokenizer, template, Rules(Limits(10**6)))
    decoded = []
    for row in recipe.encoder().encode(columns(rows)):
        ids, labels = row.pieces[0]
        trained = [token for token, label in zip(ids, labels, strict=True) if label != -100]
        decoded.append((tokenizer.decode(ids), tokenizer.decode(trained)))
    return decoded
