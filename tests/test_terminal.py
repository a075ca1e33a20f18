"""Foreign text never reaches the terminal as a control sequence."""

import ast
import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

import qlora_tui
from qlora_tui import paths
from qlora_tui.config.overrides import resolve
from qlora_tui.runs import events
from qlora_tui.runs.creation import create
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.terminal import json_safe, printable

HOSTILE = (
    "\x1b]52;c;ZXZpbA==\x07 \x1b[2J \x9b31m \x9d0;t\x9c \x7f \u202eoverride\u2066 [link=http://evil]x[/link] \ud7ff"
)
"""OSC 52, a cleared screen, C1 controls, DEL, bidi controls and Rich's markup."""


def on_a_terminal(*words: str, stdin: str = "", cwd: Path | None = None) -> str:
    """Return the output of a command on a terminal, stdout and stderr together."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "qlora_tui", *words],
        stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, cwd=cwd, env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    child.communicate(stdin.encode())
    shown = b""
    while select.select([ours], [], [], 0)[0]:
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:
            break
    os.close(ours)
    return shown.decode()


def assert_inert(shown: str) -> None:
    plain = shown.replace("\r\n", "\n")
    for sequence in ("\x1b]", "\x9b", "\x9d", "\x9c", "\x7f", "\x07", "\u202e", "\u2066", "\x1b[2J"):
        assert sequence not in plain, (sequence, plain)


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    path = tmp_path / "ratings.jsonl"
    rows = [
        {
            "question_id": f"{n} {HOSTILE}",
            "model_1": f"a{HOSTILE}",
            "model_2": "b",
            "outcome": "1",
            "annotator": HOSTILE,
        }
        for n in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "words", [("csv",), ("elo", "--orders", "10"), ("elo", "--orders", "10", "--json"), ("csv", "--json")]
)
def test_foreign_text_in_ratings_is_inert_on_a_terminal(rated: Path, words: tuple[str, ...]) -> None:
    shown = on_a_terminal("arena", words[0], str(rated), *words[1:])
    assert "override" in shown, shown
    assert_inert(shown)


@pytest.mark.parametrize(
    "words",
    [("runs", "list"), ("runs", "list", "--json"), ("runs", "show", "mine"), ("runs", "show", "mine", "--json"),
     ("watch", "mine"), ("watch", "mine", "--json")],
)  # fmt: skip
def test_foreign_text_of_a_run_is_inert_on_a_terminal(words: tuple[str, ...]) -> None:
    run = create(resolve(overrides=[f"data.system_prompt={json.dumps(HOSTILE)}"]), "mine", None)
    (run.path / "tags.json").write_text(json.dumps([HOSTILE]))
    EventWriter(run.events).write(events.Created(name=HOSTILE, program_version=HOSTILE))
    EventWriter(run.events).write(events.Failed(message=HOSTILE, hint=HOSTILE, where=HOSTILE, exit_code=9))
    shown = on_a_terminal(*words)
    assert "mine" in shown or "override" in shown
    assert_inert(shown)


def test_foreign_rows_are_inert_on_a_terminal_and_unchanged_in_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"prompt": HOSTILE, "completion": "b"}
    path.write_text(json.dumps(row) + "\n")
    shown = on_a_terminal("data", "convert", str(path))
    assert_inert(shown)
    line = next(line for line in shown.splitlines() if line.startswith("{"))
    assert json.loads(line)["messages"][0]["content"] == HOSTILE
    piped = subprocess.run([sys.executable, "-m", "qlora_tui", "data", "convert", str(path)], capture_output=True)
    assert "\u202e" in piped.stdout.decode()


def test_user_input_is_inert_in_errors() -> None:
    for words in (
        (HOSTILE,),
        (f"--{HOSTILE}",),
        ("train", HOSTILE),
        ("train", "--set", f"{HOSTILE}=1"),
        ("runs", "show", HOSTILE),
    ):
        assert_inert(on_a_terminal(*words))


def test_json_with_escapes_has_the_same_values() -> None:
    content = {"a": HOSTILE, "family": "👩‍👩‍👧 Grüße 数据 \u2028 \U000e0041"}
    safe = json_safe(json.dumps(content, ensure_ascii=False, indent=2))
    assert json.loads(safe) == content
    assert all(character.isprintable() or character == "\n" for character in safe)
    assert "Grüße 数据" in safe


def test_escapes_in_pieces_are_inert() -> None:
    """A model may write a control sequence token by token."""
    assert "\x1b" not in "".join(printable(piece) for piece in ("\x1b", "]52;c;", "evil", "\x07"))


WRITERS = {
    "terminal.py", "encoding.py", "cli/output.py", "cli/inert_console.py", "cli/consent.py", "runs/missing.py",
}  # fmt: skip
"""The writers, the module that sets how streams encode, the questions on stderr, and a child whose stdout is a pipe."""
_ASKED_OF_STDOUT = {"isatty", "encoding", "flush", "fileno"}


def _goes_around(tree: ast.Module) -> list[int]:
    """Lines that write to stdout or use Rich without the writers."""
    allowed = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in _ASKED_OF_STDOUT
    }
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="print" | "Console" | "print_json" | "pprint")):
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="typer"), attr="echo" | "secho" | "confirm" | "prompt")):
                found.append(node.lineno)
            case ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr" | "__stdout__" | "__stderr__"):
                if id(node) not in allowed:
                    found.append(node.lineno)
            case ast.Call(func=ast.Name(id="TextColumn"), keywords=keywords):
                if "markup" not in {keyword.arg for keyword in keywords} and "task" in ast.dump(node):
                    found.append(node.lineno)
    return found


def test_no_module_bypasses_the_writers() -> None:
    package = Path(qlora_tui.__file__).parent
    found = {}
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if not name.startswith(("engine/", "ui/")) and name not in WRITERS:
            lines = _goes_around(ast.parse(path.read_text(encoding="utf-8")))
            found |= {name: lines} if lines else {}
    assert found == {}


def test_errors_and_warnings_of_a_damaged_file_name_are_inert(tmp_path: Path) -> None:
    folder = tmp_path / "m\x1b]52;c;ZXZpbA==\x07\u202e"
    folder.mkdir()
    (folder / "config.json").write_text("[]")
    assert_inert(on_a_terminal("train", "--model", str(folder)))
    paths.user_presets().mkdir(parents=True)
    (paths.user_presets() / "mine.toml").write_text(f"# {HOSTILE}\nx = 1\n", encoding="utf-8")
    for words in (("list",), ("show", "mine"), ("check",)):
        assert_inert(on_a_terminal("presets", *words))
