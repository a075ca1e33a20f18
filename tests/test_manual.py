"""The manual: its commands run, the described JSON is written, and `help` finds its topics."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from command_line import Cli, Result, command, fake_worker, until
from hub_server import HubServer

from qlora_tui import cli
from qlora_tui.cli import manual
from qlora_tui.runs import jobs, precheck, queue, store
from qlora_tui.starter import MODEL_DIR

__all__ = ["command", "fake_worker"]
Behave = Callable[[str], None]

PAGES = {page.name: page.text for page in manual.pages()}
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGES["commands"], re.DOTALL) for line in block.splitlines()]
DOCUMENTS = re.findall(r"^\| `(.+?)` \| (.+) \|$", PAGES["json"].partition("### ")[0], re.MULTILINE)
RUN_KEYS = re.findall(r"^\| `(\w+)` \|", PAGES["json"].partition("### A run")[2], re.MULTILINE)

ENGINE = ("chat", "eval", "data inspect", "doctor")
"""Commands that start PyTorch: run by the long test."""

ON_HUB = (("models", "search"), ("models", "download"), ("models", "rm"))

ELSEWHERE = {
    "qlora-tui models search Qwen3": "qlora-tui models search --help",
    "qlora-tui models download Qwen/Qwen3-0.6B --yes": "qlora-tui models download --help",
    "qlora-tui models rm Qwen/Qwen3-0.6B --yes": "qlora-tui models rm --help",
    "qlora-tui train starter --name tracked --set 'training.trackers=[\"tensorboard\"]' --detach": "true",
    "qlora-tui doctor": "qlora-tui doctor --help",
}
"""Commands that need a network or another package, and their replacements in the long test."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Cli, fake_worker: Behave) -> Callable[..., Result]:
    """Runs a command in an empty home; workers do not train, and with --detach they wait for a message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queue, "ensure_running", lambda: None)
    monkeypatch.setattr(precheck, "check_trackers", lambda names: None)  # workers that train nothing need no tracker
    models = tmp_path / "hub-server" / "models" / "Qwen" / "Qwen3-0.6B"
    shutil.copytree(MODEL_DIR, models)

    def run(*words: str) -> Result:
        fake_worker("wait" if "--detach" in words else "finish")
        with HubServer(tmp_path / "hub-server") as hub, pytest.MonkeyPatch.context() as patch:
            if words[:2] in ON_HUB:
                hub.be_found(patch, tmp_path / "hub-cache")
            result = command(*words)
        if "--detach" in words and words[0] in ("train", "resume"):
            name = words[words.index("--name") + 1] if "--name" in words else words[1]
            until(store.find(name), lambda state: state.step_number > 0)
        return result

    return run


def test_the_commands_run_in_the_order_of_the_manual(place: Callable[..., Result]) -> None:
    """Without training, which the long test does."""
    for line in LINES:
        if not line.startswith("qlora-tui"):
            subprocess.run(["sh", "-ec", line.partition("|")[0]], check=True, stdout=subprocess.DEVNULL)
            continue
        words = shlex.split(line)[1:]
        if not " ".join(words).startswith(ENGINE):
            result = place(*words)
            assert result.code == 0, f"{line}\n{result.err}"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_command_of_the_manual_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    try:
        for line in LINES:
            words = ["sh", "-ec", ELSEWHERE.get(line, line)]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
    finally:
        for run in store.all_runs():
            if jobs.is_alive(run):
                jobs.cancel(run, print)


@pytest.mark.parametrize("line", [line for line in LINES if "qlora-tui" in line])
def test_every_command_and_option_is_known(line: str) -> None:
    found, words = typer.main.get_command(cli.app), shlex.split(line.rpartition("|")[2])[1:]
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    known = {option for parameter in found.params for option in parameter.opts}
    own = words[: words.index("--")] if "--" in words else words
    assert {word for word in own if word.startswith("--")} <= known


def test_every_command_is_in_the_manual() -> None:
    topics = {name for page in manual.pages() for name in page.sections}
    hidden = {"attach"}
    assert set(typer.main.get_command(cli.app).commands) - hidden <= topics | {"help"}  # type: ignore[attr-defined]


def test_the_json_is_as_described(place: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("question_id,model_1,model_2,outcome\n1,a,b,1\n")
    place("train", "starter", "--name", "RUN", "--detach")
    place("train", "starter", "--name", "OTHER")
    for words, keys in DOCUMENTS:
        before, _, rest = words.partition(" -- ")
        result = place(*before.split(), "--json", *(["--", *rest.split()] if rest else []))
        assert result.code == 0, f"{words}\n{result.err}"
        found = json.loads(result.out)
        assert found.pop("schema_version") == 1
        wanted = re.findall(r"`(\w+)`", keys)
        assert set(found) == {*wanted, *(RUN_KEYS if "keys of a run" in keys else [])}, words
        if words == "runs list":
            assert all(list(each) == RUN_KEYS for each in found["runs"])


def test_help_lists_the_topics_and_shows_one(command: Cli) -> None:
    assert "queue" in command("help").out
    shown = command("help", "queue").out
    assert shown.startswith("## queue") and "## presets" not in shown
    assert command("help", "stop").out.startswith("## watch, save, stop, cancel")
    assert command("help", "json").out == PAGES["json"]
    missed = command("help", "quue")
    assert missed.code == 4
    assert "Did you mean 'queue'?" in missed.err
