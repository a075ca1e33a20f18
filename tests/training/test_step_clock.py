"""Speed and checkpoint times are those of the steps and of the writing alone, whatever else is done in between."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from training_material import SMALL
from transformers import TrainerCallback

from qlora_tui.config.overrides import resolve
from qlora_tui.engine import callbacks, train
from qlora_tui.engine.session import Session
from qlora_tui.runs import store
from qlora_tui.runs.event_log import EventReader
from qlora_tui.runs.pace import to_come
from qlora_tui.runs.state import RunState, fold
from qlora_tui.runs.store import RunFolder

STEP_S, SAVE_S, ANSWER_S, LETTER_S = 2.0, 5.0, 1_000.0, 10_000.0


class Clock:
    """Stands still but for what the test says that something takes."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s

    def taking(self, seconds: float, function: Any) -> Any:
        def slow(*args: Any, **kwargs: Any) -> Any:
            self.now_s += seconds
            return function(*args, **kwargs)

        return slow


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The clock of the callback: steps, saving, answering and multiple choice take fixed times."""
    clock = Clock()

    class Steps(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.now_s += STEP_S

    def make(*args: Any, **kwargs: Any) -> Any:
        config, trainer = make_trainer(*args, **kwargs)
        trainer.add_callback(Steps())
        return config, trainer

    make_trainer = train._make_trainer
    monkeypatch.setattr(train, "_make_trainer", make)
    monkeypatch.setattr(callbacks, "time", clock)
    for owner, name, seconds in (
        (callbacks.checkpoints, "seal", SAVE_S), (callbacks, "answer", ANSWER_S), (callbacks.mmlu, "letters", LETTER_S)
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, clock.taking(seconds, getattr(owner, name)))
    yield clock


@pytest.mark.parametrize(
    "settings",
    [
        ("training.sample_every_steps=1",),
        ("data.eval_rows=4", "training.eval_every_steps=2", "training.best_checkpoint=true"),
        ("data.eval_rows=4", "training.eval_every_steps=1", "training.sample_every_steps=1", "training.mmlu_file={}"),
    ],
)
def test_answering_counts_neither_into_the_speed_nor_into_a_checkpoint(
    clock: Clock, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    questions = tmp_path / "mmlu.jsonl"
    questions.write_text(json.dumps({"subject": "lamps", "input": "A. red\nB. blue\nAnswer:", "output": "A"}) + "\n")
    overrides = [setting.format(questions) for setting in settings]
    made = resolve(
        overrides=(
            *SMALL, "training.max_steps=3", "training.save_every_steps=2", "data.max_train_rows=24",
            'training.sample_prompts=["Who is there?"]', "training.sample_max_tokens=1", *overrides,
        )
    )  # fmt: skip
    run = store.create("one", made, {})
    session = Session(run, RunState())
    train.run(session, made, None, allow_download=False, accept_changed_data=False, replan_on_oom=False)
    steps, began = session.state.steps.points(), 0
    for step in steps:
        assert step.tokens_per_s == round((step.tokens - began) / STEP_S, 1)
        began = step.tokens
    assert [item.seconds for item in session.state.checkpoints] == [SAVE_S] * 2
    assert clock.now_s > ANSWER_S
    check_the_plan_announced_every_pause(run, session.state)


def check_the_plan_announced_every_pause(run: RunFolder, state: RunState) -> None:
    """Evaluations, checkpoints including the adapter, and rounds of samples, as planned before the first step."""
    planned = RunState()
    for event in EventReader(run.events).read():
        planned = fold(planned, event)
        if planned.plan is not None:
            break
    done = (len(state.evals.points()), len(state.checkpoints) + 1, len(state.samples))
    assert to_come(planned) == done
    assert to_come(state) == (0, 1, 0)
