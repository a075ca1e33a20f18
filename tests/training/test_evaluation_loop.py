"""The whole way: two adapters trained, asked, judged in both orders by a judge that fails, ranked and reported."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, command
from judge_server import JudgeServer
from training_material import Runs

from qlora_tui.evaluation.predictions import Answer, answers_file, read_answers
from qlora_tui.runs.store import RunFolder
from qlora_tui.starter import HELDOUT_DATA

__all__ = ["command"]
QUESTIONS = 6
COMPARISONS = 2 * QUESTIONS
RANKS = {"narrow": 2, "wide": 32}
PROGRAM = "import sys; sys.argv[0] = 'qlora-tui'; from qlora_tui.cli import main; main()"
FAILURES: list[int | str] = [429, "drop", 503, 429]


@pytest.mark.long
def test_two_adapters_are_trained_asked_judged_ranked_and_reported(runs: Runs, command: Cli, tmp_path: Path) -> None:
    trained = [
        runs.finished(name, f"adapter.rank={rank}", "training.learning_rate=1e-2") for name, rank in RANKS.items()
    ]
    file = write_questions(tmp_path / "held-out.jsonl")
    for run in trained:
        result = command("eval", "generate", run.name, str(file), "--max-tokens", "24")
        assert result.code == 0, result.err
    verdicts = tmp_path / "verdicts.jsonl"
    words = ["arena", "judge", *RANKS, "--set", "held-out", "--questions", str(file), "--out", str(verdicts)]
    with JudgeServer() as server:
        judge_through_a_kill(server, [*words, "--model", "longer", "--base-url", server.url], verdicts)

    rows = read(verdicts)
    expected = expected_verdicts({run.name: answers_of(run) for run in trained})
    assert set(expected.values()) == {1, 2}, "answers of the same length everywhere rank nothing"
    found = {(row["model_1"], row["model_2"], str(row["question_id"])): row["score"] for row in rows}
    assert found == expected
    assert_ranking_is_of(command, verdicts, expected)

    page = tmp_path / "report.html"
    result = command("runs", "compare", *RANKS, "--verdicts", str(verdicts), "--html", str(page), "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["settings"]["adapter.rank"] == list(RANKS.values())
    html = page.read_text()
    assert "<svg" in html
    assert "adapter.rank" in html
    assert "Judged answers" in html
    assert all(name in html for name in RANKS)
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html


def judge_through_a_kill(server: JudgeServer, words: list[str], out: Path) -> None:
    """Judge with failures on the way, kill it in the middle, and run the same command again.

    No request that got a verdict is sent a second time.
    """
    program = [sys.executable, "-c", PROGRAM, *words]
    server.failures, server.hold_after = list(FAILURES), COMPARISONS // 2
    with subprocess.Popen(program, stderr=subprocess.DEVNULL, env=os.environ) as process:
        while not out.exists() or len(out.read_bytes().splitlines()) < COMPARISONS // 2:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert not server.failures
    kept = out.read_bytes()
    server.failures, server.hold_after = list(FAILURES), None
    resumed = subprocess.run(program, capture_output=True, text=True, env=os.environ)
    assert resumed.returncode == 0, resumed.stderr
    assert out.read_bytes().startswith(kept)
    assert not server.failures
    assert len(server.answered) == len(set(server.answered)) == COMPARISONS
    assert sorted(row["review_id"] for row in read(out)) == sorted(server.answered)


def write_questions(path: Path) -> Path:
    rows = [json.loads(line)["messages"] for line in HELDOUT_DATA.read_text().splitlines()[:QUESTIONS]]
    questions = [
        {"question_id": number, "text": turns[0]["content"], "category": "knowledge"}
        for number, turns in enumerate(rows, start=1)
    ]
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return path


def answers_of(run: RunFolder) -> dict[str, Answer]:
    answers = read_answers(answers_file(run, "held-out", "adapter"))
    assert len(answers) == QUESTIONS
    return answers


def expected_verdicts(answers: dict[str, dict[str, Answer]]) -> dict[tuple[str, str, str], int]:
    """What a judge that prefers more words, then the first shown, says: by first model, second model and question."""
    expected = {}
    for first, second in (("narrow", "wide"), ("wide", "narrow")):
        for question, answer in answers[first].items():
            longer = len(answer.text.split()) >= len(answers[second][question].text.split())
            expected[first, second, question] = 1 if longer else 2
    return expected


def assert_ranking_is_of(command: Cli, verdicts: Path, expected: dict[tuple[str, str, str], int]) -> None:
    """Wins as counted by hand, ratings that sum to what everyone began with, order bias as it is."""
    result = command("arena", "elo", str(verdicts), "--orders", "200", "--json")
    assert result.code == 0, result.err
    ranking = json.loads(result.out)
    wins = dict.fromkeys(RANKS, 0)
    for (first, second, _), score in expected.items():
        wins[first if score == 1 else second] += 1
    assert {one["model"]: one["wins"] for one in ranking["standings"]} == wins
    assert sum(one["elo"] for one in ranking["standings"]) == pytest.approx(2000)
    better = max(wins, key=lambda name: wins[name])
    if len(set(wins.values())) > 1:
        assert ranking["standings"][0]["model"] == better
    firsts = sum(score == 1 for score in expected.values())
    assert ranking["order_bias"]["first_share"] == pytest.approx(firsts / COMPARISONS)
    assert ranking["pairs"][0]["both_orders"] == QUESTIONS


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
