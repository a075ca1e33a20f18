"""Killed at any moment, a run goes on as if nothing had happened: same losses, same weights, to the last bit."""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from training_material import Condition, Runs, adapter_bytes, course

from qlora_tui.errors import ExitCode
from qlora_tui.runs import checkpoints, jobs
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder
from qlora_tui.starter import MODEL_DIR, TRAIN_DATA


def kill(run: RunFolder, state: RunState) -> None:
    """kill -9 to the worker's whole process group."""
    os.killpg(state.pid, signal.SIGKILL)
    assert jobs.wait_until_dead(run, 10)


def in_stage(name: str) -> Condition:
    return lambda state: state.stage is not None and state.stage.stage == name


def at_step(number: int) -> Condition:
    return lambda state: state.step_number >= number


def half_written(run: RunFolder) -> Condition:
    """True while a checkpoint is being written: its folder is there and its marker is not."""
    return lambda state: any(
        not (folder.path / checkpoints.MARKER).exists() for folder in checkpoints.all_checkpoints(run.checkpoints)
    )


def test_three_kills_change_nothing(runs: Runs) -> None:
    """Killed while loading, between two checkpoints, and once more near the end."""
    whole = runs.finished("whole")
    run = runs.create("killed")
    for moment in (in_stage("quantizing"), at_step(5), at_step(7)):
        kill(run, runs.train(run, moment))
        assert jobs.look(run).status == "crashed"
    state = runs.train(run)
    assert state.phase == "finished"
    assert state.attempt == 4
    assert course(state) == course(jobs.replay(whole))
    assert adapter_bytes(run) == adapter_bytes(whole)


def test_a_run_killed_after_its_last_step_makes_no_other(runs: Runs) -> None:
    """What kill -9 leaves while the adapter is written: a checkpoint of the last step and no adapter."""
    run = runs.finished("one")
    before, weights, metrics = course(jobs.replay(run)), adapter_bytes(run), jobs.replay(run).finished
    log = run.events.read_bytes()
    run.events.write_bytes(log[: log.rindex(b"\n", 0, log.index(b'"stage":"saving"')) + 1])
    run.adapter.rename(run.path / ".adapter")
    assert jobs.look(run).status == "crashed"
    crashed = jobs.replay(run)
    state = runs.train(run)
    assert course(state) == before
    assert adapter_bytes(run) == weights
    assert state.finished is not None and metrics is not None
    assert state.finished.metrics == metrics.metrics
    assert crashed.steps.last is not None
    assert state.earlier_train_s == crashed.steps.last.time_s - crashed.train_began_s > 0
    assert state.finished.train_seconds > state.earlier_train_s
    assert not (run.path / ".adapter").exists()


def test_a_run_that_diverges_is_warned_of_once_and_says_so_at_its_end(runs: Runs) -> None:
    run = runs.create("diverging", "training.learning_rate=9", "training.schedule=constant")
    state = runs.train(run)
    assert state.step_number == 8
    assert [warning.code for warning in state.warnings].count("non_finite_loss") == 1
    assert state.failed is not None and "diverged" in state.failed.message
    assert b"NaN" not in run.events.read_bytes()


def test_a_damaged_checkpoint_is_named_and_passed_over(runs: Runs) -> None:
    whole = runs.finished("whole")
    run = runs.create("damaged")
    kill(run, runs.train(run, at_step(7)))
    newest = checkpoints.all_checkpoints(run.checkpoints)[0]
    assert newest.step == 6
    weights = newest.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    state = runs.train(run)
    named = [warning.message for warning in state.warnings if warning.code == "checkpoint_skipped"]
    assert named and "checkpoint-6" in named[0] and "adapter_model.safetensors" in named[0]
    assert (run.checkpoints / "damaged-6" / "optimizer.pt").exists()
    assert course(state) == course(jobs.replay(whole))


def test_resume_refuses_another_base_and_other_data_unless_told(runs: Runs, tmp_path: Path) -> None:
    """The base as after an update of the program, which may bring another starter."""
    rows, base = tmp_path / "rows.jsonl", tmp_path / "base"
    rows.write_text(TRAIN_DATA.read_text())
    shutil.copytree(MODEL_DIR, base)
    run = runs.create("mine", f"data.source={rows}", f"model.id={base}")
    kill(run, runs.train(run, at_step(5)))

    weights = base / "model.safetensors"
    trained_on = weights.read_bytes()
    weights.write_bytes(trained_on[:-2] + bytes(2))
    refused = runs.train(run).failed
    assert refused is not None and refused.exit_code == ExitCode.MODEL
    assert str(base) in refused.message and "'mine'" in refused.message
    assert str(run.config) in refused.hint
    weights.write_bytes(trained_on)

    rows.write_text(rows.read_text().replace("coins", "pence"))
    refused = runs.train(run).failed
    assert refused is not None and refused.exit_code == ExitCode.DATA
    assert "changed" in refused.message and "--accept-changed-data" in refused.hint
    assert runs.train(run, accept_changed_data=True).phase == "finished"


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("training.optimizer=paged_adamw_8bit",), id="paged-8bit-adamw"),
        pytest.param(
            ("data.eval_rows=8", "training.eval_every_steps=2", 'training.sample_prompts=["What is it?"]'),
            id="evaluations-and-samples-between",
        ),
    ],
)
def test_resume_is_exact(runs: Runs, overrides: tuple[str, ...]) -> None:
    resumes_exactly(runs, *overrides)


@pytest.mark.long
@pytest.mark.parametrize(
    "optimizer",
    [
        "adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "lion_32bit",
        "lion_8bit", "paged_lion_32bit", "paged_lion_8bit", "ademamix", "ademamix_8bit", "adafactor", "sgd",
    ],
)  # fmt: skip
def test_resume_is_exact_for_every_optimizer(runs: Runs, optimizer: str) -> None:
    resumes_exactly(runs, f"training.optimizer={optimizer}")


_UNQUANTIZED = ("quantization.kind=none",)


@pytest.mark.long
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("quantization.kind=fp4",), id="fp4"),
        pytest.param(("quantization.kind=8bit",), id="8bit"),
        pytest.param(_UNQUANTIZED, id="16-bit-lora"),
        pytest.param((*_UNQUANTIZED, "adapter.kind=full", "adapter.dropout=0"), id="full"),
        pytest.param((*_UNQUANTIZED, "adapter.init=pissa"), id="pissa"),
        pytest.param(("adapter.dora=true",), id="dora"),
        pytest.param(("adapter.rank_stabilized=true",), id="rslora"),
        pytest.param(("adapter.lora_plus_ratio=16",), id="lora-plus"),
        pytest.param(("adapter.modules_to_save=embed_tokens",), id="modules-to-save"),
        pytest.param(("training.packing=true",), id="packing"),
        pytest.param(("training.group_by_length=true",), id="group-by-length"),
        pytest.param(("training.recipe=original",), id="original-recipe"),
        pytest.param(("quantization.compute_dtype=auto",), id="native-compute-dtype"),
        pytest.param(("training.gradient_checkpointing=on",), id="checkpointing"),
        pytest.param(("training.max_steps=none", "training.epochs=2", "training.neftune_alpha=5"), id="epochs-neftune"),
        pytest.param(
            ("data.eval_rows=8", "training.eval_every_steps=3", "training.best_checkpoint=true",
             "training.early_stopping_evals=5"),
            id="best-checkpoint",
        ),
    ],
)  # fmt: skip
def test_resume_is_exact_for_every_variant(runs: Runs, overrides: tuple[str, ...]) -> None:
    resumes_exactly(runs, *overrides)


def resumes_exactly(runs: Runs, *overrides: str) -> None:
    """A run killed after step 5, whose newest checkpoint is of step 3, equals one that nobody touched."""
    whole = runs.finished("whole", *overrides)
    run = runs.create("killed", *overrides)
    kill(run, runs.train(run, at_step(5)))
    state = runs.train(run)
    assert state.phase == "finished", state.failed
    assert course(state) == course(jobs.replay(whole))
    name = "model.safetensors" if (whole.adapter / "model.safetensors").exists() else "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()


@pytest.mark.long
def test_killed_while_a_checkpoint_is_written(runs: Runs) -> None:
    whole = runs.finished("whole")
    run = runs.create("killed")
    jobs.start(run)
    writing = half_written(run)
    state = jobs.replay(run)
    while jobs.is_alive(run):
        if writing(state):
            kill(run, jobs.replay(run))
            break
    assert jobs.look(run).status == "crashed"
    state = runs.train(run)
    assert course(state) == course(jobs.replay(whole))


@pytest.mark.long
def test_twenty_kills_at_random_moments(runs: Runs) -> None:
    """Moments are drawn over the whole life of a worker: importing, loading, steps, checkpoints, saving."""
    whole = runs.finished("whole")
    began_s = jobs.replay(whole).first_event_s
    length_s = jobs.replay(whole).last_event_s - began_s
    draw = random.Random(0)
    for number in range(20):
        run = runs.create(f"killed-{number}")
        jobs.start(run)
        if not jobs.wait_until_dead(run, draw.uniform(0, length_s)):
            kill(run, jobs.replay(run))
        state = jobs.replay(run) if jobs.look(run).status == "finished" else runs.train(run)
        assert state.phase == "finished", state.failed
        assert course(state) == course(jobs.replay(whole)), f"kill number {number}"
        assert adapter_bytes(run) == adapter_bytes(whole)
