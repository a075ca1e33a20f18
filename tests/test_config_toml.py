"""TOML files of settings: what is read back, and what a person is told about a mistake."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlora_tui.config.contradictions import without_effect
from qlora_tui.config.fields import fields
from qlora_tui.config.run import RunConfig
from qlora_tui.config.toml_file import load, to_toml
from qlora_tui.config.toml_lines import line_of, lines_of_settings
from qlora_tui.errors import ConfigError, NotFoundError, StorageError

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
SIZE = st.integers(1, 4096)
SMALL = st.floats(1e-9, 0.9)
SOURCE = st.fixed_dictionaries(
    {"source": TEXT},
    optional={"weight": st.floats(1e-3, 1e6), "split": TEXT, "columns": st.fixed_dictionaries({"prompt": TEXT})},
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.fixed_dictionaries({}, optional={"id": TEXT, "revision": TEXT, "allow_pickle": st.booleans()}),
        "quantization": st.fixed_dictionaries(
            {}, optional={"kind": st.sampled_from(["none", "8bit", "fp4"]), "double_quantization": st.booleans()}
        ),
        "adapter": st.fixed_dictionaries(
            {},
            optional={
                "rank": SIZE,
                "alpha": st.floats(1e-3, 1e9),
                "target_modules": st.one_of(TEXT, st.lists(TEXT, max_size=3)),
                "lora_plus_ratio": st.floats(1, 1e20),
            },
        ),
        "data": st.fixed_dictionaries(
            {},
            optional={
                "source": TEXT,
                "mix": st.lists(SOURCE, max_size=3),
                "columns": st.fixed_dictionaries({}, optional={"text": TEXT, "chosen": TEXT}),
                "eval_rows": SIZE,
                "system_prompt": TEXT,
            },
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": SMALL,
                "warmup_ratio": SMALL,
                "epochs": st.floats(1e-3, 1e9),
                "max_steps": SIZE,
                "sample_prompts": st.lists(TEXT, max_size=3),
                "packing": st.booleans(),
            },
        ),
    },
)


@settings(max_examples=60, deadline=None)
@given(values=CONFIGS, sparse=st.booleans())
def test_what_is_written_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object], sparse: bool
) -> None:
    config = RunConfig.model_validate(values)
    path = tmp_path_factory.mktemp("toml") / "run.toml"
    path.write_text(to_toml(config, sparse=sparse, comment="One run\nin two lines"), encoding="utf-8", newline="")
    assert load(path) == config


def test_a_complete_file_warns_of_nothing_that_nobody_chose(tmp_path: Path) -> None:
    for values in (
        {"quantization": {"kind": "none"}, "adapter": {"kind": "full"}},
        {"quantization": {"kind": "8bit", "double_quantization": True}, "training": {"max_steps": 5}},
    ):
        config = RunConfig.model_validate(values)
        path = tmp_path / "run.toml"
        path.write_text(to_toml(config))
        assert without_effect(load(path)) == without_effect(config)


def test_a_complete_file_holds_every_setting_that_matters_in_the_order_of_the_specs() -> None:
    config = RunConfig()
    text = to_toml(config, comment="A run")
    assert text.startswith("# A run\n\n[model]\n")
    headers = [line for line in text.splitlines() if line.startswith("[")]
    assert headers == ["[model]", "[quantization]", "[adapter]", "[data]", "[training]"]
    idle = {
        "data.split_seed", "training.warmup_ratio", "training.sample_max_tokens", "training.tracker_tags", "data.mix",
            "training.prediction_rows", "training.prediction_max_tokens",
    }  # fmt: skip
    for key, field in fields().items():
        if field.default is not None and key not in idle:
            assert f"\n{key.rpartition('.')[2]} = " in text


def test_a_sparse_file_says_only_what_differs() -> None:
    config = RunConfig.model_validate({"adapter": {"rank": 8, "dropout": 0.0}})
    assert to_toml(config, sparse=True) == "[adapter]\nrank = 8\n"


LAID_OUT = """\
# comment with rank = 3
adapter.rank = 8

[data]
source = '''
[training]
seed = 5
'''
columns = { prompt = "q" }  # inline

  [[data.mix]]
  source = "a"
  [[data.mix]]
  source = "b"
  weight = 2.0

[training]
trackers = [
  "wandb",
  "mlflow",
]
"seed" = 7
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("adapter", "rank"), 2),
        (("data", "source"), 5),
        (("data", "columns", "prompt"), 9),
        (("data", "mix", 0, "source"), 12),
        (("data", "mix", 1), 13),
        (("data", "mix", 1, "weight"), 15),
        (("training",), 17),
        (("training", "trackers", 1), 18),
        (("training", "seed"), 22),
        (("data", "mix", 0, "weight"), 11),
        (("model", "id"), 1),
    ],
)
def test_the_line_of_a_setting(place: tuple[str | int, ...], line: int) -> None:
    assert line_of(lines_of_settings(LAID_OUT), place) == line


def _mistake(path: Path, text: str) -> ConfigError:
    path.write_text(text, newline="")
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[training]\n\nlearning_rat = 1e-4", ":3: unknown key 'training.learning_rat'", "'training.learning_rate'"),
        ("rank = 8", ":1: unknown key 'rank'", "'adapter.rank'"),
        ("[lora]\nrank = 8", ":1: unknown key 'lora'", "'adapter'"),
        ("[adapter]\nr = 8", ":2: unknown key 'adapter.r'", "'adapter.rank'"),
        (
            "[data.columns]\nzzz = 'q'",
            ":2: unknown key 'data.columns.zzz'",
            "Valid in [data.columns]: messages, prompt",
        ),
        ("[adapter]\r\n\r\nrank = '8'", ":3: adapter.rank: found '8', expected a whole number", "Rank r"),
        ("[adapter]\nrank = 8.5", ":2: adapter.rank: found 8.5, expected a whole number", "Rank r"),
        ("[adapter]\nrank = true", ":2: adapter.rank: found true, expected a whole number", "Rank r"),
        ("[adapter]\nrank = 0", ":2: adapter.rank: found 0, expected greater than or equal to 1", "Rank r"),
        ("[training]\nepochs = nan", ":2: training.epochs: found nan, expected a finite number", "Passes"),
        ("[training]\npacking = 'yes'", ":2: training.packing: found 'yes', expected true or false", "sequence"),
        ("[model]\nid = 7", ":2: model.id: found 7, expected text in quotes", "Base model"),
        ("[model]\nid = ''", ":2: model.id: found '', expected some text", "Base model"),
        ("model = 'x'", ":1: model: found 'x', expected a table", ""),
        ("[adapter]\nkind = 'dora'", ":2: adapter.kind: found 'dora', expected 'lora' or 'full'", "frozen"),
        ("[adapter]\ntarget_modules = 3", "expected text in quotes or a list of such texts", "all-linear"),
        ("[[data.mix]]\nweight = 2.0", ":1: data.mix[0].source is missing", ""),
        ("[data]\nmix = [\n {source = 'a', wait = 1},\n]", ":2: unknown key 'data.mix[0].wait'", "'data.mix.weight'"),
        (
            "[training]\ntrackers = ['tb']",
            ":2: training.trackers[0]: found 'tb', expected one of 'wandb'",
            "Experiment",
        ),
    ],
)
def test_a_mistake_is_named_by_file_line_key_and_expectation(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    error = _mistake(tmp_path / "my.toml", text)
    assert error.message.startswith(str(tmp_path / "my.toml"))
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[training]\nschedule = cosine\n", ":2:12: not valid TOML"),
        ("a = 1\na = 2\n", ":2:6: not valid TOML"),
        ("[model]\nid = 'x", ":2:8: not valid TOML"),
        ("[model\n", ":1:7: not valid TOML"),
    ],
)
def test_a_syntax_error_names_line_and_column(tmp_path: Path, text: str, place: str) -> None:
    error = _mistake(tmp_path / "my.toml", text)
    assert error.message.startswith(f"{tmp_path / 'my.toml'}{place}")
    assert error.hint


def test_several_mistakes_are_named_at_once(tmp_path: Path) -> None:
    error = _mistake(tmp_path / "my.toml", "[training]\nlearning_rat = 1\nseed = 'x'\n")
    assert len(error.message.splitlines()) == 2
    assert ":2: unknown key 'training.learning_rat'. Did you mean 'training.learning_rate'?" in error.message
    assert ":3: training.seed: found 'x', expected a whole number" in error.message


def test_excluding_settings_are_named_with_their_lines(tmp_path: Path) -> None:
    error = _mistake(tmp_path / "my.toml", "[training]\npacking = true\ngroup_by_length = true\n")
    assert "training.packing from " in error.message
    assert f"{tmp_path / 'my.toml'}:2" in error.message
    assert f"{tmp_path / 'my.toml'}:3" in error.message
    assert error.hint


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "notepad.toml"
    path.write_bytes(b"\xef\xbb\xbf[adapter]\r\nrank = 8\r\n")
    assert load(path).adapter.rank == 8


def test_what_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"absent\.toml"):
        load(tmp_path / "absent.toml")
    with pytest.raises(StorageError, match="cannot read"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"[model]\nid = 'caf\xe9'\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:2: not UTF-8"):
        load(tmp_path / "latin.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * 300_000)
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        load(tmp_path / "big.toml")


FRAGMENTS = st.sampled_from(
    ["[t]", "[t.u]", "[[m]] # x", " [m.s]", "[[m.i]]", "[ 'k' . x ]", "", "# [x] = 3"]
    + [
        f"{key} = {value} # c [ ="
        for key in ["a", "b.c", '"q.x"', "'l'", "d . e", '"=#["']
        for value in [
            "1",
            '"# = [y]"',
            "'''\n[a]\nb = 1'''",
            '"""\\"""\n[[z]]"""',
            '[\n["a"], # ]\n"b = 2",\n]',
            "{ u = 1 }",
        ]
    ]
)


def _parsed(lines: list[str]) -> dict[str, object] | None:
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        return None


@settings(max_examples=150, deadline=None)
@given(fragments=st.lists(FRAGMENTS, min_size=1, max_size=8))
def test_the_line_of_a_setting_is_the_one_after_which_the_parser_knows_it(fragments: list[str]) -> None:
    lines = "\n".join(fragments).split("\n")
    if _parsed(lines) is None:
        return
    found = lines_of_settings("\n".join(lines))
    known: set[str] = set()
    begins = 1
    for count in range(1, len(lines) + 1):
        values = _parsed(lines[:count])
        if values is None:
            continue
        for key in values.keys() - known:
            assert found[(key,)] == begins
        known |= values.keys()
        begins = count + 1


@pytest.mark.parametrize("text", ["a = " + "[" * 20000, "a = " + "9" * 5000, "\x00", "a = 1979-99-99"])
def test_text_beyond_any_parser_is_a_mistake_too(tmp_path: Path, text: str) -> None:
    assert "my.toml:1:" in _mistake(tmp_path / "my.toml", text).message
