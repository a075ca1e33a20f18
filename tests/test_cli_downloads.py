"""Nothing is downloaded without a yes, and what cannot be had is said before a run is made."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import PROGRAM, Cli, Result, command
from hub_server import HubServer

from qlora_tui import paths
from qlora_tui.config.overrides import resolve
from qlora_tui.data.downloads import Download
from qlora_tui.errors import StorageError
from qlora_tui.runs import jobs, precheck, store

__all__ = ["command"]
WEIGHTS = bytes(2_500_000)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("hub")
    for repo_id, names in {
        "open/model": ["config.json", "tokenizer.json", "model.safetensors", "consolidated.safetensors", "notes.md"],
        "closed/model": ["config.json", "tokenizer.json", "model.safetensors"],
        "old/model": ["config.json", "tokenizer.json", "pytorch_model.bin"],
        "lora/model": ["adapter_config.json", "adapter_model.safetensors"],
    }.items():
        home = folder / "models" / repo_id
        home.mkdir(parents=True)
        for name in names:
            (home / name).write_bytes(b"{}" if name.endswith(".json") else WEIGHTS)
    for repo_id, config in {
        "seq/model": {"model_type": "mt5", "architectures": ["MT5ForConditionalGeneration"]},
        "masked/model": {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        "encoder/model": {"model_type": "roberta", "architectures": ["RobertaModel"]},
    }.items():
        home = folder / "models" / repo_id
        home.mkdir(parents=True)
        (home / "config.json").write_text(json.dumps(config))
        (home / "model.safetensors").write_bytes(WEIGHTS)
    rows = folder / "datasets" / "open" / "rows" / "train.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    with HubServer(folder, gated=("closed/model",)) as server:
        yield server


@pytest.fixture
def typed(hub: HubServer, tmp_path: Path) -> Iterator["Typed"]:
    hub.requests.clear()
    yield Typed(hub, tmp_path)


class Typed:
    """The command in a process of its own, which asks this hub: the hub's library reads its address once."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub = hub
        self.environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hub"),
            "PYTHONPATH": str(Path(__file__).parent),
            "FAKE_WORKER": "finish",
        }

    def __call__(self, *words: str, **variables: str) -> Result:
        return self.python(PROGRAM, *words, **variables)

    def python(self, program: str, *words: str, **variables: str) -> Result:
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**self.environment, **variables}
        )
        return Result(done.returncode, done.stdout, done.stderr)


def test_a_missing_model_is_named_with_its_size_and_not_downloaded_without_a_yes(typed: Typed, tmp_path: Path) -> None:
    result = typed("train", "starter", "--model", "open/model")
    assert (result.code, result.out) == (2, "")
    assert "model open/model" in result.err and "(3 files)" in result.err
    assert "2.5 MB" in result.err
    assert str(tmp_path / "hub") in result.err
    assert "--yes" in result.err
    assert typed.hub.file_requests() == []
    assert not paths.runs().exists()


def test_a_missing_dataset_is_asked_for_as_well(typed: Typed) -> None:
    result = typed("train", "starter", "--data", "open/rows")
    assert result.code == 2
    assert "dataset open/rows" in result.err
    assert typed.hub.file_requests() == []


def test_with_a_yes_the_worker_may_download(typed: Typed) -> None:
    result = typed("train", "starter", "--model", "open/model", "--name", "one", "--yes")
    assert result.code == 0, result.err
    assert jobs.replay(store.find("one")).warnings[0].message == "--allow-download"


def test_a_model_that_is_here_needs_neither_a_yes_nor_the_hub(typed: Typed) -> None:
    fetch = "import sys, huggingface_hub as hub; [hub.hf_hub_download('open/model', name) for name in sys.argv[1:]]"
    assert typed.python(fetch, "config.json", "tokenizer.json", "model.safetensors").code == 0
    for variables in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}, {"TRANSFORMERS_OFFLINE": "1"}):
        result = typed("train", "starter", "--model", "open/model", "--detach", **variables)
        assert result.code == 0, result.err
    assert jobs.replay(store.find("starter-1")).warnings[0].message == ""


def test_trusted_pickles_that_are_here_need_no_hub_either(typed: Typed) -> None:
    fetch = "import sys, huggingface_hub as hub; [hub.hf_hub_download('old/model', name) for name in sys.argv[1:]]"
    assert typed.python(fetch, "config.json", "tokenizer.json", "pytorch_model.bin").code == 0
    trusting = ("train", "starter", "--model", "old/model", "--set", "model.allow_pickle=true", "--detach")
    result = typed(*trusting, HF_HUB_OFFLINE="1")
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("model", "variables", "said"),
    [
        ("open/model", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ("open/model", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached at http://127.0.0.1:9"),
        ("open/nothing", {}, "no model open/nothing"),
        ("closed/model", {}, "is gated"),
        ("old/model", {}, "only as pickle (pytorch_model.bin)"),
        ("lora/model", {}, "holds an adapter"),
        ("seq/model", {}, "is an encoder-decoder model"),
        ("masked/model", {}, "is saved as BertForMaskedLM, which does not write text"),
        ("encoder/model", {}, "is an encoder (roberta), which does not write text"),
        ("nothing", {}, "nothing"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_error(
    typed: Typed, model: str, variables: dict[str, str], said: str
) -> None:
    result = typed("train", "starter", "--model", model, "--yes", **variables)
    assert result.code == 9, result.err
    assert said in result.err
    assert "hint:" in result.err
    assert "Traceback" not in result.err
    assert not paths.runs().exists()


def test_a_broken_model_folder_is_one_error(command: Cli, tmp_path: Path) -> None:
    for folder, said in ((tmp_path / "missing", "does not exist"), (tmp_path, "config.json")):
        result = command("train", "starter", "--model", str(folder))
        assert result.code == 9
        assert said in result.err
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    result = command("train", "starter", "--model", str(tmp_path))
    assert result.code == 9
    assert "architectures" in result.err
    assert not paths.runs().exists()


UNCLEAR = '{"a": "one", "b": "two", "c": "three"}\n'


@pytest.mark.parametrize(
    ("words", "rows", "code", "said"),
    [
        (("--data", "rows.jsonl"), UNCLEAR, 10, "format"),
        (("--data", "rows.jsonl"), "<html>", 10, "rows.jsonl"),
        (("--data", "rows.jsonl"), "", 10, "rows.jsonl"),
        (("--data", "nothing.jsonl"), "", 4, "nothing.jsonl"),
        (("--set", "data.eval_source=rows.jsonl"), UNCLEAR, 10, "format"),
        (("--set", 'training.trackers=["swanlab"]'), "", 12, "swanlab, which is not installed"),
        (("--set", "training.keep_checkpoints=100000000"), "", 11, "checkpoints need up to"),
        (("--name", "a/b"), "", 2, "not a legal run name"),
        (("--name", "taken"), "", 5, "exists already"),
        (("--replace",), "", 2, "--replace needs --name"),
    ],
)
def test_invalid_runs_are_refused_before_a_download(
    typed: Typed,
    tmp_path: Path,
    words: tuple[str, ...],
    rows: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "swanlab" in said and find_spec("swanlab"):
        pytest.skip("swanlab is installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(rows)
    (paths.runs() / "taken").mkdir(parents=True)
    model = ("--set", "model.id=open/model")
    if "checkpoints" in said:  # the size of this model is known, and the rows are missing
        model = ("--set", "data.source=open/rows")
    result = typed("train", "starter", "--yes", *model, *words)
    assert result.code == code, result.err
    assert said in result.err
    assert typed.hub.file_requests() == []
    assert [run.name for run in store.all_runs()] == []


@pytest.mark.parametrize(("words", "code"), [(("--set", "data.source=rows.jsonl"), 10), (("--name", "taken"), 5)])
def test_queue_refuses_invalid_runs_before_a_download(
    typed: Typed, tmp_path: Path, words: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(UNCLEAR)
    (paths.runs() / "taken").mkdir(parents=True)
    result = typed("queue", "add", "starter", "--set", "model.id=open/model", "--yes", *words)
    assert result.code == code, result.err
    assert typed.hub.file_requests() == [] and store.all_runs() == []


def test_a_download_that_does_not_fit_on_the_disk_is_refused_before_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(StorageError, match=r"no room for the download: 3\.0 kB needed"):
        precheck.check(resolve(), [Download("a model", 1000, tmp_path), Download("rows", 2000, tmp_path)])


@pytest.mark.parametrize("extra", [(), ("--table",), ("--explain",), ("--fit", "batch"), ("--json",)])
def test_the_estimate_of_a_model_that_cannot_be_trained_is_an_error(
    command: Cli, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    config = {
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True,
        "vocab_size": 96, "d_model": 48, "d_kv": 10, "d_ff": 80, "num_layers": 2, "num_heads": 6,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = command("estimate", str(tmp_path), "--gpu", "24GB", *extra)
    assert result.code == 9 and "encoder-decoder" in result.err
