"""The evaluation loss of a run is the mean over trained tokens, for any batch size, as `eval loss` measures it."""

from pathlib import Path
from typing import Any

import pytest
from training_material import SMALL

from qlora_tui.config.overrides import resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.data.prepare import prepare
from qlora_tui.engine import adapters, loading, train
from qlora_tui.engine.evaluation import loss
from qlora_tui.engine.evaluation.pair import load
from qlora_tui.engine.resolve import resolve_to_train
from qlora_tui.engine.session import Session
from qlora_tui.engine.trainer import make_trainer
from qlora_tui.evaluation.tasks import LossTask
from qlora_tui.runs import store
from qlora_tui.runs.state import RunState

EVAL_ROWS = 9


def silent(*_: object, **__: object) -> None:
    pass


def config_of(*overrides: str) -> RunConfig:
    return resolve(overrides=(*SMALL, f"data.eval_rows={EVAL_ROWS}", *overrides))


def evaluated(output: Path, *overrides: str) -> dict[str, float]:
    """Return the metrics of one evaluation of the untrained starter model."""
    config = config_of(*overrides)
    settings = resolve_to_train(config)
    tokenizer = loading.load_tokenizer(config.model)
    data = prepare(config, tokenizer, consent=lambda download: False)
    model: Any = adapters.attach(loading.load_model(config, settings, tokenizer), config, settings)
    metrics: dict[str, float] = make_trainer(
        model, tokenizer, data.train, data.eval, config, settings, output=output
    ).evaluate()
    return metrics


def test_eval_metrics_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    of_one = evaluated(tmp_path, "training.micro_batch_size=1")
    of_four = evaluated(tmp_path, "training.micro_batch_size=4")
    packed = evaluated(tmp_path, "training.micro_batch_size=2", "training.packing=true")
    for name in ("eval_loss", "eval_entropy", "eval_mean_token_accuracy"):
        assert of_four[name] == pytest.approx(of_one[name], abs=1e-5), name
        assert packed[name] == pytest.approx(of_one[name], abs=1e-5), name


def test_eval_loss_of_a_run_equals_eval_loss_of_the_command() -> None:
    """Including the one that selects the best checkpoint: the restored weights give the same loss."""
    every = ("training.eval_every_steps=3", "training.best_checkpoint=true", "training.early_stopping_evals=5")
    run = store.create("one", config_of(*every), {})
    session = Session(run, RunState())
    config = run.load_config()
    train.run(session, config, None, allow_download=False, accept_changed_data=False, replan_on_oom=False)
    assert session.state.finished is not None and session.state.best_eval is not None
    task = LossTask(name="loss", batch_rows=2)
    pair = load(run, task, silent)
    found = loss.measure(pair, loss.rows_of(config, pair.tokenizer, task), task, silent)
    expected = found["adapter"]["trained_loss"]
    assert session.state.finished.metrics["eval_loss"] == pytest.approx(expected, abs=1e-4)
    assert session.state.best_eval.loss == pytest.approx(expected, abs=1e-4)
