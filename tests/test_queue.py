"""The queue: runs that wait, a loop that starts them one after another, and one loop at a time."""

import fcntl
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from command_line import Cli, command, fake_worker

from qlora_tui import hardware
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import NotFoundError, RunConflictError, StorageError
from qlora_tui.hardware import Gpu
from qlora_tui.runs import jobs, labels, queue, store, waiting
from qlora_tui.runs.fingerprint import read_plan

__all__ = ["command", "fake_worker"]
Behave = Callable[[str], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_POLL_S", 0.05)
    monkeypatch.setattr(queue, "_LOOK_S", 0.1)


def test_runs_start_in_turn_each_when_the_one_before_has_ended(fake_worker: Behave) -> None:
    for name in ("one", "two"):
        store.create(name, RunConfig(), {})
        queue.add(name, allow_download=name == "two")
    said: list[str] = []
    queue.work_off(said.append)
    assert queue.waiting() == []
    assert [line for line in said if line.startswith("started")] == ["started one", "started two"]
    for name in ("one", "two"):
        jobs.wait_until_dead(store.find(name), 10)
    one, two = (jobs.look(store.find(name)) for name in ("one", "two"))
    assert (one.status, two.status) == ("finished", "finished")
    assert one.state.last_event_s <= two.state.first_event_s
    assert [job.state.warnings[0].message for job in (one, two)] == ["", "--allow-download"]


def test_a_run_that_cannot_start_does_not_hold_up_the_others(fake_worker: Behave) -> None:
    for name in ("gone", "two"):
        store.create(name, RunConfig(), {})
        queue.add(name)
    store.remove(store.find("gone"))
    said: list[str] = []
    queue.work_off(said.append)
    assert any("gone was not started" in line for line in said)
    assert jobs.wait_until_dead(store.find("two"), 10)
    assert jobs.look(store.find("two")).status == "finished"


def test_a_run_that_was_resumed_by_hand_is_not_started_again(fake_worker: Behave) -> None:
    for name in ("one", "two"):
        store.create(name, RunConfig(), {})
        queue.add(name)
    one = store.find("one")
    jobs.start(one)
    assert jobs.wait_until_dead(one, 10)
    said: list[str] = []
    queue.work_off(said.append)
    assert jobs.wait_until_dead(store.find("two"), 10)
    assert any("run 'one' has begun already" in line for line in said)
    assert [jobs.look(store.find(name)).state.attempt for name in ("one", "two")] == [1, 1]


def test_a_run_that_is_added_at_the_last_moment_is_started(
    fake_worker: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds it sees a process that works the queue off, and starts none."""
    store.create("late", RunConfig(), {})
    look = queue.waiting
    seen: list[bool] = []

    def look_and_be_late() -> list[queue.Waiting]:
        found = look()
        if not seen:
            seen.append(queue.is_running())
            queue.add("late")
        return found

    monkeypatch.setattr(queue, "waiting", look_and_be_late)
    said: list[str] = []
    queue.work_off(said.append)
    assert (seen, said) == ([True], ["started late"])
    assert jobs.wait_until_dead(store.find("late"), 10)


def test_a_waiting_run_keeps_its_place_under_another_name() -> None:
    for name in ("one", "two"):
        queue.add(store.create(name, RunConfig(), {}).name, allow_download=True)
    labels.rename(store.find("one"), "first")
    assert queue.waiting() == [queue.Waiting("first", True), queue.Waiting("two", True)]
    store.create("three", RunConfig(), {})
    with pytest.raises(RunConflictError):
        labels.rename(store.find("first"), "three")
    assert [entry.name for entry in queue.waiting()] == ["first", "two"]


def machine(*, free: int, total: int = 100, gpu: bool = True) -> hardware.Machine:
    """With one GPU of `total` bytes, or with so much RAM and none."""
    card = Gpu(0, "card", "GPU-1", total, free, None, None, None, None)
    return hardware.Machine((card,) if gpu else (), None, 1, 0.0, total, free)


@pytest.mark.parametrize(
    ("expected", "free", "obstacle"),
    [
        (None, 10, "the GPU's memory is in use"),
        (None, 90, ""),
        ({"kind": "cuda", "need_bytes": 30}, 29, "it needs 30 B of a GPU"),
        ({"kind": "cuda", "need_bytes": 30}, 30, ""),
        ({"kind": "cuda", "need_bytes": 70}, 60, "it needs"),
        ({"kind": "cuda", "need_bytes": 101}, 10, "the GPU's memory is in use"),
        ({"kind": "cuda", "need_bytes": 101}, 90, ""),
        ({"kind": "cpu", "need_bytes": 30}, 29, "of RAM"),
        ({"kind": "cpu", "need_bytes": 30}, 30, ""),
        ({"kind": "cpu", "need_bytes": 101}, 10, ""),
        ({"need_bytes": "much"}, 90, ""),
    ],
)
def test_the_next_run_waits_for_the_memory_it_needs(
    monkeypatch: pytest.MonkeyPatch, expected: Any, free: int, obstacle: str
) -> None:
    """What it will never get, it does not wait for: the start tells why it does not fit."""
    store.create("next", RunConfig(), {"estimate": expected} if expected else {})
    monkeypatch.setattr(hardware, "snapshot", lambda: machine(free=free))
    assert obstacle in queue.busy("next")
    assert bool(queue.busy("next")) == bool(obstacle)


def test_what_a_waiting_run_needs_is_estimated_when_it_is_added() -> None:
    run = store.create("next", RunConfig(), {"model": "starter"})
    queue.add("next")
    expected = read_plan(run)["estimate"]
    assert expected["kind"] in ("cpu", "cuda") and expected["need_bytes"] > 100 << 20
    assert read_plan(run)["model"] == "starter"


def test_a_fault_of_the_estimator_keeps_no_run_from_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("qlora_tui.memory.record.estimate", broken)
    run = store.create("next", RunConfig(), {"model": "starter"})
    queue.add("next")
    assert [entry.name for entry in queue.waiting()] == ["next"]
    assert read_plan(run) == {"model": "starter"}


def test_what_cannot_wait_is_refused() -> None:
    with pytest.raises(NotFoundError):
        queue.add("nobody")
    store.create("one", RunConfig(), {})
    queue.add("one")
    with pytest.raises(RunConflictError, match="in the queue already"):
        queue.add("one")
    assert queue.remove("one")
    assert not queue.remove("one")


def test_a_damaged_file_is_an_empty_queue() -> None:
    store.create("one", RunConfig(), {})
    queue.add("one")
    waiting.file().write_text('{"name": ')
    assert queue.waiting() == []
    queue.add("one")
    assert [entry.name for entry in queue.waiting()] == ["one"]


def test_the_command_adds_lists_and_removes(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ensure_running", lambda: None)
    assert command("queue", "add", "starter").out.strip() == "starter-1"
    assert json.loads(command("queue", "list", "--json").out) == {
        "schema_version": 1,
        "waiting": ["starter-1"],
        "running": False,
    }
    assert command("queue", "remove", "starter-1").code == 0
    assert command("queue", "remove", "starter-1").code == 4
    assert "nothing waits" in command("queue", "list").err


def test_only_one_process_works_it_off() -> None:
    from filelock import FileLock

    queue._lock().parent.mkdir(parents=True, exist_ok=True)
    with FileLock(queue._lock()):
        assert queue.is_running()
        with pytest.raises(RunConflictError, match="another process"):
            queue.work_off(print)
    assert not queue.is_running()


def test_somebody_who_looks_is_not_taken_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    queue._lock().parent.mkdir(parents=True, exist_ok=True)
    looker = os.open(queue._lock(), os.O_RDWR | os.O_CREAT)
    fcntl.flock(looker, fcntl.LOCK_SH)
    monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(looker, fcntl.LOCK_UN))  # gone before the next try
    queue.work_off(print)
    os.close(looker)


def test_a_queue_that_cannot_be_changed_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    store.create("one", RunConfig(), {})
    queue.add("one")
    monkeypatch.setattr(queue, "_PATIENCE_S", 0.0)
    with FileLock(waiting.file().with_suffix(".changing")), pytest.raises(RunConflictError, match="another process"):
        queue.remove("one")
    waiting.file().with_suffix(".changing").unlink()
    waiting.file().with_suffix(".changing").mkdir()
    with pytest.raises(StorageError, match="queue"):
        queue.remove("one")


def test_a_waiting_run_is_listed_and_shown_as_queued(command: Cli) -> None:
    store.create("one", RunConfig(), {})
    queue.add("one")
    assert "one\tqueued\t" in command("runs", "list").out
    assert "queued" in command("runs", "show", "one").out
    assert command("queue", "remove", "one").code == 0
    assert "one\tcreated\t" in command("runs", "list").out
