"""Damaged, hostile or missing input gives one clear error with its exit code and does not affect anything else."""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from command_line import Cli, command
from huggingface_hub import constants
from safetensors.torch import load_file

from qlora_tui import paths
from qlora_tui.chat import transcript
from qlora_tui.config.data import SourceSpec
from qlora_tui.config.model import ModelSpec
from qlora_tui.config.overrides import resolve
from qlora_tui.data.load import load_source
from qlora_tui.engine import loading
from qlora_tui.engine.resolve import resolve as resolve_settings
from qlora_tui.errors import DataError, ExitCode, ModelError, QloraError
from qlora_tui.evaluation import results
from qlora_tui.models.describe import describe
from qlora_tui.models.hub import HubUnreachableError, missing_files
from qlora_tui.models.search import search
from qlora_tui.runs.creation import create
from qlora_tui.starter import MODEL_DIR, TRAIN_DATA

__all__ = ["command"]


def qlora_tui(*words: str | bytes, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell does: arguments are bytes."""
    program = [sys.executable, "-m", "qlora_tui", *words]
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "words",
    [("train", b"\xff.toml"), ("train", "--data", b"rows\xff.jsonl"), ("data", "inspect", b"\xff"),
     ("eval", "answers", "run", b"\xff.jsonl"), ("presets", "check", b"\xff.toml"), (b"\xff",)],
)  # fmt: skip
def test_an_argument_that_is_not_utf8_is_refused_by_name(words: tuple[str | bytes, ...]) -> None:
    done = qlora_tui(*words)
    assert done.returncode == ExitCode.USAGE
    assert "not UTF-8" in done.stderr and r"\xff" in done.stderr
    assert "Traceback" not in done.stderr and "internal" not in done.stderr


def test_a_folder_that_is_not_utf8_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    shutil.copy(TRAIN_DATA, folder / "rows.jsonl")
    done = qlora_tui("train", "--data", "rows.jsonl", "--detach", cwd=folder)
    assert done.returncode == ExitCode.CONFIG and "not UTF-8" in done.stderr, done.stderr
    monkeypatch.setenv("QLORA_TUI_HOME", str(folder))
    done = qlora_tui("runs", "list")
    assert done.returncode == ExitCode.CONFIG and "QLORA_TUI_HOME" in done.stderr, done.stderr


class _Impostor(BaseHTTPRequestHandler):
    body = b""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("ETag", '"e"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.body)

    do_HEAD = do_POST = do_GET  # noqa: N815


@pytest.fixture(
    params=[
        b"<html>Log in to the network</html>",
        b"[1, 2]",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        json.dumps({"id": "a/b", "sha": None, "siblings": "x", "config": [1], "tags": 7}).encode(),
        json.dumps({"id": "a/b", "sha": "0" * 40, "siblings": [{"rfilename": "config.json", "size": -5}]}).encode(),
        json.dumps({"id": "a/b", "sha": "0" * 40, "siblings": [{"rfilename": 7}], "config": {}}).encode(),
        json.dumps([{"id": 7, "config": [1], "tags": [7], "safetensors": {"total": "x"}}]).encode(),
    ],
    ids=["html", "list", "null", "deep list", "deep object", "binary", "no commit", "size", "name", "search"],
)
def impostor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A server that is not a hub at the hub's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Impostor,), {"body": request.param}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("impostor")
def test_invalid_hub_answers_are_reported() -> None:
    for ask in (lambda: search("a"), lambda: missing_files(ModelSpec(id="owner/name"))):
        with pytest.raises(HubUnreachableError, match="does not answer like a hub"):
            ask()
    with pytest.raises(ModelError, match="does not answer like a hub"):
        describe("owner/name")
    with pytest.raises(DataError, match="does not answer like a hub"):
        load_source(SourceSpec(source="owner/name"), consent=lambda download: True)
    # What the shipped catalogue knows is still known.
    assert describe("Qwen/Qwen3-0.6B").notes


@pytest.mark.parametrize("form", ["[{key}]", "{key} = 1", "x = {{ {key} = 1 }}", "[[{key}]]"])
@pytest.mark.parametrize("part", ["a", '"a"', "'a'"])
def test_a_key_of_many_parts_is_refused_before_it_takes_memory(tmp_path: Path, form: str, part: str) -> None:
    path = tmp_path / "many.toml"
    path.write_text("[model]\nid = 'starter'\n" + form.format(key=".".join([part] * 50_000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(QloraError, match=r"many\.toml:3:1: .*key of more than 32 parts") as refused:
        resolve(None, path)
    assert refused.value.exit_code == ExitCode.CONFIG
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_dots_in_values_are_not_keys(tmp_path: Path) -> None:
    path = tmp_path / "dots.toml"
    path.write_text(f"[data]\nsystem_prompt = '{'a.' * 100}'\n# {'a.' * 100}\n")
    assert resolve(None, path).data.system_prompt == "a." * 100


def vanishing(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Files with this suffix are listed but no longer exist when they are opened."""
    stat, opening = Path.stat, Path.open

    def gone(self: Path, *args: object, **options: object) -> object:
        if self.name == "gone" + suffix:
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return stat(self, *args, **options)  # type: ignore[arg-type]

    def unopened(self: Path, *args: object, **options: object) -> object:
        if self.name == "gone" + suffix:
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return opening(self, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "stat", gone)
    monkeypatch.setattr(Path, "open", unopened)
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda self: self.name == "gone" + suffix or is_file(self))


def test_a_file_that_vanishes_from_a_listed_folder_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Cli
) -> None:
    run = create(resolve(), "mine", None)
    for folder, suffix in ((run.chats, ".json"), (run.path / "eval", ".json"), (tmp_path / "rows", ".jsonl")):
        folder.mkdir(exist_ok=True)
        for name in ("gone", "there"):
            (folder / f"{name}{suffix}").write_text('{"prompt": "a", "completion": "b"}\n')
    vanishing(monkeypatch, ".json")
    assert [path.name for path in transcript.saved(run)] == ["there.json"]
    assert list(results.read_all(run)) == ["there"]
    vanishing(monkeypatch, ".jsonl")
    loaded = load_source(SourceSpec(source=str(tmp_path / "rows")))
    assert len(loaded.dataset) == 1


def test_weights_that_vanish_are_a_model_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL_DIR, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    iterdir, listings = Path.iterdir, list[Path]()

    def listing(self: Path) -> Iterator[Path]:
        found = list(iterdir(self))
        listings.append(self)
        if listings.count(folder) == 2:  # the first one is for config.json
            (folder / "pytorch_model.bin").unlink(missing_ok=True)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", listing)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin cannot be read"):
        describe(str(folder))


def test_lone_surrogate_in_one_run_does_not_hide_others(command: Cli) -> None:
    for name in ("bad", "good"):
        create(resolve(), name, None)
    (paths.runs() / "bad" / "plan.json").write_text('{"preset": "\\ud800", "versions": {"a": "\\ud800"}}')
    (paths.runs() / "bad" / "tags.json").write_text('["\\ud800"]')
    listed = command("runs", "list", "--json")
    assert listed.code == 0, listed.err
    assert {run["name"] for run in json.loads(listed.out)["runs"]} == {"bad", "good"}
    for words in (("runs", "list"), ("runs", "show", "bad"), ("runs", "show", "bad", "--json")):
        assert command(*words).code == 0


@pytest.fixture
def pickled(tmp_path: Path) -> Callable[[object], Path]:
    """Makes the starter model with pickled weights instead of safetensors, and optional other objects."""

    def make(beside: object) -> Path:
        folder = tmp_path / "pickled"
        shutil.copytree(MODEL_DIR, folder)
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(weights if beside is None else {**weights, "beside": beside}, folder / "pytorch_model.bin")
        return folder

    return make


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_pickled_weights_are_read_on_request_and_their_code_never_runs(
    pickled: Callable[[object], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = pickled(None)
    with pytest.raises(ModelError, match="only as pickle"):
        loading.location(ModelSpec(id=str(folder)))
    config = resolve(overrides=[f"model.id={folder}", "model.allow_pickle=true", "model.device=cpu"])
    tokenizer = loading.load_tokenizer(config.model)
    assert loading.load_model(config, resolve_settings(config), tokenizer).num_parameters() > 1_000_000
    shutil.rmtree(folder)
    pickled(_Code())
    with pytest.raises(ModelError, match="contain objects other than tensors"):
        loading.load_model(config, resolve_settings(config), tokenizer)
    assert not Path("ran").exists()
