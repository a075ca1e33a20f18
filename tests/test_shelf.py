"""All runs at a glance, and what a person puts on them afterwards."""

import pytest

from qlora_tui.config.differences import differences
from qlora_tui.config.overrides import resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import RunConflictError, UsageError
from qlora_tui.runs import events, jobs, labels, store
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.shelf import Shelf
from qlora_tui.runs.store import RunFolder


def made(name: str, steps: int) -> RunFolder:
    run = store.create(name, RunConfig(), {"model": "starter", "data": "starter", "created_s": 5})
    write(run, *(a_step(number) for number in range(1, steps + 1)))
    return run


def write(run: RunFolder, *said: events.AnyEvent) -> None:
    writer = EventWriter(run.events)
    for event in said:
        writer.write(event)
    writer.close()


def a_step(number: int) -> events.Step:
    return events.Step(step=number, epoch=0, loss=1 / number, learning_rate=1e-4, grad_norm=1, tokens=1, tokens_per_s=1)


def test_a_glimpse_follows_the_run() -> None:
    run = made("one", 3)
    shelf = Shelf()
    (glimpse,) = shelf.read()
    assert (glimpse.step, glimpse.curve, glimpse.model, glimpse.status) == (3, (1, 1 / 2, 1 / 3), "starter", "created")
    write(run, a_step(4), events.Eval(step=4, loss=0.5))
    labels.set_tags(run, ["good"])
    (glimpse,) = shelf.read()
    assert (glimpse.step, glimpse.eval_loss, glimpse.tags) == (4, 0.5, ("good",))
    assert not glimpse.live
    with jobs.hold(run):
        (glimpse,) = shelf.read()
        assert glimpse.live
    store.remove(run)
    assert list(shelf.read()) == []


def test_the_count_that_training_began_with_is_not_its_progress() -> None:
    run = made("one", 0)
    started = events.Started(attempt=1, pid=1, process_start_s=0)
    write(run, started, events.Stage(stage="training", done=56, total=490, unit="steps"), a_step(104))
    with jobs.hold(run):
        (glimpse,) = Shelf().read()
    assert (glimpse.step, glimpse.doing) == (104, "training")


def test_a_run_that_has_not_changed_is_not_read_again() -> None:
    run = made("one", 3)
    shelf = Shelf()
    (before,) = shelf.read()
    (after,) = shelf.read()
    assert after is before
    write(run, a_step(4))
    (later,) = shelf.read()
    assert later.step == 4


def test_a_run_that_cannot_be_read_is_named_among_the_others() -> None:
    """As one of a colleague in a shared folder, who keeps his log to himself."""
    log = made("one", 3).events
    log.rename(log.with_suffix(".kept"))
    log.mkdir()
    made("two", 3)
    shelf = Shelf()
    for _ in range(2):
        two, one = sorted(shelf.read(), key=lambda glimpse: glimpse.step, reverse=True)
        assert (two.name, two.step) == ("two", 3)
        assert (one.name, one.status, one.live, one.model) == ("one", "unreadable", False, "starter")
        assert f"cannot read {log}" in one.doing
    log.rmdir()
    log.with_suffix(".kept").rename(log)
    assert [glimpse.step for glimpse in shelf.read()] == [3, 3]


def test_a_run_that_is_removed_and_made_again_is_read_from_its_start() -> None:
    """Also when nobody looked in between, and whatever is the same about both."""
    shelf = Shelf()
    with jobs.hold(made("one", 9)):
        assert [glimpse.step for glimpse in shelf.read()] == [9]
    store.remove(store.find("one"))
    with jobs.hold(made("one", 2)):
        (glimpse,) = shelf.read()
    assert (glimpse.step, glimpse.curve) == (2, (1, 1 / 2))
    store.remove(store.find("one"))
    store.create("one", RunConfig(), {"model": "other"})
    (glimpse,) = shelf.read()
    assert (glimpse.step, glimpse.model) == (0, "other")


def test_a_long_curve_is_short_in_a_glimpse() -> None:
    made("one", 1000)
    (glimpse,) = Shelf().read()
    assert 60 <= len(glimpse.curve) <= 120


def test_names_and_tags() -> None:
    run = made("one", 1)
    made("two", 1)
    with pytest.raises(RunConflictError):
        labels.rename(run, "two")
    with pytest.raises(UsageError):
        labels.rename(run, "../two")
    with jobs.hold(run), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "_LOCK_PATIENCE_S", 0.1)
        with pytest.raises(RunConflictError, match="busy"):
            labels.rename(run, "three")
    renamed = labels.rename(run, "three")
    assert (renamed.name, store.find("three").load_config()) == ("three", RunConfig())
    with pytest.raises(UsageError, match="two words"):
        labels.set_tags(renamed, ["two words"])
    (renamed.path / labels.FILE).write_text("{")
    assert labels.tags(renamed) == ()


def test_only_settings_that_differ_are_differences() -> None:
    one, two = resolve("starter"), resolve("starter", None, ["adapter.rank=3", "data.columns.text=t"])
    assert differences([one, two]) == {"adapter.rank": [one.adapter.rank, 3], "data.columns.text": [None, "t"]}
    assert differences([one, one]) == {}


def test_a_spike_of_one_step_stays_in_the_small_curve() -> None:
    from qlora_tui.runs.shelf import _highest

    curve = _highest([1.0] * 500 + [9.0] + [1.0] * 499)
    assert len(curve) <= 120 and curve.count(9.0) == 1
    assert _highest([]) == ()
