"""Data that cannot be used, or looks as if it could not, through the whole command: `qlora-tui train --data FILE`."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_server import HubServer
from test_data_hub import hub
from training_material import SMALL, Runs

from qlora_tui.errors import ExitCode
from qlora_tui.runs import jobs

__all__ = ["hub"]

GOOD = [json.dumps({"prompt": f"What is door {n}?", "completion": f"Wood {n}."}) for n in range(8)]


def among(line: str) -> bytes:
    """A file whose fifth line is `line`."""
    return "\n".join([*GOOD[:4], line, *GOOD[4:], ""]).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Bad:
    content: bytes
    said: str
    settings: tuple[str, ...] = ()


SKIPPABLE = {
    "broken JSON": Bad(among('{"prompt": "a", "completion": }'), "rows.jsonl:5: column 31: broken JSON"),
    "mixed schemas": Bad(among('{"question": "a", "completions": "b"}'), "rows.jsonl:5: no column 'prompt'"),
    "missing value": Bad(among('{"prompt": "a", "completion": null}'), "rows.jsonl:5: column 'completion' is empty"),
    "wrong encoding": Bad(among("x").replace(b"x", b'{"prompt": "caf\xe9", "completion": "b"}'), "byte 0xe9"),
    "duplicate key": Bad(among('{"prompt": "a", "prompt": "c", "completion": "b"}'), "key 'prompt' appears twice"),
    "number for text": Bad(among('{"prompt": "a", "completion": 4}'), "holds the number 4 where text belongs"),
    "list for text": Bad(
        among('{"prompt": "a", "completion": [4]}'), "the number 4 where an object with role and content"
    ),
    "null byte": Bad(among('{"prompt": "a\\u0000", "completion": "b"}'), "rows.jsonl:5: "),
    "deep nesting": Bad(among('{"prompt": ' + "[" * 100_000 + "}"), "rows.jsonl:5: JSON is nested too deeply"),
    "lone surrogate": Bad(among('{"prompt": "a\\ud800", "completion": "b"}'), "lone surrogate (U+D800)"),
}
REFUSED = {
    "empty": Bad(b"", "holds no rows"),
    "wrong column": Bad(among(GOOD[0]), "Did you mean 'prompt'?", ("data.columns.prompt=promt",)),
    "unknown split": Bad(among(GOOD[0]), "has no split 'tset'", ("data.split=tset",)),
    "empty answers": Bad(b'{"prompt": "a", "completion": ""}\n' * 9, "every answer of 9 rows is empty"),
    "no answers": Bad(b'{"messages": [{"role": "user", "content": "a"}]}\n' * 9, "no answer to learn in any of 9 rows"),
}
USABLE = {
    "byte order mark": b"\xef\xbb\xbf" + among(GOOD[0]),
    "UTF-16": among(GOOD[0]).decode().encode("utf-16"),
    "CRLF": among(GOOD[0]).replace(b"\n", b"\r\n"),
    "ten megabytes": among(json.dumps({"prompt": "a", "completion": "b " * 5_000_000})),
    "escapes and markup": among(json.dumps({"prompt": "\x1b[2J[red]a[/red]", "completion": "\x1b]0;b\x07"})),
}


def train(folder: Path, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`train`, in the foreground; whatever happens, no traceback and no control characters."""
    options = [part for setting in SMALL for part in ("--set", setting)]
    command = [sys.executable, "-m", "qlora_tui", "train", "--model", "starter", "--name", "it", *options, *words]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    assert not set(done.stderr + done.stdout) & {"\x00", "\x07", "\x1b"}
    return done


def put(folder: Path, bad: Bad) -> list[str]:
    path = folder / "rows.jsonl"
    path.write_bytes(bad.content)
    return ["--data", str(path), *(part for setting in bad.settings for part in ("--set", setting))]


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.long
@pytest.mark.parametrize("name", [*SKIPPABLE, *REFUSED])
def test_data_that_cannot_be_used_is_refused_by_name(tmp_path: Path, name: str) -> None:
    bad = SKIPPABLE.get(name) or REFUSED[name]
    refused = train(tmp_path, *put(tmp_path, bad))
    assert refused.returncode == ExitCode.DATA, refused.stderr
    assert bad.said in flat(refused.stderr)
    assert ("data.skip_bad_rows" in refused.stderr) == (name in SKIPPABLE)


@pytest.mark.long
def test_bad_rows_are_skipped_and_counted_when_asked(runs: Runs, tmp_path: Path) -> None:
    lines = [bad.content.splitlines()[4] for bad in SKIPPABLE.values()]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([*(line.encode() for line in GOOD), *lines]))
    run = runs.finished("it", f"data.source={path}", "data.skip_bad_rows=true", "training.max_steps=1")
    dataset = jobs.replay(run).dataset
    assert dataset is not None
    assert (dataset.report["bad_rows"], dataset.train_rows) == (len(SKIPPABLE), len(GOOD))
    assert any("rows.jsonl:9: column 31: broken JSON" in example for example in dataset.report["bad_row_examples"])


@pytest.mark.long
def test_data_that_only_looks_odd_is_trained_on(runs: Runs, tmp_path: Path) -> None:
    paths = []
    for name, content in USABLE.items():
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_bytes(content)
    mix = ", ".join(f"{{source = {json.dumps(str(path))}}}" for path in paths[1:])
    settings = [f"data.source={paths[0]}", f"data.mix=[{mix}]", "data.max_train_rows=none", "training.max_steps=1"]
    dataset = jobs.replay(runs.finished("it", *settings)).dataset
    assert dataset is not None
    assert dataset.train_rows == 9 * len(USABLE)
    assert dataset.report["truncated_rows"] == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("yizhongw/self_instruct", "is a Python script (self_instruct.py), which is never run"),
        ("closed/gated", "closed/gated is gated"),
        ("nobody/nothing", "no dataset nobody/nothing on the hub"),
    ],
)
def test_hub_sets_that_cannot_be_had_say_why(hub: HubServer, tmp_path: Path, source: str, said: str) -> None:
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")}
    refused = train(tmp_path, "--data", source, "--yes", environment=environment)
    assert refused.returncode == ExitCode.DATA, refused.stderr
    assert said in flat(refused.stderr)


@pytest.mark.long
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "cache").write_text("a file where the folder would be")
    words = put(tmp_path, Bad(among(GOOD[0]), ""))
    refused = train(tmp_path, *words, environment={"QLORA_TUI_HOME": str(home)})
    assert refused.returncode == ExitCode.STORAGE, refused.stderr
    assert str(home / "cache") in flat(refused.stderr).replace(" ", "")
