"""What a clean interpreter loads: nothing heavy for `--help` or for any module outside the engine and the screens."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import qlora_tui

HEAVY = ["torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "textual", "tokenizers"]
HEAVY += ["huggingface_hub", "httpx", "pyarrow", "numpy", "pandas"]
OUTSIDE_ENGINE = sorted(
    module.name
    for module in pkgutil.walk_packages(qlora_tui.__path__, "qlora_tui.")
    if not module.name.startswith(("qlora_tui.engine", "qlora_tui.ui", "qlora_tui.__main__"))
)
REPORT = """
import json, sys
heavy = {heavy!r}
def loaded():
    return [name for name in heavy if name in sys.modules]
sockets = []
network = ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, args: sockets.append(event) if event in network else None)
"""


def clean(program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    code = REPORT.format(heavy=HEAVY) + program
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)


def test_no_module_outside_the_engine_loads_anything_heavy() -> None:
    """One interpreter for all: each import is followed by a look at what came in with it."""
    program = f"""
import importlib
guilty = {{}}
for name in {OUTSIDE_ENGINE!r}:
    before = set(loaded())
    importlib.import_module(name)
    new = set(loaded()) - before
    if new:
        guilty[name] = sorted(new)
print(json.dumps([guilty, sockets]))
"""
    assert len(OUTSIDE_ENGINE) > 40
    assert json.loads(clean(program).stdout) == [{}, []]


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["train", "--help"], ["runs", "list"], ["presets", "list"], ["paths"]]
)
def test_light_commands_load_nothing_heavy(words: list[str]) -> None:
    program = f"""
sys.argv = ["qlora-tui", *{words!r}]
from qlora_tui.cli import main
try:
    main()
except SystemExit as exit_:
    assert not exit_.code, exit_.code
print("\\n" + json.dumps([loaded(), sockets]))
"""
    assert json.loads(clean(program).stdout.splitlines()[-1]) == [[], []]


def test_help_does_not_even_load_pydantic_or_rich() -> None:
    program = """
sys.argv = ["qlora-tui", "--help"]
from qlora_tui.cli import main
try:
    main()
except SystemExit:
    pass
print("\\n" + json.dumps([name for name in ("pydantic", "rich", "psutil", "tomlkit") if name in sys.modules]))
"""
    assert json.loads(clean(program).stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("program", ["worker", "chat", "evaluation.__main__"])
def test_a_child_process_has_said_its_first_word_before_it_loads_anything_heavy(program: str) -> None:
    imported = clean(f"import qlora_tui.engine.{program}\nprint(json.dumps([loaded(), sockets]))")
    assert json.loads(imported.stdout) == [[], []]


def test_the_import_contracts_hold() -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    root = Path(__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=False)
    assert result.returncode == 0, result.stdout
