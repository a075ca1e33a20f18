"""Untrusted chat templates and tokenizers: hostile ones are stopped, damaged ones raise ModelError."""

import copy
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_material import CHATML, columns
from transformers import AutoModelForCausalLM

from qlora_tui import limits
from qlora_tui.data import template_environment
from qlora_tui.data.lengths import Limits
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.row_encoder import Rules
from qlora_tui.data.templates import resolve
from qlora_tui.engine import foreign_tokenizer, loading
from qlora_tui.engine.prompts import Prompts
from qlora_tui.errors import DataError, ExitCode, ModelError
from qlora_tui.starter import MODEL_DIR

ASKED = [{"role": "user", "content": "Hi"}]
ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}"
    + "{% endfor %}{% endfor %}"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the starter model that tests can damage."""
    folder = tmp_path / "model"
    shutil.copytree(MODEL_DIR, folder)
    return folder


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_environment, "CPU_S", 0.5)
    monkeypatch.setattr(template_environment, "MEMORY_BYTES", 256 << 20)
    monkeypatch.setattr(template_environment, "LONGEST_TEXT_CHARACTERS", 1 << 20)
    monkeypatch.setattr(limits, "POLL_S", 0.01)


def with_template(folder: Path, template: str) -> Any:
    (folder / "chat_template.jinja").write_text(template)
    return foreign_tokenizer.load(folder, name="a-model")


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = json.loads((folder / name).read_text())
    changed = change(content)
    (folder / name).write_text(json.dumps(content if changed is None else changed))
    return folder


def doubling(start: str, change: str) -> str:
    return (
        "{% set ns = namespace(x=" + start + ") %}{% for a in range(99) %}{% set ns.x = " + change + " %}{% endfor %}"
    )


HOSTILE_TEMPLATES = {
    "endless loops": (ENDLESS, "CPU time"),
    "20 GB of output": (
        "{% set x = 'a' * 1000000 %}{% for a in range(20000) %}{{ x }}{% endfor %}",
        "memory|characters",
    ),
    "small pieces": ("{% for a in range(99999) %}{{ 'abcdefgh' * 8 }}{% endfor %}", "characters"),
    "a huge text": ("{{ 'a' * 20000000000 }}", "memory"),
    "a huge pad": ("{{ 'a'.ljust(20000000000) }}", "memory"),
    "a huge format": ("{{ '%20000000000d' % 1 }}", "memory"),
    "a huge list": ("{{ ([0] * 3000000000) | length }}", "memory"),
    "a doubling text": (doubling("'a'", "ns.x + ns.x"), "memory|CPU time"),
    "a huge power": ("{{ 9 ** (9 ** 9) }}", "integers"),
    "a squaring integer": (doubling("3", "ns.x * ns.x"), "integers"),
    "an endless macro": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recurses without end"),
    "deep nesting": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested"),
    "a division by zero": ("{{ 1 // 0 }}", "ZeroDivisionError"),
    "a missing value": ("{{ messages[99999999].content.x.y }}", "undefined|has no"),
    "a lone surrogate": ("{{ '\\ud800' }}", r"lone surrogate \(U\+D800\) at character 1"),
    "an include": ("{% include 'x' %}", "loader"),
}


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("name", HOSTILE_TEMPLATES)
def test_a_hostile_template_is_stopped(model: Path, name: str) -> None:
    template, reason = HOSTILE_TEMPLATES[name]
    tokenizer = with_template(model, template)
    with pytest.raises(ModelError, match=f"chat template.*({reason})"):
        Prompts.of(tokenizer).ids(ASKED)
    with pytest.raises(DataError, match=f"chat template.*({reason})"):
        resolve("auto", tokenizer)
    # The process works on: its limits are as they were.
    assert Prompts.of(with_template(model, CHATML)).ids(ASKED)
    assert len("a" * (600 << 20)) == 600 << 20


@pytest.mark.usefixtures("small_limits")
def test_template_that_hangs_names_the_row_and_is_not_retried(model: Path) -> None:
    tokenizer = with_template(model, "{% if messages[0].content == 'hang' %}" + ENDLESS + "{% endif %}" + CHATML)
    rules = Rules(Limits(100), skip_bad_rows=True)
    rows = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}] for text in ("Hi", *["hang"] * 50)
    ]
    with pytest.raises(ModelError, match=r"rows.jsonl:2: the chat template was stopped: it took more than"):
        Recipe(tokenizer, resolve("auto", tokenizer), rules).encoder().encode(columns(rows))


def test_limited_templates_render_as_transformers_does(model: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    ours, plain = foreign_tokenizer.load(model, name="a-model"), PreTrainedTokenizerFast.from_pretrained(model)
    dialogue = [*ASKED, {"role": "assistant", "content": "5 % 3 is 2"}]
    assert ours.apply_chat_template(dialogue) == plain.apply_chat_template(dialogue)
    texts = ["Grüße aus Köln", "a  b\n\nc 🙂"]
    assert ours(texts)["input_ids"] == plain(texts)["input_ids"]
    assert ours.decode(ours(texts[1])["input_ids"]) == plain.decode(plain(texts[1])["input_ids"])
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert twin(texts)["input_ids"] == ours(texts)["input_ids"]


def test_a_limited_tokenizer_is_saved_as_it_was(model: Path, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    foreign_tokenizer.load(model, name="a-model").save_pretrained(tmp_path / "ours")
    PreTrainedTokenizerFast.from_pretrained(model).save_pretrained(tmp_path / "plain")
    for path in (tmp_path / "plain").iterdir():
        assert (tmp_path / "ours" / path.name).read_bytes() == path.read_bytes(), path.name


def slow_pattern(content: dict[str, Any]) -> None:
    """Tries nearly as often as the regex engine allows, at every character."""
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(a|aa)+$"}, "content": "c"}


def exploding(content: dict[str, Any]) -> None:
    tenfold = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    content["normalizer"] = {"type": "Sequence", "normalizers": [tenfold] * 10}


def panicking(content: dict[str, Any]) -> None:
    content["pre_tokenizer"] = {
        "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False
    }  # fmt: skip


def slow_decoder(content: dict[str, Any]) -> None:
    again = {"type": "Replace", "pattern": {"Regex": "(a|aa)+$"}, "content": "c"}
    content["decoder"] = {"type": "Sequence", "decoders": [content["decoder"], {"type": "Fuse"}, again]}


USE = """
import sys
from tokenizers import Tokenizer
from qlora_tui import limits
from qlora_tui.engine import foreign_tokenizer
from qlora_tui.errors import QloraError
limits.POLL_S = 0.01
limits._GRACE_S = 0.2
foreign_tokenizer._ENCODE_CPU_S = 1.0
foreign_tokenizer._MEMORY_BYTES = 256 << 20
tokenizer = foreign_tokenizer.LimitedBackend(Tokenizer.from_file(sys.argv[1]), "a-model")
try:
    if sys.argv[2] == "decode":
        tokenizer.decode(([tokenizer.token_to_id("a")] * 28 + [tokenizer.token_to_id("!")]) * 1000)
    else:
        tokenizer.encode_batch([("a" * 28 + "!") * 1000])
except QloraError as error:
    limits._say_last_words(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("spoil", "action", "reason"),
    [
        (slow_pattern, "encode", "CPU time"),
        (exploding, "encode", "of memory"),
        (panicking, "encode", "retry-limit"),
        (slow_decoder, "decode", "CPU time"),
    ],
)
def test_hostile_tokenizer_ends_the_process_with_a_reason(
    model: Path, spoil: Callable[[dict[str, Any]], None], action: str, reason: str
) -> None:
    path = edited(model, "tokenizer.json", spoil) / "tokenizer.json"
    done = subprocess.run([sys.executable, "-c", USE, str(path), action], capture_output=True, text=True)
    assert done.returncode == ExitCode.MODEL, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "the tokenizer of a-model cannot" in errors[0] and reason in errors[0]


def _edit(name: str, **values: Any) -> Callable[[Path], object]:
    return lambda folder: edited(folder, name, lambda content: content.update(values))


def _write(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _replace_by_folder(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


UNKNOWN_TOKEN = {"type": "WordLevel", "vocab": {"b": 0}, "unk_token": "[UNK]"}
UNKNOWN_SPECIAL = {
    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [],
    "special_tokens": {},
}  # fmt: skip
FIXED = {
    "strategy": {"Fixed": 10**10}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
    "pad_token": "<|pad|>",
}  # fmt: skip
FAR_SPECIAL = {
    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [],
    "special_tokens": {"x": {"id": "x", "ids": [10**9], "tokens": ["x"]}},
}  # fmt: skip


def _add_token(number: int, content: str) -> Callable[[Path], object]:
    token = {"id": number, "content": content, "special": True}
    token |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return lambda folder: edited(folder, "tokenizer.json", lambda values: values["added_tokens"].append(token))


def _replace_by_pipe(name: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return replace


DAMAGED = {
    "fixed padding": (_edit("tokenizer.json", padding=FIXED), "padding.strategy.Fixed is 10,000,000,000"),
    "multiple": (
        _edit("tokenizer.json", padding=FIXED | {"strategy": "BatchLongest", "pad_to_multiple_of": 10**10}),
        "padding.pad_to_multiple_of is 10,000,000,000",
    ),
    "a long added token": (_add_token(5000, "ab" * 10**6), r"added_tokens\[\d+\] has 2,000,000 characters"),
    "a far added token": (_add_token(10**9, "x"), r"added_tokens\[\d+\] has id 1,000,000,000"),
    "a far special token": (_edit("tokenizer.json", post_processor=FAR_SPECIAL), r"special_tokens\[0\] has id"),
    "template: a pipe": (_replace_by_pipe("chat_template.jinja"), "chat_template.jinja cannot be read: it is a named"),
    "settings: a pipe": (_replace_by_pipe("tokenizer_config.json"), "tokenizer_config.json cannot be read: it is a"),
    "empty": (_write("tokenizer.json", ""), "tokenizer.json cannot be read"),
    "html": (_write("tokenizer.json", "<html>"), "tokenizer.json cannot be read"),
    "not UTF-8": (_write("tokenizer.json", b'{"a": "\xff"}'), "tokenizer.json cannot be read"),
    "deep": (_write("tokenizer.json", "[" * 100_000), "tokenizer.json cannot be read"),
    "null": (_write("tokenizer.json", "null"), "tokenizer.json is not a JSON object"),
    "a list": (_write("tokenizer.json", "[]"), "tokenizer.json is not a JSON object"),
    "a folder": (_replace_by_folder, "the tokenizer of a-model cannot"),
    "no model": (_edit("tokenizer.json", model=None), "the tokenizer of a-model cannot"),
    "tokens are texts": (_edit("tokenizer.json", added_tokens=["a"]), "the tokenizer of a-model cannot"),
    "unknown token": (_edit("tokenizer.json", model=UNKNOWN_TOKEN, added_tokens=[]), "the tokenizer of a-model cannot"),
    "unknown special token": (_edit("tokenizer.json", post_processor=UNKNOWN_SPECIAL), "no entry found"),
    "settings: null": (_write("tokenizer_config.json", "null"), "tokenizer_config.json is not a JSON object"),
    "settings: deep": (_write("tokenizer_config.json", "[" * 100_000), "tokenizer_config.json cannot be read"),
    "class: a list": (_edit("tokenizer_config.json", tokenizer_class=[]), "the tokenizer of a-model cannot"),
    "class: a number": (_edit("tokenizer_config.json", tokenizer_class=7), "the tokenizer of a-model cannot"),
    "length: a text": (_edit("tokenizer_config.json", model_max_length="x"), "the tokenizer of a-model cannot"),
    "end: a surrogate": (_edit("tokenizer_config.json", eos_token="\ud800"), "the tokenizer of a-model cannot"),
    "end: a number": (_edit("tokenizer_config.json", eos_token=7), "eos_token"),
    "added tokens: a list": (_write("added_tokens.json", "[]"), "added_tokens.json is not a JSON object"),
    "special tokens: a list": (_write("special_tokens_map.json", "[7]"), "special_tokens_map.json is not"),
    "template: not UTF-8": (_write("chat_template.jinja", b"\xff"), "the tokenizer of a-model cannot"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_tokenizer_is_reported(model: Path, name: str) -> None:
    damage, words = DAMAGED[name]
    damage(model)
    with pytest.raises(ModelError, match=words):
        foreign_tokenizer.load(model, name="a-model")


def test_a_token_beyond_the_rows_of_the_model_is_refused(model: Path) -> None:
    edited(model, "tokenizer.json", lambda content: content["model"]["vocab"].update(far=10**6))
    tokenizer = foreign_tokenizer.load(model, name="a-model")
    with pytest.raises(ModelError, match="id 1,000,000"):
        loading.grow_embeddings(AutoModelForCausalLM.from_pretrained(MODEL_DIR), tokenizer)


@pytest.mark.parametrize("value", ["x", [2, "x"], 2.5, {"a": 1}])
def test_special_token_that_is_no_id_is_refused(value: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    model.generation_config.eos_token_id = value
    with pytest.raises(ModelError, match=r"eos_token_id = .* in the generation configuration of a-model is not a"):
        loading.check_special_tokens(model, "a-model")


@pytest.mark.parametrize(("value", "left"), [(-1, None), ([-1, 2, 10**12], [2]), ([10**12], None), (2, 2)])
def test_special_tokens_that_the_model_lacks_are_removed(value: Any, left: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    model.generation_config.eos_token_id = value
    loading.check_special_tokens(model, "a-model")
    assert model.generation_config.eos_token_id == left


def test_every_tokenizer_is_loaded_under_limits() -> None:
    """Only one module loads tokenizers, so that no command bypasses the limits."""
    package = Path(foreign_tokenizer.__file__).parents[1]
    loads = re.compile(r"\w*Tokenizer\w*\.from_(pretrained|file|str)\(")
    found = {path.relative_to(package) for path in package.rglob("*.py") if loads.search(path.read_text())}
    building_the_starter = {Path("engine/pretrain.py"), Path("starter/build.py")}
    assert found - building_the_starter == {Path("engine/foreign_tokenizer.py")}


def test_class_that_splits_text_differently_from_its_file_is_reported(model: Path) -> None:
    assert foreign_tokenizer.difference_from_file(foreign_tokenizer.load(model, name="m"), model) is None
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "Qwen2Tokenizer"}))
    changed = foreign_tokenizer.load(model, name="m")
    said = foreign_tokenizer.difference_from_file(changed, model)
    assert said is not None
    assert said.startswith("Qwen2Tokenizer splits text differently from the tokenizer.json")
