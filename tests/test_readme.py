"""Every command of the README runs, in the order in which a reader meets it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
NEEDS_A_NETWORK = {"qlora-tui doctor"}
PICTURE = ROOT / "qlora_tui/manual/workbench.svg"
SNAPSHOT = ROOT / "tests/ui/__snapshots__/test_run_snapshots/test_finished[ember-160x45].svg"
ROW = {"instruction": "Name a colour.", "input": "", "output": "Red."}


def test_the_readme_begins_with_the_two_commands() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.long
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(program), prepend=":")
    (tmp_path / "my-data.jsonl").write_text(f"{json.dumps(ROW)}\n" * 8)
    for command in COMMANDS[2:]:
        done = subprocess.run(["sh", "-ec", command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 or command in NEEDS_A_NETWORK, f"{command}\n{done.stderr}"


@pytest.mark.parametrize("command", [command for command in COMMANDS if "qlora-tui" in command])
def test_every_command_exists(command: str) -> None:
    """Cheap enough for every run of the tests: the command and its options are known to the program."""
    words = shlex.split(command.rpartition("|")[2])
    names = [word for word in words[1:3] if not word.startswith("-")]
    options = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]
    depth = 2 if names[0] in {"data", "runs", "presets", "models", "eval"} else 1
    shown = subprocess.run(
        [sys.executable, "-m", "qlora_tui", *names[:depth], "--help"], check=True, capture_output=True, text=True
    ).stdout
    assert not [option for option in options if option not in shown]


def test_the_picture_is_the_snapshot_of_the_screen() -> None:
    assert PICTURE.read_bytes() == SNAPSHOT.read_bytes()


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^):]+)\)", README)
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).exists()]


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150
