"""What events add up to: the same for a live view and a reopened one."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

import pytest

from qlora_tui.runs import events, narration
from qlora_tui.runs.pace import remaining, remaining_s, to_come
from qlora_tui.runs.series import MOST_POINTS, Series
from qlora_tui.runs.state import RunState, fold, fold_all


def step(number: int, loss: float | None = 1.0, **fields: Any) -> events.Step:
    values = {"epoch": 0.0, "learning_rate": 1e-4, "grad_norm": 1.0, "tokens": number, "tokens_per_s": 1.0}
    return events.Step(step=number, loss=loss, **{**values, **fields})


def started(attempt: int, resumed_from_step: int | None = None) -> events.Started:
    return events.Started(attempt=attempt, pid=1, process_start_s=1.0, resumed_from_step=resumed_from_step)


def checkpoint(number: int) -> events.Checkpoint:
    return events.Checkpoint(step=number, folder=f"checkpoint-{number}", size_bytes=1, seconds=0.1)


def folded(log: Iterable[events.AnyEvent]) -> RunState:
    state = RunState()
    for event in log:
        state = fold(state, event)
    return state


def test_a_resumed_run_forgets_what_came_after_its_checkpoint() -> None:
    state = folded(
        [
            started(1),
            *(step(number) for number in range(1, 8)),
            checkpoint(4),
            events.Eval(step=4, loss=2.0),
            events.Eval(step=6, loss=1.0),
            events.Sample(step=6, prompt="q", answer="a"),
            started(2, resumed_from_step=4),
            step(5, loss=9.0),
        ]
    )
    assert [point.step for point in state.steps.points()] == [1, 2, 3, 4, 5]
    assert state.steps.points()[-1].loss == 9.0
    assert [item.step for item in state.evals.points()] == [4]
    assert state.best_eval is not None and state.best_eval.step == 4
    assert state.samples == ()
    assert [item.step for item in state.checkpoints] == [4]
    assert state.attempt == 2


def test_a_run_that_starts_over_keeps_no_old_steps() -> None:
    state = folded([started(1), step(1), step(2), started(2)])
    assert state.step_number == 0
    assert state.phase == "running"


def test_time_spent_training_adds_up_over_attempts() -> None:
    """Up to the last step of each: what came between attempts, or a word said long after one ended, is no training."""

    def attempt(number: int, began_s: float, *step_times_s: float, resumed_from_step: int) -> list[events.AnyEvent]:
        plan = events.TrainingPlanned(total_steps=9, steps_per_epoch=None, effective_batch_rows=1, time_s=began_s)
        steps = enumerate(step_times_s, start=resumed_from_step + 1)
        return [started(number, resumed_from_step), plan, *(step(each, time_s=time_s) for each, time_s in steps)]

    state = folded(
        [
            *attempt(1, 10.0, 12.0, 14.0, 17.0, resumed_from_step=0),
            events.Stopped(reason="cancel", step=3, time_s=5000.0),
            *attempt(2, 6000.0, 6002.5, resumed_from_step=2),
            started(3, resumed_from_step=2),
            events.Failed(message="before the first step", time_s=7000.0),
            started(4, resumed_from_step=2),
        ]
    )
    assert state.earlier_train_s == pytest.approx(7.0 + 2.5)


def test_the_mean_loss_is_that_of_every_step_however_long_the_run_and_wherever_it_was_resumed() -> None:
    def lost(number: int) -> float | None:
        return None if number % 1000 == 13 else (number * 7919 % 1009) / 100

    def trained(first: int, last: int) -> list[events.AnyEvent]:
        return [step(number, lost(number)) for number in range(first, last + 1)]

    log = [
        started(1), *trained(1, 5_001), checkpoint(5_001), *trained(5_002, 9_333), checkpoint(9_333),
        *trained(9_334, 9_900),
        started(2, resumed_from_step=9_333), *trained(9_334, 9_777),  # its next checkpoint was sealed, but not told of
        started(3, resumed_from_step=9_777), *trained(9_778, 9_800),
        started(4, resumed_from_step=9_777), *trained(9_778, 9_790),
        started(5, resumed_from_step=5_001), *trained(5_002, 6_100),
    ]  # fmt: skip
    for count, event in enumerate(log, start=1):
        if isinstance(event, events.Started):
            left = [lost(number) for number in range(1, (event.resumed_from_step or 0) + 1)]
            assert_mean(folded(log[:count]), left)
    assert_mean(folded(log), [lost(number) for number in range(1, 6_101)])
    assert_mean(folded([*log, started(6)]), [])


def assert_mean(state: RunState, losses: list[float | None]) -> None:
    counted = [loss for loss in losses if loss is not None]
    assert state.mean_loss == (pytest.approx(fmean(counted), rel=1e-12) if counted else None)


@pytest.mark.parametrize(
    ("last", "phase"),
    [
        (events.Stopped(reason="stop_and_save", step=1), "stopped"),
        (events.Stopped(reason="signal", step=1), "stopped"),
        (events.Stopped(reason="cancel", step=1), "cancelled"),
        (events.Failed(message="no"), "failed"),
        (events.Finished(step=1, train_seconds=1.0), "finished"),
    ],
)
def test_the_last_event_decides_how_a_run_ended_until_it_is_resumed(last: events.AnyEvent, phase: str) -> None:
    ended = folded([started(1), step(1), last])
    assert ended.phase == phase
    assert fold(ended, started(2, resumed_from_step=1)).phase == "running"
    assert fold(ended, started(2)).failed is None


def test_the_best_evaluation_is_the_lowest_finite_loss() -> None:
    losses = [3.0, None, 1.5, 2.0]
    state = folded(events.Eval(step=number, loss=loss) for number, loss in enumerate(losses, start=1))
    assert state.best_eval is not None and state.best_eval.step == 3


def test_replanning_twice_keeps_the_newest_of_each_setting() -> None:
    state = folded(
        [
            events.Replanned(changes={"a": 4, "b": 2}, reason="x"),
            events.Replanned(changes={"a": 2, "c": True}, reason="x"),
        ]
    )
    assert state.replanned == {"a": 2, "b": 2, "c": True}


def test_folding_changes_no_older_state() -> None:
    older = folded([started(1), step(1)])
    newer = fold(older, step(2))
    assert (older.step_number, newer.step_number) == (1, 2)


def noisy(number: int, **fields: Any) -> events.Step:
    """A step with alternating values, built without validation."""
    values = {"loss": 1 + number * 7919 % 1000 / 1000, "grad_norm": 1 + number * 104729 % 1000 / 1000}
    values |= {"tokens": number, "tokens_per_s": 1.0}
    return events.Step.model_construct(step=number, **{**values, **fields})


STEPS: Series[events.Step] = Series(("loss", "grad_norm"))


def test_a_short_curve_keeps_every_point() -> None:
    series = STEPS.extend([noisy(number) for number in range(1, MOST_POINTS)])
    assert [point.step for point in series.points()] == list(range(1, MOST_POINTS))
    assert [mean.value for mean in series.means("loss")] == [point.loss for point in series.points()]


@pytest.mark.parametrize("spike", [4_000, 4_095, 4_096, 4_097, 12_345, 49_998])
def test_a_spike_of_one_step_stays_in_a_long_curve(spike: int) -> None:
    """In the loss, in the gradient norm, up and down."""
    log = {number: noisy(number) for number in range(1, 50_001)}
    log[spike] = noisy(spike, loss=40.0)
    log[spike + 1] = noisy(spike + 1, loss=0.001)
    log[spike + 2] = noisy(spike + 2, grad_norm=90.0)
    series = STEPS.extend(list(log.values()))
    kept = {point.step: point for point in series.points()}
    assert kept[spike].loss == 40.0
    assert kept[spike + 1].loss == 0.001
    assert kept[spike + 2].grad_norm == 90.0
    assert len(kept) <= 2 * MOST_POINTS
    assert series.points()[-1].step == 50_000


def test_the_means_of_a_long_curve_are_those_of_all_its_points() -> None:
    log = [noisy(number, loss=None if number % 10 == 0 else float(number)) for number in range(1, 50_001)]
    series = STEPS.extend(log)
    means = series.means("loss")
    finite = [point.loss for point in log if point.loss is not None]
    assert sum(mean.weight for mean in means) == len(finite)
    assert sum(mean.value * mean.weight for mean in means) / len(finite) == pytest.approx(fmean(finite))
    assert means[-1].step == 50_000
    assert len(means) <= MOST_POINTS // 2


@pytest.mark.parametrize("batch_events", [7, 64, 1000, 20_000])
def test_events_folded_many_at_a_time_add_up_to_the_same(batch_events: int) -> None:
    log: list[events.AnyEvent] = [started(1)]
    log += [step(number, loss=1 + number * 7919 % 1000 / 1000, peak_bytes=number % 900) for number in range(1, 9_001)]
    log[4_000:4_000] = [events.Eval(step=4_000, loss=2.0), checkpoint(4_000)]
    log += [started(2, resumed_from_step=7_777), *(step(number) for number in range(7_778, 9_500))]
    state = RunState()
    for start in range(0, len(log), batch_events):
        state = fold_all(state, log[start : start + batch_events])
    assert state == folded(log)


@pytest.mark.parametrize("back_to", [0, 1, 63, 64, 5000, 5_001, 9_999])
def test_a_long_curve_can_go_back_and_grow_again(back_to: int) -> None:
    state = RunState()
    log: list[events.AnyEvent] = [started(1)]
    for number in range(1, 10_001):
        log.append(noisy(number, time_s=0.0, seq=0, peak_bytes=0))
        if number == back_to:
            log.append(checkpoint(number))
    state = fold_all(state, [*log, started(2, resumed_from_step=back_to or None)])
    assert state.step_number == back_to
    assert all(point.step <= back_to for point in state.steps.points())
    state = fold_all(state, [noisy(back_to + more, time_s=0.0, seq=0, peak_bytes=0) for more in range(1, 11)])
    steps = [point.step for point in state.steps.points()]
    assert steps == sorted(set(steps))
    assert steps[-1] == back_to + 10


def test_the_time_left_follows_the_recent_pace_and_ignores_a_pause() -> None:
    plan = events.TrainingPlanned(total_steps=20, steps_per_epoch=None, effective_batch_rows=1)
    times = [1000.0, 1002.0, 1004.0, 1104.0, 1106.0]
    state = folded([plan, *(step(number, time_s=time_s) for number, time_s in enumerate(times, start=1))])
    assert remaining_s(state) == pytest.approx(30.0)


def timeline(plan: events.TrainingPlanned, seconds: dict[str, float]) -> list[events.AnyEvent]:
    """Events of a worker with this plan, where each kind of work has a constant duration."""
    now_s, log = 1_000.0, list[events.AnyEvent]()

    def after(kind: str, event: events.AnyEvent) -> None:
        nonlocal now_s
        now_s += seconds[kind]
        log.append(event.model_copy(update={"time_s": now_s}))

    def sample(number: int) -> None:
        for prompt in ("a", "b"):
            after("answer", events.Sample(step=number, prompt=prompt, answer=""))

    log.append(plan.model_copy(update={"time_s": now_s}))
    for number in range(1, plan.total_steps + 1):
        after("step", step(number))
        if plan.eval_every_steps and number % plan.eval_every_steps == 0:
            after("eval", events.Eval(step=number, loss=1.0))
        if plan.sample_every_steps and number % plan.sample_every_steps == 0:
            sample(number)
        if plan.save_every_steps and (number % plan.save_every_steps == 0 or number == plan.total_steps):
            after("save", checkpoint(number))
    if plan.evals_at_end:
        after("eval", events.Eval(step=plan.total_steps, loss=1.0))
    if plan.samples_at_end:
        sample(plan.total_steps)
    after("save", events.Finished(step=plan.total_steps, train_seconds=0.0))
    return log


PLANS = [
    {"eval_every_steps": 10, "save_every_steps": 25, "sample_every_steps": 10, "samples_at_end": 1},
    {"eval_every_steps": 7, "evals_at_end": 1, "save_every_steps": 30},
    {"evals_at_end": 1, "save_every_steps": 250, "sample_every_steps": 9, "samples_at_end": 1},
    {"save_every_steps": 10},
]


@pytest.mark.parametrize("pauses", PLANS)
def test_the_time_left_counts_evaluations_checkpoints_and_samples_to_come(pauses: dict[str, Any]) -> None:
    plan = events.TrainingPlanned(total_steps=100, steps_per_epoch=None, effective_batch_rows=16, **pauses)
    log = timeline(plan, {"step": 0.5, "eval": 12.0, "save": 3.0, "answer": 2.0})
    state, end_s = RunState(), log[-1].time_s
    measured = False
    for event in log[:-1]:
        state = fold(state, event)
        pace = state.pace
        kinds = [(plan.eval_every_steps, pace.evals_s), (plan.save_every_steps, pace.saves_s)]
        kinds.append((plan.sample_every_steps, pace.samples_s))
        if state.step_number > 1 and all(done for every, done in kinds if every) and not plan.evals_at_end:
            measured = True
            assert remaining_s(state) == pytest.approx(end_s - event.time_s, abs=4.1), "but for a round of samples"
    assert measured or plan.evals_at_end
    left = remaining(folded(log[:-2]))
    assert left is not None and left.seconds < 20


def test_time_left_is_a_lower_bound_until_samples_are_measured() -> None:
    plan = events.TrainingPlanned(
        total_steps=20, steps_per_epoch=None, effective_batch_rows=1, sample_every_steps=10, samples_at_end=1
    )
    log = timeline(plan, {"step": 1.0, "save": 0.0, "answer": 2.0})
    before, after = folded(log[:9]), folded(log[:13])
    assert narration.left(before) == "at least 0:12 left"
    assert narration.left(after) == "0:18 left"


def test_an_evaluation_that_was_not_measured_yet_takes_a_third_of_training_on_its_rows() -> None:
    plan = events.TrainingPlanned(total_steps=10, steps_per_epoch=None, effective_batch_rows=16, evals_at_end=1)
    log = [events.DatasetReady(train_rows=160, eval_rows=160), *timeline(plan, {"step": 3.0, "eval": 0.0, "save": 0.0})]
    state = folded(log[:7])
    assert state.step_number == 5
    assert remaining_s(state) == pytest.approx(5 * 3.0 + 10 * 1.0)


def test_pause_between_attempts_is_not_a_step() -> None:
    plan = events.TrainingPlanned(total_steps=10, steps_per_epoch=None, effective_batch_rows=1, time_s=5_000.0)
    log = [started(1), plan.model_copy(update={"time_s": 1_000.0})]
    log += [step(number, time_s=1_000.0 + number) for number in range(1, 5)]
    log += [started(2, resumed_from_step=4), plan, step(5, time_s=5_001.0)]
    assert folded(log).pace.steps_s == (1.0,) * 5


def test_requested_checkpoint_does_not_count_as_scheduled() -> None:
    plan = events.TrainingPlanned(total_steps=100, steps_per_epoch=None, effective_batch_rows=1, save_every_steps=50)
    log = [plan, *(step(number) for number in range(1, 34))]
    assert to_come(folded(log)) == to_come(folded([*log, checkpoint(33)])) == (0, 3, 0)


def test_the_speed_of_a_run_is_the_mean_of_all_steps() -> None:
    """Including after going back to a checkpoint; not the speed of the last step."""

    def at(number: int, tokens_per_s: float) -> events.Step:
        return noisy(number, tokens=100 * number, tokens_per_s=tokens_per_s, time_s=0.0, seq=0, peak_bytes=0)

    state = fold_all(RunState(), [started(1), at(1, 100.0), checkpoint(1), at(2, 1.0)])
    assert state.mean_tokens_per_s == 200 / 101
    state = fold_all(state, [started(2, resumed_from_step=1), at(2, 50.0), at(3, 25.0)])
    assert state.mean_tokens_per_s == 300 / (1 + 2 + 4)
    assert RunState().mean_tokens_per_s is None


def test_the_smoothed_loss_is_near_the_end_and_the_mean_is_of_all_steps() -> None:
    steps = [noisy(n, loss=10.0 if n <= 50 else 1.0, time_s=0.0, seq=0, peak_bytes=0) for n in range(1, 101)]
    state = fold_all(RunState(), [started(1), *steps])
    assert state.mean_loss == 5.5
    assert state.smoothed_loss is not None and 1.0 <= state.smoothed_loss < 1.01
    assert RunState().smoothed_loss is None


def test_repeated_warning_of_a_resumed_attempt_is_kept_once() -> None:
    warned = events.Warned(code="data", message="18 rows are equal")
    other = events.Warned(code="data", message="19 rows are equal")
    state = folded([started(1), warned, started(2), warned, other, warned])
    assert [item.message for item in state.warnings] == [warned.message, other.message]
