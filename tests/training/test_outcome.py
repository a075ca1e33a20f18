"""Output of a finished run: metrics.json, and predictions.jsonl of its evaluation rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_material import make_run
from test_finished_runs import trained_here

from qlora_tui.chat.protocol import Sampling
from qlora_tui.data.rows import Turn
from qlora_tui.engine.evaluation import answers
from qlora_tui.engine.evaluation.pair import load
from qlora_tui.evaluation.predictions import predictions_file, read_answers
from qlora_tui.evaluation.questions import Question
from qlora_tui.evaluation.tasks import GenerateTask


def silent(*_: object, **__: object) -> None:
    pass


def test_run_with_evaluation_rows_writes_metrics_and_predictions() -> None:
    run, state = trained_here("one", "data.eval_rows=5", "training.prediction_rows=3", "training.max_steps=2")
    assert state.finished is not None
    metrics = json.loads(run.metrics.read_text())
    assert metrics["run_name"] == "one"
    assert metrics["train_loss"] == state.finished.metrics["train_loss"]
    assert metrics["eval_loss"] == state.finished.metrics["eval_loss"]
    assert metrics["train_steps"] == 2
    assert metrics["train_runtime"] == state.finished.train_seconds
    assert {"eval_perplexity", "eval_mean_token_accuracy", "predict_exact_match", "epoch"} <= metrics.keys()
    rows = [json.loads(line) for line in run.predictions.read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert row["prediction_with_input"] == row["input"] + row["prediction"]
        assert row["input"].endswith("<|im_start|>assistant\n")
        assert row["output"]
    assert len(read_answers(run.predictions)) == 3


def test_predictions_of_evaluation_rows_keep_message_id_and_language(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ana."}]
    dropped = [{"role": "user", "content": "Who?"}]
    rows: list[dict[str, Any]] = [
        {"messages": dropped, "message_id": "dropped", "lang": "es"},
        {"messages": turns, "message_id": "first", "lang": "de", "rank": 2},
        {"messages": turns, "message_id": None, "lang": None},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = (f"data.eval_source={path}", "training.prediction_rows=3", "training.max_steps=1")
    run, _ = trained_here("one", *settings, "data.skip_bad_rows=true")
    predictions = [json.loads(line) for line in run.predictions.read_text().splitlines()]
    kept = [{key: row.get(key) for key in ("message_id", "lang", "rank")} for row in predictions]
    assert kept == [{"message_id": "first", "lang": "de", "rank": 2}, {"message_id": None, "lang": None, "rank": None}]
    assert all(row["prediction_with_input"].endswith(row["prediction"]) for row in predictions)


@pytest.mark.parametrize("setting", ["data.eval_rows=0", "training.loss_on=everything"])
def test_run_without_questions_writes_only_metrics(setting: str) -> None:
    run, _ = trained_here("one", "data.eval_rows=2", setting, "training.max_steps=1")
    assert "train_loss" in json.loads(run.metrics.read_text())
    assert not run.predictions.exists()


def test_predictions_keep_message_id_and_language() -> None:
    run = make_run("bird", "model.device=cpu")
    task = GenerateTask(
        name="oa", questions="unused", sides=("adapter",), sampling=Sampling(temperature=0, max_tokens=2)
    )
    turns: tuple[Turn, ...] = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ana."})
    kept = {"message_id": "m", "lang": "es", "rank": 0, "parent_id": "p"}
    asked = Question("m", "### Human: ...", turns=(*turns, {"role": "user", "content": "Where?"}), kept=kept)
    answers.generate_all(run, load(run, task, silent), [asked], task, silent)
    (row,) = [json.loads(line) for line in predictions_file(run, "oa", "adapter").read_text().splitlines()]
    assert {key: row[key] for key in kept} == kept
    assert "Ana." in row["prediction_with_input"]
