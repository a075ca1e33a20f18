"""A model on this machine as the judge, through the chat process: the verdicts an endpoint would give, and resumed.

It is a run, one side of it, or a base model without any run.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, command
from hub_server import HubServer

from qlora_tui.chat import client
from qlora_tui.config.overrides import resolve
from qlora_tui.errors import ExitCode
from qlora_tui.runs import store
from qlora_tui.starter import MODEL_DIR

__all__ = ["command"]
QUESTIONS = 4
COMPARISONS = 2 * QUESTIONS
PROGRAM = (
    "from qlora_tui.chat import client; client.PROCESS = 'fake_chat'; from qlora_tui.cli import main; "
    "import sys; sys.argv[0] = 'qlora-tui'; main()"
)


@pytest.fixture(autouse=True)
def jury(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run whose process prefers the longer answer."""
    monkeypatch.setattr(client, "PROCESS", "fake_chat")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("FAKE_CHAT", "judge")
    store.create("jury", resolve("starter"), {}).adapter.mkdir()


@pytest.fixture
def answers(tmp_path: Path) -> list[str]:
    files = []
    for name, text in (("short", "one"), ("long", "one two")):
        rows = [{"question_id": n, "text": f"Question {n}?", "generation": text} for n in range(QUESTIONS)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files.append(str(tmp_path / f"{name}.jsonl"))
    return files


def words(answers: list[str], out: Path, *more: str, judge: str = "run:jury") -> list[str]:
    return ["arena", "judge", *answers, "--out", str(out), "--judge", judge, *more]


def verdicts(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("judge", ["run:jury", "run:jury:base", "model:starter", f"model:{MODEL_DIR}"])
def test_a_model_judges_both_orders_at_no_cost(command: Cli, answers: list[str], tmp_path: Path, judge: str) -> None:
    out = tmp_path / "v.jsonl"
    result = command(*words(answers, out, "--json", judge=judge))
    assert result.code == 0, result.err
    assert "loading the parrot" in result.err
    assert "cost" not in result.err
    tally = json.loads(result.out)
    assert (tally["done"], tally["unparsed"]) == (COMPARISONS, 0)
    assert tally["prompt_tokens"] == 5 * COMPARISONS
    rows = verdicts(out)
    assert {row["reviewer_id"] for row in rows} == {judge}
    assert {(row["model_1"], row["model_2"], row["score"]) for row in rows} == {
        ("short", "long", 2),
        ("long", "short", 1),
    }
    ranked = json.loads(command("arena", "elo", str(out), "--orders", "20", "--json").out)
    assert [standing["model"] for standing in ranked["standings"]] == ["long", "short"]


def test_a_run_that_dies_goes_on_without_asking_anything_twice(
    command: Cli, answers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v.jsonl"
    monkeypatch.setenv("FAKE_CHAT", "judge 5")
    result = command(*words(answers, out))
    assert result.code == ExitCode.ENVIRONMENT
    assert "the chat process ended (exit code 3)" in result.err
    assert "stdio.log" in result.err
    first = out.read_bytes()
    assert len(verdicts(out)) == 5
    monkeypatch.setenv("FAKE_CHAT", f"judge {COMPARISONS - 5}")  # one question more, and it dies
    result = command(*words(answers, out, "--json"))
    assert result.code == 0, result.err
    assert out.read_bytes().startswith(first)
    assert json.loads(result.out)["from_before"] == 5
    assert len({row["review_id"] for row in verdicts(out)}) == len(verdicts(out)) == COMPARISONS


def test_a_model_is_no_run_and_leaves_none_behind(command: Cli, answers: list[str], tmp_path: Path) -> None:
    """A folder is known by its whole path, so the verdicts are the same judge's from wherever it is asked."""
    out = tmp_path / "v.jsonl"
    assert command(*words(answers, out, judge=f"model:{os.path.relpath(MODEL_DIR)}")).code == 0
    assert {row["reviewer_id"] for row in verdicts(out)} == {f"model:{MODEL_DIR}"}
    assert [run.name for run in store.all_runs()] == ["jury"]


def test_a_model_from_the_hub_is_downloaded_with_a_yes_only(answers: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    home = folder / "models" / "open" / "judge"
    home.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (home / name).write_bytes(b"{}" if name.endswith(".json") else bytes(1_500_000))
    with HubServer(folder) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        asked = words(answers, tmp_path / "v.jsonl", judge="model:open/judge")
        refused = subprocess.run(
            [sys.executable, "-c", PROGRAM, *asked], capture_output=True, text=True, stdin=subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
        assert refused.returncode == ExitCode.USAGE, refused.stderr
        assert "model open/judge" in refused.stderr and "1.5 MB" in refused.stderr and "--yes" in refused.stderr
        assert hub.file_requests() == []
        agreed = subprocess.run([sys.executable, "-c", PROGRAM, *asked, "--yes"], env=environment)
        assert agreed.returncode == 0
    assert {row["reviewer_id"] for row in verdicts(tmp_path / "v.jsonl")} == {"model:open/judge"}


def test_nothing_is_loaded_when_nothing_is_left_to_ask(
    command: Cli, answers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v.jsonl"
    assert command(*words(answers, out)).code == 0
    monkeypatch.setattr(client, "PROCESS", "no_such_module")
    result = command(*words(answers, out))
    assert result.code == 0, result.err
    assert f"{COMPARISONS}/{COMPARISONS} verdicts, 0 of them new" in result.err


def test_an_interrupt_stops_the_verdict_that_is_being_written(answers: list[str], tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"
    program = [sys.executable, "-c", PROGRAM, *words(answers, out)]
    with subprocess.Popen(
        program, stderr=subprocess.PIPE, text=True, env={**os.environ, "FAKE_CHAT": "judge hold 3"}
    ) as process:
        while len(out.read_bytes().splitlines() if out.exists() else []) < 3:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == ExitCode.CANCELLED, said
    assert "Run the same command again" in said
    assert len(verdicts(out)) == 3


def test_prompts_beyond_the_context_are_refused_and_end_it(
    command: Cli, answers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CHAT", "refuse")
    result = command(*words(answers, tmp_path / "v.jsonl"))
    assert result.code == ExitCode.INTERNAL
    assert "refuses every prompt: the question takes 700 tokens" in result.err
    assert "longer context" in result.err


@pytest.mark.parametrize(
    ("more", "judge", "code", "says"),
    [
        ([], "run:nobody", ExitCode.NOT_FOUND, "no run named 'nobody'"),
        ([], "jury", ExitCode.USAGE, "Write run:NAME"),
        ([], "run:jury:bsae", ExitCode.USAGE, "no such judge"),
        ([], "model:", ExitCode.USAGE, "no such judge"),
        ([], "model:./nowhere", ExitCode.MODEL, "model folder nowhere does not exist"),
        ([], "model:owner/none", ExitCode.MODEL, "owner/none"),
        ([], "run:unfinished", ExitCode.CONFLICT, "no finished adapter yet"),
        (["--device", "gpu"], "run:jury", ExitCode.USAGE, "'gpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["--model", "m"], "run:jury", ExitCode.USAGE, "--model is for an endpoint"),
        (["--concurrency", "4"], "model:starter", ExitCode.USAGE, "--concurrency is for an endpoint"),
        (["--temperature", "0.5"], "run:jury", ExitCode.USAGE, "--temperature is for an endpoint"),
    ],
)
def test_a_judge_that_cannot_be_is_named(
    command: Cli, answers: list[str], tmp_path: Path, more: list[str], judge: str, code: int, says: str
) -> None:
    store.create("unfinished", resolve("starter"), {})
    result = command(*words(answers, tmp_path / "v.jsonl", *more, judge=judge))
    assert (result.code, result.out) == (code, ""), result.err
    assert says in result.err
    assert "Traceback" not in result.err


def test_no_judge_at_all_is_refused(command: Cli, answers: list[str], tmp_path: Path) -> None:
    result = command("arena", "judge", *answers, "--out", str(tmp_path / "v.jsonl"))
    assert result.code == ExitCode.USAGE
    assert "--judge run:NAME" in result.err
