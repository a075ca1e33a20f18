"""A finished run can be trained longer, as if uninterrupted where the learning rate allows it."""

import itertools

import pytest
from training_material import Runs, adapter_bytes, course

from qlora_tui.config.overrides import resolve
from qlora_tui.config.training import Schedule
from qlora_tui.runs import jobs
from qlora_tui.runs.schedule import learning_rate, warmup_steps

BY_EPOCHS = ("training.max_steps=none",)
"""Forty rows, eight a step: five steps an epoch."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("first", "longer"),
    [
        ((*BY_EPOCHS, "training.epochs=1"), "training.epochs=2"),
        ((*BY_EPOCHS, "training.epochs=0.5"), "training.epochs=1.4"),
        (("training.max_steps=4",), "training.max_steps=8"),
    ],
)
def test_an_extended_run_equals_an_uninterrupted_one(runs: Runs, first: tuple[str, ...], longer: str) -> None:
    whole = runs.finished("whole", *first, longer)
    run = runs.finished("extended", *first)
    short = jobs.replay(run).step_number
    state = runs.train(run, settings=[longer])
    assert state.phase == "finished", state.failed
    assert (state.attempt, state.extended is not None) == (2, True)
    assert state.step_number == jobs.replay(whole).step_number > short
    assert course(state) == course(jobs.replay(whole))
    assert adapter_bytes(run) == adapter_bytes(whole)
    assert (run.adapter / "README.md").read_text().count(f"steps: {state.step_number}") == 1


@pytest.mark.long
def test_a_schedule_is_recomputed_for_the_new_length(runs: Runs) -> None:
    run = runs.finished("one", "training.schedule=linear", "training.max_steps=4")
    state = runs.train(run, settings=["training.max_steps=8"])
    rates = [point.learning_rate for point in state.steps.points()]
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4, 5e-4, 3.75e-4, 2.5e-4, 1.25e-4])
    again = runs.train(run, settings=["training.max_steps=8"])
    assert again.attempt == 3 and again.step_number == 8


@pytest.mark.parametrize("schedule", Schedule.__args__)  # type: ignore[attr-defined]
def test_the_learning_rate_is_the_one_of_transformers(schedule: str) -> None:
    import torch
    from transformers import get_scheduler

    for warmup, total in itertools.product(("warmup_steps=0", "warmup_steps=7", "warmup_ratio=0.13"), (10, 33)):
        spec = resolve(overrides=[f"training.schedule={schedule}", f"training.{warmup}"]).training
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=spec.learning_rate)
        options = {"min_lr_rate": 0.1} if schedule == "cosine_with_min_lr" else {}
        theirs = get_scheduler(schedule, optimizer, warmup_steps(spec, total), total, scheduler_specific_kwargs=options)
        for step in range(total):
            assert learning_rate(spec, step, total) == pytest.approx(theirs.get_last_lr()[0]), (warmup, step)
            optimizer.step()
            theirs.step()
