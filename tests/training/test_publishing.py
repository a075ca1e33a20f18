"""Published files of a run contain no local path, and the model card is complete."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from test_finished_runs import FULL, trained_here

from qlora_tui.config.model import ModelSpec
from qlora_tui.engine import train
from qlora_tui.engine.session import Session
from qlora_tui.evaluation.comparison import compare
from qlora_tui.evaluation.html_report import render
from qlora_tui.models.location import public_id
from qlora_tui.runs import jobs
from qlora_tui.runs.checkpoints import CheckpointFolder
from qlora_tui.runs.jobs import Job
from qlora_tui.runs.store import RunFolder
from qlora_tui.starter import HELDOUT_DATA, MODEL_DIR, TRAIN_DATA

EVALUATED = ("data.eval_rows=8", "training.max_steps=4", "training.eval_every_steps=2", "training.save_every_steps=2")


def local_paths(folder: Path, tmp_path: Path) -> list[str]:
    """Files of `folder` that name a folder of this machine."""
    here = [str(path).encode() for path in (tmp_path, MODEL_DIR.parent, Path.home(), Path.cwd())]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(file) for file in files if any(path in file.read_bytes() for path in here)]


def metadata_of(run: RunFolder) -> ModelCard:
    return ModelCard.load(run.adapter / "README.md")


def own_files(tmp_path: Path) -> list[str]:
    """Settings with local files for the model, the data and the questions."""
    model, data, questions = tmp_path / "models" / "My-Model", tmp_path / "mine.jsonl", tmp_path / "mmlu.jsonl"
    shutil.copytree(MODEL_DIR, model)
    shutil.copy(TRAIN_DATA, data)
    questions.write_text(json.dumps({"subject": "lamps", "input": "A. red\nB. blue\nAnswer:", "output": "A"}) + "\n")
    return [f"model.id={model}", f"data.source={data}", f"training.mmlu_file={questions}"]


@pytest.mark.parametrize(
    "kind", [(), FULL, ("quantization.kind=none", "adapter.init=pissa")], ids=["qlora", "full", "pissa"]
)
def test_published_files_contain_no_local_path(tmp_path: Path, kind: tuple[str, ...]) -> None:
    run, _ = trained_here("one", *own_files(tmp_path), *EVALUATED, "training.best_checkpoint=true", *kind)
    assert local_paths(run.adapter, tmp_path) == []
    assert local_paths(run.checkpoints, tmp_path) == []
    assert not list(run.checkpoints.rglob("README.md"))
    text = (run.adapter / "run.toml").read_text()
    assert 'id = "My-Model"' in text
    assert 'source = "mine.jsonl"' in text
    page = render([job := Job(run, jobs.replay(run), alive=False)], compare([job]))
    assert "mine.jsonl" in page
    assert str(tmp_path) not in page


def test_adapter_of_the_starter_model_contains_no_install_path(tmp_path: Path) -> None:
    run, _ = trained_here("one", "training.max_steps=1", f"data.eval_source={HELDOUT_DATA}", "data.max_eval_rows=4")
    assert local_paths(run.adapter, tmp_path) == []
    assert json.loads((run.adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "starter"
    data = metadata_of(run).data
    assert data.license == "mit"
    assert data.base_model is None, "the hub has no such model"
    assert data.datasets is None
    assert data.metrics == ["loss", "perplexity"]
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    finished = jobs.replay(run).finished
    assert finished is not None
    assert results["loss"] == finished.metrics["eval_loss"]
    assert data.eval_results[0].dataset_name == f"{HELDOUT_DATA.name}, held-out rows"


def test_model_folders_are_published_by_name(tmp_path: Path) -> None:
    cached = tmp_path / "models--meta-llama--Llama-3.1-8B" / "snapshots" / ("a" * 40)
    for path, name in ((cached, "meta-llama/Llama-3.1-8B"), (tmp_path / "Llama-3.1-8B", "Llama-3.1-8B")):
        assert public_id(ModelSpec(id=str(path))) == name
    assert public_id(ModelSpec(id="Qwen/Qwen3-8B")) == "Qwen/Qwen3-8B"


def test_best_checkpoint_is_restored_in_a_run_that_was_moved() -> None:
    """Checkpoints refer to the best one by its step, including the last checkpoint."""
    run, _ = trained_here("one", *EVALUATED, "training.best_checkpoint=true", "training.learning_rate=0.3")
    moved = RunFolder(run.path.rename(run.path.with_name("two")))
    session = Session(moved, jobs.replay(moved))
    options = {"allow_download": False, "accept_changed_data": False, "replan_on_oom": False}
    checkpoint = CheckpointFolder(moved.checkpoints / "checkpoint-4", 4)
    train.run(session, moved.load_config(), checkpoint, **options)
    losses = {point.step: point.loss for point in session.state.evals.points()}
    assert session.state.finished is not None
    assert session.state.finished.metrics["eval_loss"] == min(losses.values())
