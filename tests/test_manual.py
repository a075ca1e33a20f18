"""The manual: its commands run, the described JSON is written, and `help` finds its topics."""

import ast
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import settings_reference
import typer
from command_line import Cli, Result, command, fake_worker, until
from hub_server import HubServer
from rich.console import Console
from rich.markdown import Markdown

from qlora_tui import cli, manual
from qlora_tui.config import toml_file
from qlora_tui.runs import jobs, precheck, queue, store
from qlora_tui.starter import MODEL_DIR

__all__ = ["command", "fake_worker"]
Behave = Callable[[str], None]

PAGES = {page.name: page.text for page in manual.pages()}


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n ", "") for block in found]


LINES = {name: [line for block in blocks(name, "sh") for line in block.splitlines()] for name in PAGES}
DOCUMENTS = re.findall(
    r"^\| `(.+?)` \| (.+) \|$",
    PAGES["scripting"].partition("### Documents")[2].partition("### A run")[0],
    re.MULTILINE,
)
RUN_KEYS = re.findall(r"^\| `(\w+)` \|", PAGES["scripting"].partition("### A run")[2], re.MULTILINE)

SLOW = (
    "chat", "eval", "data inspect", "data check", "doctor", "estimate guanaco-65b",
    "estimate llama-3.1-8b --gpu 24GB --fit",
)  # fmt: skip
"""Commands that start PyTorch or compute for seconds: run by the long test."""

ON_HUB = (("models", "search"), ("models", "download"), ("models", "rm"))

ELSEWHERE = {
    "qlora-tui models search Qwen3": "qlora-tui models search --help",
    "qlora-tui models download Qwen/Qwen3-0.6B --yes": "qlora-tui models download --help",
    "qlora-tui models rm Qwen/Qwen3-0.6B --yes": "qlora-tui models rm --help",
    "qlora-tui train starter --name tb --set training.trackers=tensorboard --detach": "true",
    "qlora-tui cancel tb --yes": "true",
    "qlora-tui doctor": "qlora-tui doctor --help",
}
"""Commands that need a network, or another package, and their replacements in the long test."""


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


@pytest.mark.parametrize("page", [page for page, lines in LINES.items() if lines])
def test_commands_run_in_the_order_of_the_page(page: str, place: Callable[..., Result]) -> None:
    """Without training, which the long test does."""
    for line in LINES[page]:
        if not line.startswith("qlora-tui"):
            subprocess.run(["sh", "-ec", line.partition("| qlora-tui")[0]], check=True, stdout=subprocess.DEVNULL)
            continue
        words = shlex.split(line.partition(" > ")[0])[1:]
        if not " ".join(words).startswith(SLOW):
            result = place(*words)
            assert result.code == 0, f"{line}\n{result.err}"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", [page for page, lines in LINES.items() if lines])
def test_commands_run_with_real_workers(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    try:
        for line in LINES[page]:
            words = ["sh", "-ec", ELSEWHERE.get(line, line)]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
    finally:
        for run in store.all_runs():
            if jobs.is_alive(run):
                jobs.cancel(run, print)


def known_commands(text: str) -> set[str]:
    """Commands in code spans, such as `qlora-tui runs list`."""
    return set(re.findall(r"`(qlora-tui [a-z][^`<>|]*)`", text))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_is_known(page: str) -> None:
    unrun = [line for block in blocks(page, "bash") for line in block.splitlines()]
    lines = [line for line in (*LINES[page], *unrun) if "qlora-tui" in line]
    for line in [*lines, *known_commands(PAGES[page])]:
        found, words = typer.main.get_command(cli.app), shlex.split(line.rpartition("| ")[2])[1:]
        while words and hasattr(found, "commands"):
            assert words[0] in found.commands, line
            found = found.commands[words.pop(0)]
        known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        own = words[: words.index("--")] if "--" in words else words
        assert {word for word in own if word.startswith("--")} <= known, line


def test_toml_examples_are_valid(tmp_path: Path) -> None:
    for page in PAGES:
        for block in blocks(page, "toml"):
            file = tmp_path / "example.toml"
            file.write_text(block)
            toml_file.load(file)


def shown_texts(folder: Path) -> list[str]:
    """All texts in the code below a folder, with "…" for each value in a formatted text."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_messages_in_troubleshooting_exist() -> None:
    """If this fails after a message was reworded, reword it in the manual, too."""
    texts = "\n".join(shown_texts(Path(cli.__file__).parents[1]))
    quoted = [
        message.replace("\n  ", " ")
        for item in re.findall(r"^- (.*(?:\n  .*)*)", PAGES["troubleshooting"].partition("## GPU")[2], re.MULTILINE)
        for message in re.findall(r"^`([^`]+)`", item)
    ]
    assert len(quoted) > 40
    parts = [part.strip(" :,") for message in quoted for part in message.split("…")]
    assert [part for part in parts if part not in texts] == []


def test_links_lead_to_pages() -> None:
    linked = {name for text in PAGES.values() for name in re.findall(r"\]\((\w+)\.md", text)}
    assert linked <= set(PAGES)


def test_all_files_are_pages() -> None:
    assert {path.stem for path in Path(manual.__file__).parent.glob("*.md")} == set(manual.ORDER)


def test_every_command_is_in_the_manual() -> None:
    topics = {topic for page in manual.pages() for topic in page.topics}
    assert set(typer.main.get_command(cli.app).commands) <= topics | {"help", *manual.ORDER}  # type: ignore[attr-defined]
    names = {
        f"{group} {name}"
        for group in ("runs", "data", "eval", "arena", "queue")
        for name in typer.main.get_command(cli.app).commands[group].commands  # type: ignore[attr-defined]
    }
    assert names <= topics


@pytest.mark.parametrize("page", PAGES)
def test_page_is_readable_at_80_columns(page: str) -> None:
    """No line of code and no word of a table is broken across lines."""
    shown = io.StringIO()
    Console(file=shown, width=80, color_system=None).print(Markdown(PAGES[page]))
    text = shown.getvalue()
    code = re.findall(r"^```\w+\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)
    assert [line for block in code for line in block.splitlines() if len(line) > 78] == []
    for row in re.findall(r"^\|.*\|$", PAGES[page], re.MULTILINE):
        broken = [word for word in re.findall(r"[\w.,:/=-]+", row) if word not in text and set(word) > {"-"}]
        assert not broken, row


def test_the_reference_of_settings_is_up_to_date() -> None:
    page = settings_reference.PAGE.read_text(encoding="utf-8")
    assert page == settings_reference.updated(page), "run `make manual`"


def test_the_json_is_as_described(place: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("question_id,model_1,model_2,outcome\n1,a,b,1\n")
    place("train", "starter", "--name", "RUN", "--detach")
    place("train", "starter", "--name", "OTHER")
    assert DOCUMENTS
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


def test_help_lists_the_pages_and_shows_a_section(command: Cli) -> None:
    listed = command("help").out
    assert all(name in listed for name in manual.ORDER) and "queue" in listed
    shown = command("help", "queue").out
    assert shown.startswith("## Queue runs\n\n```sh") and "## The folder" not in shown
    assert command("help", "stop").out == command("help", "watch").out
    assert command("help", "Exit codes").out.startswith("## Exit codes")
    assert command("help", "training.epochs").out.startswith("### training.epochs\n")
    assert command("help", "memory").out == command("help", "estimate").out == PAGES["memory"]
    assert "<!-- topics" not in command("help", "memory").out
    missed = command("help", "quue")
    assert missed.code == 4
    assert "Did you mean 'queue'?" in missed.err
