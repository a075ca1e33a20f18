"""Shipped presets, the user's own, and the `presets` commands."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qlora_tui import paths
from qlora_tui.cli.presets import app
from qlora_tui.config.contradictions import without_effect
from qlora_tui.config.fields import fields
from qlora_tui.config.presets import Preset, find, presets, split_target
from qlora_tui.config.run import RunConfig
from qlora_tui.config.toml_file import load
from qlora_tui.data.registry import KNOWN
from qlora_tui.errors import ConfigError, DataError, ModelError, NotFoundError, QloraError, RunConflictError

SHIPPED = sorted(path.stem for path in paths.shipped("presets").glob("*.toml"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLORA_TUI_HOME", str(tmp_path / "home"))
    paths.user_presets().mkdir(parents=True)
    return tmp_path


def _written(name: str) -> dict[str, object]:
    """Settings of a preset file by dotted key."""
    found: dict[str, object] = {}

    def visit(values: dict[str, object], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                visit(value, f"{prefix}{key}.")
            else:
                found[prefix + key] = value

    visit(tomllib.loads(find(name).text), "")
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_preset_is_valid_and_every_setting_in_it_counts(name: str) -> None:
    preset = find(name)
    assert preset.origin == "shipped"
    assert without_effect(preset.config) == []
    assert preset.config.data.source in {"starter", *KNOWN}
    for key, value in _written(name).items():
        assert value != fields()[key].default, f"{key} is the default anyway"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_preset_says_when_to_use_it_and_what_it_needs(name: str) -> None:
    title, use, *rest = find(name).description
    assert 10 < len(title) <= 100
    assert use.startswith("Use it ")
    assert re.search(r"Needs about [\d.]+ GiB of", " ".join([use, *rest]))


@pytest.mark.parametrize("name", [name for name in SHIPPED if "for cards of" in find(name).title])
def test_a_preset_leaves_room_on_the_card_that_it_names(name: str) -> None:
    text = " ".join(find(name).description)
    card = re.search(r"for cards of (\d+)", text)
    need = re.search(r"Needs about ([\d.]+) GiB", text)
    assert card is not None
    assert need is not None
    assert float(need[1]) <= 0.91 * float(card[1])


def test_there_is_a_fitting_choice_for_every_card() -> None:
    cards = [re.search(r"for cards of (\d+)", preset.title) for preset in presets()]
    assert {int(card[1]) for card in cards if card} >= {8, 16, 24, 48, 80}


@pytest.mark.parametrize(
    ("name", "base", "rate", "dropout", "save"),
    [
        ("guanaco-7b", "huggyllama/llama-7b", 2e-4, 0.1, 500),
        ("guanaco-13b", "huggyllama/llama-13b", 2e-4, 0.05, 500),
        ("guanaco-33b", "huggyllama/llama-30b", 1e-4, 0.05, 200),
        ("guanaco-65b", "huggyllama/llama-65b", 1e-4, 0.05, 200),
    ],
)
def test_guanaco_values_are_those_of_the_scripts(name: str, base: str, rate: float, dropout: float, save: int) -> None:
    config = find(name).config
    training, adapter = config.training, config.adapter
    assert config.model.id == base
    assert (training.learning_rate, adapter.dropout, training.save_every_steps) == (rate, dropout, save)
    assert (training.micro_batch_size, training.gradient_accumulation_steps, training.max_steps) == (1, 16, 1875)
    assert (config.data.source, config.data.source_max_tokens, config.data.target_max_tokens) == ("oasst1", 16, 512)
    assert (config.data.eval_rows, config.data.max_eval_rows, training.eval_every_steps) == (1024, 1000, 187)
    assert training.seed == 0
    _assert_constant_everywhere(config)


def _assert_constant_everywhere(config: RunConfig) -> None:
    training, adapter, quantization = config.training, config.adapter, config.quantization
    assert (quantization.kind, quantization.double_quantization, quantization.compute_dtype) == (
        "nf4",
        True,
        "bfloat16",
    )
    assert (adapter.rank, adapter.alpha, adapter.target_modules) == (64, 16, "all-linear")
    assert (training.adam_beta2, training.max_grad_norm, training.weight_decay) == (0.999, 0.3, 0)
    assert (training.schedule, training.group_by_length, training.recipe) == ("constant", True, "original")
    assert (training.gradient_checkpointing, training.optimizer) == ("on", "paged_adamw_32bit")


TABLE_9 = {
    "7b": {"alpaca": (16, 2e-4, 10000), "hh-rlhf": (16, 2e-4, 10000), "longform": (16, 2e-4, 4000)},
    "13b": {"alpaca": (16, 2e-4, 10000), "hh-rlhf": (16, 2e-4, 10000), "longform": (16, 2e-4, 4000)},
    "33b": {"alpaca": (32, 1e-4, 5000), "hh-rlhf": (32, 1e-4, 5000), "longform": (32, 1e-4, 2343)},
    "65b": {"alpaca": (64, 1e-4, 2500), "hh-rlhf": (64, 1e-4, 2500), "longform": (32, 1e-4, 2343)},
}
LENGTHS = {"alpaca": (384, 128), "hh-rlhf": (16, 768), "longform": (512, 1024)}


@pytest.mark.parametrize("size", TABLE_9)
@pytest.mark.parametrize("dataset", LENGTHS)
def test_table_9(size: str, dataset: str) -> None:
    config = find(f"table9-{size}-{dataset}").config
    training, data = config.training, config.data
    batch = training.micro_batch_size * training.gradient_accumulation_steps
    assert (batch, training.learning_rate, training.max_steps) == TABLE_9[size][dataset]
    assert data.source == dataset
    assert (data.source_max_tokens, data.target_max_tokens) == LENGTHS[dataset]
    assert config.adapter.dropout == (0.1 if size in ("7b", "13b") else 0.05)
    _assert_constant_everywhere(config)


def _own(name: str, text: str) -> Path:
    path = paths.user_presets() / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_users_preset_wins_over_the_shipped_one_of_its_name() -> None:
    path = _own("starter", "# My starter\n#\n# With care\n\n# not part of it\n[adapter]\nrank = 3\n")
    assert find("starter") == Preset("starter", path, "user")
    assert find("starter").config.adapter.rank == 3
    assert find("starter").description == ("My starter", "", "With care")
    assert [preset.name for preset in presets()].count("starter") == 1


def test_a_broken_preset_hides_no_other() -> None:
    _own("broken", "[adapter]\nrank = 'x'\n")
    assert find("starter").config.adapter.rank == 16
    assert {"broken", "starter"} <= {preset.name for preset in presets()}
    with pytest.raises(ConfigError, match=r"broken\.toml:2: adapter\.rank"):
        _ = find("broken").config


def test_sizes_are_sorted_as_numbers() -> None:
    names = [preset.name for preset in presets() if preset.name.startswith("qwen3")]
    assert names == ["qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-32b"]


def test_what_is_a_file_and_what_a_preset() -> None:
    assert split_target("guanaco-7b") == ("guanaco-7b", None)
    assert split_target("my.toml") == (None, Path("my.toml"))
    assert split_target("./runs/my") == (None, Path("runs/my"))


def test_reading_presets_loads_nothing_for_the_screen() -> None:
    program = (
        "import sys, qlora_tui.config.presets, qlora_tui.config.overrides, qlora_tui.config.qlora_translation\n"
        "qlora_tui.config.overrides.resolve('starter')\n"
        "print([name for name in ('rich', 'typer', 'tomlkit', 'torch', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def _fails(kind: type[QloraError], *arguments: str) -> QloraError:
    result = _run(*arguments)
    assert isinstance(result.exception, kind)
    assert result.stdout == ""
    return result.exception


def test_list_writes_one_line_a_preset() -> None:
    _own("mine", "# My [bold]title[/bold] \x1b[31m\n")
    lines = _run("list").stdout.splitlines()
    assert lines[0] == "name\torigin\ttitle"
    assert len(lines) == 1 + len(SHIPPED) + 1
    assert "mine\tuser\tMy [bold]title[/bold]" in lines
    rows = json.loads(_run("list", "--json").stdout)["presets"]
    assert [row["name"] for row in rows] == [line.partition("\t")[0] for line in lines[1:]]


def test_list_goes_on_past_a_file_that_cannot_be_read() -> None:
    _own("mine", "")
    (paths.user_presets() / "mine.toml").write_bytes(b"# caf\xe9\n")
    result = _run("list")
    assert "mine\tuser\t\n" in result.stdout
    assert "mine.toml:1: not UTF-8" in result.stderr


def test_show_writes_the_file_alone_to_stdout() -> None:
    result = _run("show", "guanaco-7b")
    assert result.stdout == find("guanaco-7b").text
    assert "guanaco-7b.toml" in result.stderr
    shown = json.loads(_run("show", "guanaco-7b", "--json").stdout)
    assert RunConfig.model_validate(shown["config"]) == find("guanaco-7b").config


def test_show_full_is_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "full.toml"
    path.write_text(_run("show", "guanaco-7b", "--full").stdout)
    assert load(path) == find("guanaco-7b").config
    assert "weight_decay" in path.read_text()
    assert "weight_decay" not in find("guanaco-7b").text


def test_show_names_the_nearest_preset() -> None:
    assert _fails(NotFoundError, "show", "guanaco7b").hint == "Did you mean 'guanaco-7b'?"
    assert "presets list" in _fails(NotFoundError, "show", "zzz").hint


def test_new_writes_a_preset_of_ones_own() -> None:
    result = _run("new", "mine", "--from", "guanaco-7b", "--model", "a/b", "--set", "adapter.rank=8")
    path = Path(result.stdout.strip())
    assert path == paths.user_presets() / "mine.toml"
    config = find("mine").config
    assert (config.model.id, config.adapter.rank, config.adapter.dropout) == ("a/b", 8, 0.1)
    assert find("mine").title == "mine: a/b on oasst1"
    assert [file.name for file in path.parent.iterdir()] == ["mine.toml"]


def test_new_replaces_nothing_without_force() -> None:
    _run("new", "mine", "--set", "adapter.rank=8")
    _fails(RunConflictError, "new", "mine", "--set", "adapter.rank=9")
    assert find("mine").config.adapter.rank == 8
    _run("new", "mine", "--set", "adapter.rank=9", "--force")
    assert find("mine").config.adapter.rank == 9


@pytest.mark.parametrize("name", ["", "../x", "a b", ".hidden", "a/b", "x" * 65, "con", "a.toml", "a.", "-x", "a\n"])
def test_new_refuses_names_that_make_trouble(name: str) -> None:
    _fails(ConfigError, "new", "--", name)
    assert list(paths.user_presets().iterdir()) == []


def test_new_writes_nothing_for_a_wrong_setting() -> None:
    _fails(ConfigError, "new", "mine", "--set", "adapter.rank=x")
    assert list(paths.user_presets().iterdir()) == []


def test_check_names_every_mistake_and_fails(home: Path) -> None:
    (home / "bad.toml").write_text("[adapter]\nrank = 'x'\n")
    _own("worse", "[model]\nname = 'x'\n")
    result = _run("check", "starter", str(home / "bad.toml"), "worse")
    assert isinstance(result.exception, ConfigError)
    assert "starter: valid" in result.stderr
    assert "bad.toml:2: adapter.rank" in result.stderr
    assert "worse.toml:2: unknown key 'model.name'" in result.exception.message


def test_check_without_names_checks_all_and_warns_of_what_does_nothing() -> None:
    _own("mine", "[training]\nwarmup_ratio = 0.1\n")
    result = _run("check")
    assert result.exit_code == 0
    assert result.stderr.count(": valid") == len(SHIPPED) + 1
    assert "training.warmup_ratio = 0.1 has no effect with training.schedule = constant" in result.stderr


@pytest.mark.parametrize("separator", [["--"], []])
def test_from_flags_writes_a_preset(home: Path, separator: list[str]) -> None:
    flags = ["--model_name_or_path", "a/b", "--lora_r", "8", "--adam8bit"]
    result = _run("from-flags", *separator, *flags)
    path = home / "translated.toml"
    path.write_text(result.stdout)
    config = load(path)
    assert (config.model.id, config.adapter.rank, config.training.recipe) == ("a/b", 8, "original")
    assert result.stderr.startswith("--adam8bit: left out, a dead flag")


ROWS = "".join(json.dumps({"question": f"Who is {name}?", "answer": "A neighbour."}) + "\n" for name in "abcd")


def test_preset_with_other_data_is_valid_in_any_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mine.jsonl").write_text(ROWS)
    monkeypatch.chdir(home)
    result = _run("new", "mine", "--from", "llama-3.1-8b", "--set", "data.source=mine.jsonl")
    assert "Reset to the default" in result.stderr
    assert "data.format = guanaco-turns" in result.stderr
    config = find("mine").config
    assert (config.data.source, config.data.format, config.data.eval_rows) == (str(home / "mine.jsonl"), "auto", 0)
    assert without_effect(config) == []
    monkeypatch.chdir("/")
    result = _run("check", "mine")
    assert result.exit_code == 0
    assert "mine: valid; on the hub, not checked: meta-llama/Llama-3.1-8B-Instruct" in result.stderr


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ("source = 'mine.jsonl'\nformat = 'guanaco-turns'", DataError, "no column fits format 'guanaco-turns'"),
        ("source = 'mine.jsonl'\ncolumns = {prompt = 'nope'}", DataError, "has no column 'nope'"),
        ("source = 'mine.jsonl'\neval_rows = 4", DataError, "data.eval_rows = 4 leaves no rows to train on"),
        ("source = 'mine.jsonl'\neval_source = 'none.jsonl'", NotFoundError, "presets/none.jsonl"),
        ("source = 'mine.jsonl'\nmix = [{source = 'none.jsonl'}]", NotFoundError, "presets/none.jsonl"),
        ("source = 'none.jsonl'", NotFoundError, "presets/none.jsonl"),
        ("[model]\nid = './none'", ModelError, "presets/none does not exist"),
        ("[training]\nmmlu_file = 'none.jsonl'", NotFoundError, "presets/none.jsonl"),
    ],
)
def test_check_compares_files_with_settings(home: Path, settings: str, error: type[QloraError], message: str) -> None:
    _own("mine", settings if settings.startswith("[") else f"[data]\n{settings}\n")
    (paths.user_presets() / "mine.jsonl").write_text(ROWS)
    found = _fails(error, "check", "mine")
    assert found.message.startswith("mine: ")
    assert message in found.message
