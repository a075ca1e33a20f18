"""Every command of the README runs, in the order in which a reader meets it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
NEEDS_A_HUB = {"qlora-tui train mine --yes": "qlora-tui presets show mine"}
"""Commands that fetch gigabytes, and what shows here that they would be understood."""

NEEDS_A_NETWORK = {"qlora-tui doctor"}


def test_the_readme_begins_with_the_two_commands() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]


@pytest.mark.long
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(program), prepend=":")
    for command in COMMANDS[2:]:
        done = subprocess.run(
            ["sh", "-ec", NEEDS_A_HUB.get(command, command)], cwd=tmp_path, capture_output=True, text=True
        )
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
