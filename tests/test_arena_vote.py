"""The blind vote: keys, sides, undo, resuming, several annotators; on a pipe and on a real terminal."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, Result, command

from qlora_tui.arena.judge import comparisons
from qlora_tui.arena.vote import ballots
from qlora_tui.evaluation import row_log
from qlora_tui.evaluation.predictions import read_answers
from qlora_tui.evaluation.questions import read_questions

__all__ = ["command"]
PROGRAM = "import sys; sys.argv[0] = 'qlora-tui'; from qlora_tui.cli import main; main()"
QUESTIONS = 8


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    found = []
    for name in ("left", "right"):
        rows = [{"question_id": n, "text": f"Question {n}?", "generation": f"word-of-{name}"} for n in range(QUESTIONS)]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found.append(str(path))
    return found


class Voter:
    def __init__(self, command: Cli, monkeypatch: pytest.MonkeyPatch, files: list[str], out: Path) -> None:
        self.command, self.monkeypatch, self.files, self.out = command, monkeypatch, files, out

    def vote(self, keys: str, annotator: str = "ann") -> Result:
        self.monkeypatch.setattr("sys.stdin", io.StringIO("".join(key + "\n" for key in keys)))
        return self.command("arena", "vote", *self.files, "--out", str(self.out), "--annotator", annotator)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]


@pytest.fixture
def voter(command: Cli, monkeypatch: pytest.MonkeyPatch, files: list[str], tmp_path: Path) -> Voter:
    return Voter(command, monkeypatch, files, tmp_path / "votes.jsonl")


def test_keys_become_votes_and_sources_are_told_at_the_end_only(voter: Voter) -> None:
    part = voter.vote("123s")
    assert part.code == 0 and "3 votes stored" in part.err
    assert "left\t" not in part.out and "wins" not in part.out
    assert [row["score"] for row in voter.rows()] == [1, 2, 3]
    rest = voter.vote("1" * QUESTIONS)
    assert f"all {QUESTIONS} ballots are voted on, 1 of them ties" in rest.err
    wins = dict(line.split("\t")[:2] for line in rest.out.splitlines() if line.count("\t") == 2)
    rows = voter.rows()
    for model in ("left", "right"):
        expected = sum((row["model_1"], row["model_2"])[row["score"] - 1] == model for row in rows if row["score"] < 3)
        assert wins[model] == str(expected)


def test_undo_takes_back_votes_and_skips_of_this_session(voter: Voter) -> None:
    voter.vote("1")
    first = voter.rows()
    result = voter.vote("2usuuu1")
    assert "nothing to undo" in result.err
    assert voter.rows()[:1] == first and [row["score"] for row in voter.rows()] == [1, 1]


def test_unknown_keys_show_the_keys(voter: Voter) -> None:
    assert "3 tie" in voter.vote("x").err
    assert voter.rows() == []


def test_annotators_vote_apart_and_their_agreement_is_measured(voter: Voter, command: Cli) -> None:
    for who in ("ann", "bob"):
        for row in _unvoted(voter, who):
            voter.vote("1" if row == "left" else "2", who)
    assert len(voter.rows()) == 2 * QUESTIONS
    found = json.loads(command("arena", "elo", str(voter.out), "--orders", "10", "--json").out)
    assert found["annotators"]["items"] == QUESTIONS
    assert found["standings"][0]["model"] == "left"
    assert found["standings"][0]["wins"] == 2 * QUESTIONS
    majority = json.loads(command("arena", "elo", str(voter.out), "--orders", "10", "--majority", "--json").out)
    assert majority["matches"] == QUESTIONS


def _unvoted(voter: Voter, who: str) -> list[str]:
    contestants = {Path(file).stem: read_answers(Path(file)) for file in voter.files}
    questions = read_questions(Path(voter.files[0]))
    return [ballot.model_1 for ballot in ballots(questions, contestants, who)]


def test_sides_and_order_differ_between_annotators_and_stay_for_each(files: list[str]) -> None:
    contestants = {Path(file).stem: read_answers(Path(file)) for file in files}
    questions = read_questions(Path(files[0]))

    def seen(who: str) -> list[tuple[str, str]]:
        return [(one.question.question_id, one.model_1) for one in ballots(questions, contestants, who)]

    assert seen("ann") == seen("ann") != seen("bob")
    assert {model for _, model in seen("ann")} == {"left", "right"}
    assert len(comparisons(questions, contestants, "three-class")) == 2 * len(seen("ann"))


def test_single_keys_on_a_terminal_with_answers_that_try_to_paint_it(tmp_path: Path) -> None:
    for name, text in (("a", "\x1b[2Jgone [bold]bold[/bold]"), ("b", "\u202eplain")):
        row = {"question_id": 1, "text": "[red]Question[/red]?", "generation": text}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    words = ["arena", "vote", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    words += ["--out", str(tmp_path / "v.jsonl"), "--annotator", "ann"]
    screen, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], stdin=side, stdout=side, stderr=side, env=environment
    ) as process:
        os.close(side)
        shown = b""
        while b"q quit" not in shown:
            shown += os.read(screen, 4096)
        os.write(screen, b"2")
        while b"ballots are voted on" not in shown:
            shown += os.read(screen, 4096)
    os.close(screen)
    assert process.returncode == 0
    text = shown.decode()
    assert "\x1b[2J" not in text and "\u202e" not in text
    assert "[bold]bold[/bold]" in text and "[red]Question[/red]?" in text
    assert json.loads((tmp_path / "v.jsonl").read_text())["score"] == 2


def test_a_second_writer_is_refused(voter: Voter) -> None:
    with row_log.opened(voter.out):
        result = voter.vote("1")
    assert result.code == 5 and "being written by another process" in result.err


def test_a_damaged_line_is_named(voter: Voter) -> None:
    voter.out.write_text('{"review_id": 1}\nnonsense\n')
    result = voter.vote("1")
    assert result.code == 10 and "votes.jsonl:2" in result.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"question_id": 1, "text": "a"}\n{"question_id": 1, "text": "b"}\n', ":2: question_id 1 is that of"),
        ('{"question_id": 1, "category": "x"}\n', ":1: no question in this row"),
    ],
)
def test_bad_question_files_are_named(command: Cli, files: list[str], tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(content)
    words = ("arena", "vote", *files, "-o", str(tmp_path / "v"), "-a", "ann", "--questions", str(path))
    result = command(*words)
    assert result.code == 10 and says in result.err


def test_plain_text_lines_are_questions(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_text("Why?\n\n  And how?  \n")
    assert [(one.question_id, one.text, one.category) for one in read_questions(path)] == [
        ("1", "Why?", "general"),
        ("2", "And how?", "general"),
    ]
