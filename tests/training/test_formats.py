"""From a file in any format, or a known set on the hub, through the command line to a finished run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from test_data_hub import hub
from training_material import SMALL, Runs

from qlora_tui.data.registry import KNOWN
from qlora_tui.runs import jobs, store

__all__ = ["hub"]

_ASK = [{"role": "user", "content": "What is a door?"}, {"role": "assistant", "content": "A door is wood."}]
_HH = "\n\nHuman: What is a door?\n\nAssistant: A door is wood."
_GUANACO = "### Human: What is a door?### Assistant: A door is wood."
FORMATS: dict[str, dict[str, Any]] = {
    "messages": {"messages": _ASK},
    "sharegpt": {"conversations": [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A door."}]},
    "alpaca": {"instruction": "Name it.", "input": "the door", "output": "A door."},
    "prompt-completion": {"prompt": "What is door?", "completion": "A door."},
    "input-output": {"input": "What is door?", "output": "A door."},
    "two-column": {"question": "What is door?", "answer": "A door."},
    "preference": {"chosen": _HH, "rejected": _HH + " No."},
    "hh-rlhf": {"chosen": _HH, "rejected": _HH + " No."},
    "guanaco": {"text": _GUANACO},
    "guanaco-turns": {"text": _GUANACO},
    "chip2": {"text": "<human>: What is it?\n<bot>: A door.", "metadata": {"source": "x"}},
    "text": {"text": "A door is made of wood."},
}
_DETECTED = {"hh-rlhf": "preference", "guanaco-turns": "guanaco"}
"""Formats that are another reading of the same rows and must be asked for."""


def write(folder: Path, name: str) -> Path:
    """Sixteen different rows, so that none is a duplicate of another."""
    path = folder / f"rows-{name}.jsonl"
    lines = [json.dumps(FORMATS[name]).replace("door", f"door{number}") for number in range(16)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_format_trains_in_one_mixed_run(runs: Runs, tmp_path: Path) -> None:
    """All rows of all formats arrive, each detected or read as asked."""
    first, *others = FORMATS
    mix = [{"source": str(write(tmp_path, name)), "format": name if name in _DETECTED else "auto"} for name in others]
    tables = ", ".join(
        "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in source.items()) + "}" for source in mix
    )
    source = f"data.source={write(tmp_path, first)}"
    run = runs.create("mixed", source, f"data.mix=[{tables}]", "data.max_train_rows=none", "training.max_steps=1")
    state = runs.train(run)
    assert state.phase == "finished", state.failed
    assert state.dataset is not None and state.dataset.train_rows == 16 * len(FORMATS)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_trains_from_the_command_line(tmp_path: Path, name: str) -> None:
    wanted = ("--set", f"data.format={name}") if name in _DETECTED else ()
    train(tmp_path, dict(os.environ), "--data", str(write(tmp_path, name)), *wanted)
    dataset = jobs.replay(store.find("it")).dataset
    assert dataset is not None
    assert dataset.report["format"] == name


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_each_known_set_trains_from_the_hub(hub: HubServer, tmp_path: Path, name: str) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")}
    train(tmp_path, environment, "--data", name, "--yes")


def train(folder: Path, environment: dict[str, str], *options: str) -> None:
    """Two steps of the starter on the data, in the foreground."""
    settings = [part for setting in (*SMALL, "training.max_steps=2") for part in ("--set", setting)]
    command = [sys.executable, "-m", "qlora_tui", "train", "--model", "starter", "--name", "it", *settings, *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
