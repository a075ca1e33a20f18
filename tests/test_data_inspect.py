"""`qlora-tui data inspect`: what a person and a script see of a dataset before training."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from data_material import chat_rows, starter_tokenizer, write_jsonl

from qlora_tui.config.overrides import resolve

_STYLES = re.compile(r"\x1b\[[0-9;]*m")
_ESCAPE = "\x1b]0;owned\x07\x1b[31mred\x1b[0m [bold]loud[/bold] \u202etxt\u202c"


def inspect(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    settings = {"QLORA_TUI_HOME": str(folder / "home"), "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(
        [sys.executable, "-m", "qlora_tui", "data", "inspect", *arguments],
        env=clean | settings,
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspect")


@pytest.fixture(scope="module")
def rows(folder: Path) -> Path:
    pairs = [(f"What is the price of the red door number {at}?", f"It costs {at} coins.") for at in range(40)]
    pairs += [("Hello", "The same answer.")] * 12 + [("An empty one", ""), ("Escapes " + _ESCAPE, _ESCAPE)]
    pairs += [("A long one", "word " * 90)]
    pairs.insert(0, ("Grüße [/INST] 数据 🙂", "A first\nanswer with [red]markup[/red]\tand a tab."))
    return write_jsonl(folder / "rows.jsonl", chat_rows(*pairs))


@pytest.fixture(scope="module")
def found(folder: Path, rows: Path) -> dict[str, Any]:
    done = inspect(folder, str(rows), "--json", "--rows", "2", "--max-length", "90")
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def test_json_holds_what_was_found(found: dict[str, Any]) -> None:
    assert found["source"]["format"] == "messages"
    assert found["source"]["evidence"]
    report = found["report"]
    assert report["rows"] == report["prepared"]["rows_read"] == 56
    assert report["prepared"]["duplicate_rows"] == 11
    assert sum(one["rows"] for one in report["histogram"]) == 56
    assert 0 < report["trained_share"] < 1
    assert report["longer_share"] > 0
    assert report["longest_origin"].startswith("rows.jsonl:")
    assert report["epochs"]["steps_per_epoch"] == 4
    assert {"same answer", "empty answers", "control characters"} <= {flag["name"] for flag in report["flags"]}


def test_json_holds_the_rows_token_by_token(found: dict[str, Any]) -> None:
    first = found["sample"]["rows"][0]
    tokens = first["pieces"][0]
    assert first["origin"] == "rows.jsonl:1"
    assert "".join(token["text"] for token in tokens if token["trained"]).startswith("A first\nanswer")
    assert [token["text"] for token in tokens if token["special"]].count("<|im_start|>") == 2
    assert "数据 🙂" in "".join(token["text"] for token in tokens)
    assert len(found["sample"]["rows"]) == 2


@pytest.mark.parametrize("width", [80, 160])
def test_the_screen_fits_and_says_what_is_trained_without_colour(folder: Path, rows: Path, width: int) -> None:
    """You should see the first row with its answer in brackets, a histogram, the duplicates and the red flags."""
    done = inspect(folder, str(rows), "--max-length", "90", NO_COLOR="1", COLUMNS=str(width))
    assert done.returncode == 0, done.stderr
    screen = done.stdout
    assert all(_columns(line) <= width for line in screen.splitlines())
    flat = "\n".join(line.rstrip() for line in screen.replace("·", "").splitlines())
    assert "⟦A first↵\n" in flat
    assert "  answer with [red]markup[/red]⇥and a tab.<|im_end|>⟧↵\n" in flat
    assert "Grüße [/INST] 数据 🙂" in flat
    assert "··" not in screen, "no border inside a character of several tokens"
    assert "between tokens, but not inside a character" in " ".join(screen.split())
    assert "tokenizer: starter; template: the model's own" in screen
    assert "of rows longer than 90 tokens (▒)" in screen
    assert "⟦trained⟧, the rest is masked" in screen
    assert "messages" in screen
    assert "█" in screen
    assert "11 exact duplicates" in screen
    assert "2 of 56 rows cut by" in screen
    assert "rows with one and the same answer: The same answer." in " ".join(screen.split())
    assert "tokens an epoch" in screen
    troubles = screen.partition("look at this\n")[2].splitlines()
    assert all(line.startswith(("  ! ", "    ")) for line in troubles), "wrapped lines stand under their text"


@pytest.fixture(scope="module")
def coloured(folder: Path, rows: Path) -> str:
    done = inspect(folder, str(rows), "--rows", "100", FORCE_COLOR="1", TERM="xterm-256color", COLUMNS="120")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_screen_tells_trained_from_masked_by_colour(coloured: str) -> None:
    assert "\x1b[1;32mA" in coloured, "the answer starts in bold green"
    assert "\x1b[2muser" in coloured, "the prompt is dim"
    assert "trained, masked, special and trained, special" in _STYLES.sub("", coloured)
    assert "⟦" not in coloured


def test_text_of_the_data_reaches_the_terminal_inert(coloured: str) -> None:
    left = _STYLES.sub("", coloured)
    assert "\x1b" not in left
    assert "\x07" not in left
    assert "\u202e" not in left
    assert "\x1b[31mred" not in coloured
    assert "[bold]loud[/bold]" in left.replace("·", "")


def test_a_stream_is_not_said_to_be_without_duplicates(folder: Path, rows: Path) -> None:
    """Its rows are not compared."""
    done = inspect(folder, str(rows), "--set", "data.streaming=true", "--set", "training.max_steps=3", "--rows", "0")
    assert "training rows" in done.stdout, done.stderr
    assert "duplicate" not in done.stdout


def test_ids_are_shown_on_demand(folder: Path, rows: Path) -> None:
    done = inspect(folder, str(rows), "--quick", "--ids", NO_COLOR="1", COLUMNS="100")
    start, user = (starter_tokenizer().convert_tokens_to_ids(token) for token in ("<|im_start|>", "user"))
    assert f"<|im_start|>{{{start}}}user{{{user}}}↵{{" in done.stdout, "the id of a line end stands on its line"


def test_an_answer_that_never_starts_is_caught_with_reason_and_fix(folder: Path) -> None:
    """The classic: nothing of any row would be trained. The rows are shown, then why it cannot start."""
    source = write_jsonl(folder / "asked.jsonl", [{"messages": [{"role": "user", "content": "Hi"}]}] * 5)
    done = inspect(folder, str(source), NO_COLOR="1", COLUMNS="100")
    assert done.returncode == 10
    assert "dropped: no answer" in done.stdout
    assert "Hi" in done.stdout
    assert "every label would be -100" in done.stderr
    assert "hint: Check data.format and data.columns" in done.stderr


_LONG_ROWS = 40


@pytest.fixture(scope="module")
def long_rows(folder: Path) -> Path:
    """More than a hundred thousand characters each."""
    pairs = [(f"Question {at}", "word " * 24_000) for at in range(_LONG_ROWS)]
    return write_jsonl(folder / "long.jsonl", chat_rows(*pairs))


def test_the_first_look_at_long_rows_takes_fewer_of_them(folder: Path, long_rows: Path) -> None:
    found = json.loads(inspect(folder, str(long_rows), "--quick", "--json", "--rows", "2").stdout)
    assert len(found["sample"]["rows"]) == 2
    assert 2 <= found["source"]["sampled_rows"] == found["estimate"]["rows"] < 20


def test_few_pieces_of_a_row_split_in_thousands_are_shown(folder: Path, long_rows: Path) -> None:
    split = ("--set", "data.length_policy=split", "--max-length", "20", "--quick")
    row = json.loads(inspect(folder, str(long_rows), *split, "--json").stdout)["sample"]["rows"][0]
    assert row["piece_count"] > 1000
    assert len(row["pieces"]) == 4
    screen = inspect(folder, str(long_rows), *split, NO_COLOR="1").stdout
    assert f"piece 4 of {row['piece_count']:,}: 20 tokens" in screen
    assert f"... {row['piece_count'] - 4:,} pieces more ..." in screen


def test_finished_text_is_said_to_have_no_template(folder: Path) -> None:
    texts = [{"text": f"### Human: Question {at}?### Assistant: Answer {at}."} for at in range(9)]
    screen = inspect(folder, str(write_jsonl(folder / "whole.jsonl", texts)), "--quick", COLUMNS="100").stdout
    assert "finished text without turns: no template, all of it trained" in screen
    assert "loss on responses" not in screen


_PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "qlora_tui.engine.inspect_data"], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_long_rows_are_counted_in_bounded_memory(folder: Path, long_rows: Path) -> None:
    """All of them at once would take twice as much."""
    config = resolve(overrides=[f"data.source={long_rows}"])
    request = {"config": config.model_dump(mode="json"), "shown_rows": 1, "quick": False}
    done = subprocess.run(
        [sys.executable, "-c", _PEAK],
        input=json.dumps(request) + "\n",
        env={**os.environ, "QLORA_TUI_HOME": str(folder / "home")},
        capture_output=True,
        encoding="utf-8",
    )
    *events, peak_kib = done.stdout.splitlines()
    assert json.loads(events[-1])["rows"] == _LONG_ROWS, done.stderr
    assert int(peak_kib) < 280 * 1024, "libraries and mapped files included"


def test_a_bad_row_ends_it_with_its_place_after_the_sample(folder: Path) -> None:
    source = write_jsonl(folder / "broken.jsonl", chat_rows(*[("Hi", "Hello")] * 30))
    with source.open("a") as file:
        file.write('{"messages": [oops\n')
    done = inspect(folder, str(source), NO_COLOR="1")
    assert done.returncode == 10
    assert "Hello" in done.stdout
    assert "broken.jsonl:31" in done.stderr
    assert "--skip-bad-rows" in done.stderr
    skipped = inspect(folder, str(source), "--skip-bad-rows", "--json")
    assert json.loads(skipped.stdout)["report"]["prepared"]["bad_rows"] == 1


def test_what_can_be_read_in_several_ways_lists_them_and_takes_the_choice(folder: Path) -> None:
    source = write_jsonl(folder / "two.jsonl", [{"left": f"l{at}", "right": f"r{at}"} for at in range(9)])
    done = inspect(folder, str(source), "--quick")
    assert done.returncode == 10
    assert "do not say what is asked and what is answered" in done.stderr
    for prompt, response in (("left", "right"), ("right", "left")):
        assert f'data.columns.prompt = "{prompt}", data.columns.response = "{response}"' in done.stderr
    chosen = ("--set", "data.format=two-column", "--set", "data.columns.prompt=right", "--json", "--quick")
    done = inspect(folder, str(source), *chosen)
    assert json.loads(done.stdout)["source"]["used_columns"] == {"prompt": "right", "response": "left"}


def test_a_person_at_the_terminal_is_asked_which_reading_is_meant(folder: Path) -> None:
    source = write_jsonl(folder / "two.jsonl", [{"left": f"l{at}", "right": f"r{at}"} for at in range(9)])
    said, code = at_terminal(folder, b"7\n2\n", str(source), "--quick")
    assert code == 0, said
    assert said.count("Which one, 1 to 2?") == 2, "7 is none of the choices"
    assert "--set 'data.columns.prompt=\"right\"'" in said
    assert "prompt = right, response = left" in said


def at_terminal(folder: Path, typed: bytes, *arguments: str) -> tuple[str, int]:
    """What is seen when a person types, and the exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(QLORA_TUI_HOME=str(folder / "home"), NO_COLOR="1", COLUMNS="120")
        os.execv(sys.executable, [sys.executable, "-m", "qlora_tui", "data", "inspect", *arguments])
    os.write(terminal, typed)
    said = bytearray()
    with contextlib.suppress(OSError):  # Raised where a Linux terminal has no other side any more.
        while piece := os.read(terminal, 4096):
            said += piece
    os.close(terminal)
    return said.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nosuch.jsonl"], 4, "nosuch.jsonl"),
        (["starter", "--template", "chatlm"], 3, "chatlm"),
        (["starter", "--column", "prompt"], 2, "--column prompt=question"),
        (["starter", "--model", "./no/such/model"], 9, "./no/such/model"),
        (["starter", "--revision", "v1"], 10, "it has no revision 'v1'"),
        (["starter", "--config", "small"], 10, "it has no config 'small'"),
    ],
)
def test_mistakes_end_in_one_line_and_a_hint(folder: Path, arguments: list[str], code: int, message: str) -> None:
    done = inspect(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def _columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)
