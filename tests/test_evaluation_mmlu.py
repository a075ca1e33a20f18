"""MMLU from the hub as a file in the original row format, through the real hub libraries from a server here."""

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
from command_line import Result
from hub_server import HubServer

from qlora_tui.errors import ExitCode

SUBJECTS = ("abstract_algebra", "anatomy")
CARD = """\
---
configs:
- config_name: all
  data_files:
  - {split: validation, path: all/validation-*}
  - {split: test, path: all/test-*}
  - {split: dev, path: all/dev-*}
- config_name: few
  data_files:
  - {split: validation, path: few/validation-*}
  - {split: dev, path: few/dev-*}
- config_name: broken
  data_files:
  - {split: validation, path: broken/validation-*}
---
"""
ZERO_SHOT = """\
The following are multiple choice questions (with answers) about  abstract algebra.

validation abstract_algebra 0?
A. a0
B. b0
C. c0
D. d0
Answer:"""
"""Two blanks before the subject, as in the original repository's files."""


def question(split: str, subject: str, number: int) -> dict[str, Any]:
    choices = [f"{letter}{number}" for letter in "abcd"]
    return {"question": f"{split} {subject} {number}?", "subject": subject, "choices": choices, "answer": number % 4}


def put(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("hub")
    home = folder / "datasets" / "cais" / "mmlu"
    for split, count in {"validation": 3, "test": 4, "dev": 5}.items():
        rows = [question(split, subject, number) for subject in SUBJECTS for number in range(count)]
        put(home, f"all/{split}-00000-of-00001.parquet", rows)
    put(home, "few/validation-00000-of-00001.parquet", [question("few", "anatomy", 0)])
    put(home, "few/dev-00000-of-00001.parquet", [question("few", "anatomy", number) for number in (1, 2)])
    put(home, "broken/validation-00000-of-00001.parquet", [{"text": "no question"}])
    (home / "README.md").write_text(CARD)
    with HubServer(folder) as server:
        yield server


PROGRAM = """
import contextlib, io, json, sys
from qlora_tui import cli

def typed(words):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["qlora-tui", "eval", "mmlu-file", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
    return [code, out.getvalue(), err.getvalue()]

print(json.dumps([typed(words) for words in json.loads(sys.argv[1])]))
"""


WRONG = {
    ("--source", "cais/mmul"): "cais/mmul",
    ("--config", "alll"): "no config 'alll'",
    ("--config", "broken", "--shots", "0"): "no MMLU row, which has text",
    ("--shots", "6"): "less than or equal to 5",
}


class Fetched:
    """What commands say, typed one after the other in a process that asks this hub: its address is read once."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub, self.folder, self.cache = hub, folder, folder / "cache"

    def __call__(self, *commands: list[str], **variables: str) -> list[Result]:
        arguments = [[str(self.folder / words[0]), *words[1:]] for words in commands]
        environment = {**os.environ, "HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.cache), **variables}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(arguments)],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=True,
        )  # fmt: skip
        return [Result(*result) for result in json.loads(done.stdout)]

    def rows(self, name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def weights(self) -> list[str]:
        """Requests for the questions themselves."""
        return [line for line in self.hub.requests if line.startswith("GET") and "/storage/" in line]


@pytest.fixture
def fetched(hub: HubServer, tmp_path: Path) -> Fetched:
    hub.requests.clear()
    return Fetched(hub, tmp_path)


def test_nothing_is_fetched_without_a_yes_and_what_is_no_mmlu_is_said(fetched: Fetched) -> None:
    (asked,) = fetched(["no.jsonl", "--shots", "0"])
    assert (asked.code, asked.out) == (ExitCode.DATA, "")
    assert "dataset cais/mmlu" in asked.err and "kB would be downloaded" in asked.err
    assert str(fetched.cache) in asked.err and "--yes" in asked.err
    assert fetched.weights() == []
    found = fetched(*(["no.jsonl", *words, "--yes"] for words in WRONG))
    for (words, says), said in zip(WRONG.items(), found, strict=True):
        assert says in said.err and "Traceback" not in said.err, words
        assert said.code != 0
    assert not (fetched.folder / "no.jsonl").exists()


def test_rows_are_those_of_the_original_files_zero_shot_and_five_shot(fetched: Fetched) -> None:
    zero, five, few = fetched(
        ["zero.jsonl", "--shots", "0", "--yes"],
        ["five.jsonl", "--split", "test", "--yes"],
        ["few.jsonl", "--config", "few", "--yes"],
    )
    assert (zero.code, five.code) == (0, 0), zero.err + five.err
    rows = fetched.rows("zero.jsonl")
    assert rows[0] == {"subject": "abstract_algebra", "input": ZERO_SHOT, "output": "A"}
    assert [(row["subject"], row["output"]) for row in rows] == [(one, letter) for one in SUBJECTS for letter in "ABC"]

    rows = fetched.rows("five.jsonl")
    assert len(rows) == 8
    heading, *shown, asked = rows[-1]["input"].split("\n\n")
    assert heading.endswith("about  anatomy.")
    assert [one.splitlines()[0] for one in shown] == [f"dev anatomy {number}?" for number in range(5)]
    assert [one[-len("Answer: A") :] for one in shown] == [f"Answer: {letter}" for letter in "ABCDA"]
    assert asked.startswith("test anatomy 3?") and asked.endswith("\nAnswer:")
    assert rows[-1]["output"] == "D"
    assert few.code == ExitCode.DATA and "anatomy has 2 examples in split 'dev', not 5" in few.err

    (again,) = fetched(["again.jsonl", "--shots", "0"], HF_HUB_OFFLINE="1")
    assert again.code == 0, again.err
    assert fetched.rows("again.jsonl") == fetched.rows("zero.jsonl")
