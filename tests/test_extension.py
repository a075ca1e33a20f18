"""A run can be extended; no other setting can change."""

import json
from collections.abc import Callable

import pytest
from command_line import Cli, command, fake_worker

from qlora_tui.config.overrides import resolve
from qlora_tui.errors import ConfigError, RunConflictError
from qlora_tui.runs import events, extension, jobs, store
from qlora_tui.runs.state import RunState, fold_all
from qlora_tui.runs.store import RunFolder

__all__ = ["command", "fake_worker"]
Behave = Callable[[str], None]


def ended(*overrides: str, steps: int = 100, total: int = 100) -> tuple[RunFolder, RunState]:
    """A run of two epochs of fifty steps that has made this many steps."""
    run = store.create("one", resolve(overrides=["training.epochs=2", *overrides]), {})
    checkpoint = run.checkpoints / f"checkpoint-{steps}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": steps}))
    (checkpoint / "complete.json").write_text('{"files": {}}')
    said: list[events.AnyEvent] = [
        events.Started(attempt=1, pid=1, process_start_s=0),
        events.TrainingPlanned(total_steps=total, steps_per_epoch=50, effective_batch_rows=16),
        events.Step(step=steps, epoch=2, loss=1, learning_rate=0, grad_norm=1, tokens=1, tokens_per_s=1),
        events.Finished(step=steps, train_seconds=1),
    ]
    return run, fold_all(RunState(), said)


@pytest.fixture(autouse=True)
def whole_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept a checkpoint without files."""
    monkeypatch.setattr("qlora_tui.runs.checkpoints.why_incomplete", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("setting", "steps"), [("training.epochs=3", 150), ("training.epochs=2.01", 101), ("training.max_steps=120", 120)]
)
def test_the_length_in_steps(setting: str, steps: int) -> None:
    planned = extension.plan(*ended(), [setting])
    assert (planned.total_steps, planned.settings) == (steps, (setting,))
    assert "equals an uninterrupted run" in planned.consequence


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.learning_rate=1e-5"], "training.learning_rate of one cannot be changed"),
        (["training.epochs=3", "data.source=other.jsonl"], "data.source of one cannot be changed"),
        (["adapter.rank=64"], "adapter.rank of one cannot be changed"),
        (["training.epoch=3"], "unknown key 'training.epoch'"),
        (["training.epochs=2"], "already has training.epochs = 2.0"),
        (["training.epochs=1"], "has made 100 steps: training.epochs = 1.0 means 50"),
        (["training.max_steps=100"], "training.max_steps = 100 means 100"),
        (["training.epochs=many"], "training.epochs"),
    ],
)
def test_invalid_changes_are_refused_by_name(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        extension.plan(*ended(), settings)


def test_repeating_the_length_of_an_interrupted_run_points_to_a_plain_resume() -> None:
    run, state = ended()
    with pytest.raises(ConfigError, match="already has") as interrupted:
        extension.plan(run, state._replace(finished=None), ["training.epochs=2"])
    assert interrupted.value.hint == "`qlora-tui resume one` continues it at this length."
    with pytest.raises(ConfigError, match="already has") as finished:
        extension.plan(run, state, ["training.epochs=2"])
    assert finished.value.hint == "Give a larger value."


def test_epochs_do_not_extend_a_run_with_max_steps() -> None:
    run, state = ended("training.max_steps=100")
    with pytest.raises(ConfigError, match=r"training.max_steps = 100 of one sets the length"):
        extension.plan(run, state, ["training.epochs=9"])
    assert extension.plan(run, state, ["training.epochs=9", "training.max_steps=none"]).total_steps == 450


def test_a_run_that_stopped_early_or_lost_its_checkpoints_is_not_extended() -> None:
    run, state = ended("training.early_stopping_evals=2", "training.eval_every_steps=20", "data.eval_rows=4", steps=60)
    with pytest.raises(RunConflictError, match="stopped early at step 60"):
        extension.plan(run, state, ["training.epochs=3"])
    (run.checkpoints / "checkpoint-60").rename(run.path / "gone")
    text = run.config.read_text().replace("early_stopping_evals = 2", "")
    run.config.write_text("".join(text.splitlines(keepends=True)[:-1]))  # without its checksum
    with pytest.raises(RunConflictError, match="no complete checkpoint"):
        extension.plan(run, state, ["training.epochs=3"])


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (["constant"], "equals an uninterrupted run"),
        (["constant_with_warmup", "warmup_steps=10"], "equals an uninterrupted run of 200 steps"),
        (["inverse_sqrt", "warmup_steps=10"], "equals an uninterrupted run of 200 steps"),
        (["constant_with_warmup", "warmup_ratio=0.1"], "goes from 0.0002 at step 100 to 0.0002 at step 101"),
        (["linear"], "goes from 2e-06 at step 100 to 0.0001 at step 101. The result differs"),
        (["cosine"], "from 4.93e-08 at step 100 to 0.0001 at step 101"),
        (["cosine_with_min_lr"], "from 2e-05 at step 100 to 0.00011 at step 101"),
    ],
)
def test_effect_on_the_learning_rate_is_reported(schedule: list[str], said: str) -> None:
    spec = [f"training.schedule={schedule[0]}", *(f"training.{setting}" for setting in schedule[1:])]
    assert said in extension.plan(*ended(*spec), ["training.epochs=4"]).consequence


def test_a_finished_run_is_extended_from_any_shell(command: Cli, fake_worker: Behave) -> None:
    command("train", "starter", "--name", "one")
    refused = command("resume", "one")
    assert refused.code == 5
    assert "--set training.epochs=N" in refused.err
    resumed = command("resume", "one", "--set", "training.epochs=9")
    assert resumed.code == 0, resumed.err
    assert "extending one" in resumed.err and "uninterrupted run" in resumed.err
    state = jobs.replay(store.find("one"))
    assert (state.attempt, state.warnings[-1].message) == (2, "--set training.epochs=9")


def test_a_refused_change_starts_no_worker(command: Cli, fake_worker: Behave) -> None:
    command("train", "starter", "--name", "one")
    result = command("resume", "one", "--set", "training.learning_rate=1")
    assert result.code == 3
    assert "training.learning_rate of one cannot be changed" in result.err
    assert "qlora-tui train" in result.err
    assert jobs.replay(store.find("one")).attempt == 1


def test_changed_length_is_kept_for_later_resumes() -> None:
    run, state = ended()
    changed = fold_all(state, [events.Extended(changes={"training.epochs": 3.0, "training.max_steps": None})])
    assert extension.current_config(run, changed).training.epochs == 3
    assert run.load_config().training.epochs == 2, "run.toml keeps the original settings"
    with pytest.raises(ConfigError, match="already"):
        extension.plan(run, changed, ["training.epochs=3"])


def test_extended_run_has_its_new_length_before_the_worker_plans_it() -> None:
    _, state = ended()
    assert state.plan is not None and state.plan.steps_per_epoch
    longer = fold_all(state, [events.Extended(changes={"training.epochs": 3.0, "training.max_steps": None})])
    assert longer.plan is not None and longer.plan.total_steps == 3 * state.plan.steps_per_epoch
    by_steps = fold_all(state, [events.Extended(changes={"training.max_steps": 500})])
    assert by_steps.plan is not None and by_steps.plan.total_steps == 500
