"""The question sets of the QLoRA paper by name, through the real hub libraries from a server here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer

from qlora_tui.config.data import SourceSpec
from qlora_tui.errors import ExitCode
from qlora_tui.evaluation.questions import questions_of, read_questions

VICUNA = ("How can I improve my time management skills?", "What are the most effective ways to deal with stress?")
"""The first two questions."""


def message(name: str, parent: str | None, role: str, text: str, rank: int | None = None) -> dict[str, Any]:
    return {
        "message_id": name, "parent_id": parent, "role": role, "text": text, "rank": rank, "lang": "es"
    }  # fmt: skip


OASST = [
    message("q1", None, "prompter", "¿Quién?"),
    message("a1", "q1", "assistant", "Ana.", 1),
    message("a2", "q1", "assistant", "Ana, la médica.", 0),
    message("q2", "a1", "prompter", "¿Dónde?"),
    message("a3", "q2", "assistant", "Aquí.", 0),
    message("q3", "a2", "prompter", "unanswered"),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("hub")
    alpaca_eval = folder / "datasets" / "tatsu-lab" / "alpaca_eval"
    alpaca_eval.mkdir(parents=True)
    rows = [{"instruction": "Write a poem.", "dataset": "koala", "output": "x"}]
    rows += [{"instruction": text, "dataset": "vicuna", "output": "x"} for text in ("A new one?", *reversed(VICUNA))]
    (alpaca_eval / "alpaca_eval.json").write_text(json.dumps(rows))
    (alpaca_eval / "alpaca_eval.py").write_text("raise SystemExit('never run')\n")
    (alpaca_eval / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    oasst = folder / "datasets" / "OpenAssistant" / "oasst1" / "data"
    oasst.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(OASST), oasst / "validation-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(OASST[:1]), oasst / "train-00000-of-00001.parquet")
    with HubServer(folder) as server:
        yield server


def typed(hub: HubServer, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "qlora_tui", "eval", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment
    )


def test_vicuna_questions_get_their_original_numbers_and_categories(hub: HubServer, tmp_path: Path) -> None:
    refused = typed(hub, tmp_path, "questions", "vicuna")
    assert refused.returncode == ExitCode.DATA
    assert "tatsu-lab/alpaca_eval" in refused.stderr and "--yes" in refused.stderr
    done = typed(hub, tmp_path, "questions", "vicuna", "--yes")
    assert done.returncode == 0, done.stderr
    assert "licence: CC-BY-NC-4.0" in done.stderr
    found = [(one.question_id, one.text, one.category) for one in read_questions(tmp_path / "vicuna.jsonl")]
    assert found == [("1", VICUNA[0], "generic"), ("2", VICUNA[1], "generic"), ("81", "A new one?", "general")]


def test_open_assistant_questions_are_conversations_with_their_best_answer(hub: HubServer, tmp_path: Path) -> None:
    done = typed(hub, tmp_path, "questions", "oa", "own.jsonl", "--yes")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    assert [(row["message_id"], row["output"]) for row in rows] == [("a2", "Ana, la médica."), ("a3", "Aquí.")]
    assert rows[1]["text"] == "### Human: ¿Quién? ### Assistant: Ana. ### Human: ¿Dónde? ### Assistant:"
    first, second = questions_of(SourceSpec(source=str(tmp_path / "own.jsonl")), None)
    assert (first.question_id, first.kept["lang"], first.kept["message_id"]) == ("a2", "es", "a2")
    assert second.conversation == (
        {"role": "user", "content": "¿Quién?"},
        {"role": "assistant", "content": "Ana."},
        {"role": "user", "content": "¿Dónde?"},
    )


def test_sets_are_listed_with_their_licences_and_a_typo_is_named(hub: HubServer, tmp_path: Path) -> None:
    listed = typed(hub, tmp_path, "questions")
    assert [line.partition(":")[0] for line in listed.stdout.splitlines()] == ["vicuna", "oa"]
    assert listed.stdout.count("licence:") == 2
    wrong = typed(hub, tmp_path, "questions", "vicunna")
    assert wrong.returncode == ExitCode.NOT_FOUND
    assert "'vicuna'" in wrong.stderr
