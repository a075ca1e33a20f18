"""What a run ends with: the best weights, a whole model after full finetuning, a model that was downloaded first."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from training_material import SMALL

from qlora_tui.config.overrides import resolve
from qlora_tui.engine import train
from qlora_tui.engine.session import Session
from qlora_tui.errors import ConfigError
from qlora_tui.runs import events, jobs, store
from qlora_tui.runs.event_log import EventReader
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder
from qlora_tui.starter import MODEL_DIR

FULL = ("quantization.kind=none", "adapter.kind=full", "adapter.dropout=0")


def trained_here(name: str, *overrides: str) -> tuple[RunFolder, RunState]:
    """A run trained by this process, as its worker would."""
    run = store.create(name, resolve(overrides=(*SMALL, *overrides)), {})
    session = Session(run, RunState())
    options = {"allow_download": False, "accept_changed_data": False, "replan_on_oom": False}
    train.run(session, run.load_config(), None, **options)
    return run, session.state


def test_the_best_weights_are_kept_where_no_checkpoint_is_due(tmp_path: Path) -> None:
    """And multiple choice is measured at each evaluation."""
    questions = tmp_path / "mmlu.jsonl"
    questions.write_text(json.dumps({"subject": "lamps", "input": "A. red\nB. blue\nAnswer:", "output": "A"}) + "\n")
    run, state = trained_here(
        "one", f"training.mmlu_file={questions}",
        "data.eval_rows=8", "training.max_steps=4", "training.eval_every_steps=1", "training.save_every_steps=4",
        "training.best_checkpoint=true", "training.learning_rate=0.3", "training.keep_checkpoints=1",
    )  # fmt: skip
    assert not [str(path) for path in run.path.rglob("*") if path.stat().st_mode & 0o077], "others may read them"
    losses = {point.step: point.loss for point in state.evals.points() if point.loss is not None}
    best = min(losses, key=lambda step: losses[step])
    assert best < 4, losses
    assert state.finished is not None
    assert state.finished.metrics["eval_loss"] == losses[best]
    assert [set(point.metrics) >= {"mmlu_macro_accuracy", "mmlu_lamps"} for point in state.evals.points()] == [True] * 5


def test_a_device_that_auto_became_is_held_to_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for setting in ("quantization.compute_dtype=float16", "model.attention=flash_attention_2"):
        with pytest.raises(ConfigError, match=r"excludes model\.device = cpu"):
            trained_here(setting.partition("=")[2], "model.device=auto", setting)


def test_full_finetuning_leaves_a_whole_model() -> None:
    run, _ = trained_here("one", *FULL, "training.max_steps=1")
    assert json.loads((run.adapter / "config.json").read_text())["use_cache"] is True
    assert (run.adapter / "generation_config.json").exists()
    card = (run.adapter / "README.md").read_text()
    assert re.search(r"^- peak memory of the process: [\d.]+ [MG]iB$", card, re.MULTILINE)
    assert "library_name: transformers" in card
    assert "LoRA" not in card.split("## Configuration")[0]


def test_a_model_is_downloaded_before_it_is_loaded(tmp_path: Path) -> None:
    """With its size, so that a person sees how long it takes; and its commit is kept."""
    shutil.copytree(MODEL_DIR, tmp_path / "hub" / "models" / "some" / "model")
    flags = [part for setting in (*SMALL, "training.max_steps=1") for part in ("--set", setting)]
    command = [sys.executable, "-m", "qlora_tui", "train", "starter", "--model", "some/model", "--name", "it", "--yes"]
    with HubServer(tmp_path / "hub") as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        done = subprocess.run([*command, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = store.find("it")
    stages = [event for event in EventReader(run.events).read() if isinstance(event, events.Stage)]
    told = [stage for stage in stages if stage.stage == "downloading" and stage.detail == "some/model"]
    weights_bytes = (MODEL_DIR / "model.safetensors").stat().st_size
    assert told and all(stage.unit == "bytes" and (stage.total or 0) > weights_bytes for stage in told)
    assert (told[0].done, told[-1].done) == (0, told[-1].total)
    assert stages.index(told[-1]) < [stage.stage for stage in stages].index("quantizing")
    commit = json.loads(run.plan.read_text())["model_commit"]
    assert commit in (run.adapter / "README.md").read_text()
    assert json.loads((run.adapter / "adapter_config.json").read_text())["revision"] == commit
    assert jobs.replay(run).phase == "finished"
