"""The queue: runs that wait, a loop that starts them one after another, and one loop at a time."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from command_line import Cli, command, fake_worker

from qlora_tui import hardware
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import NotFoundError, RunConflictError
from qlora_tui.hardware import Gpu
from qlora_tui.runs import jobs, queue, store
from qlora_tui.runs.fingerprint import read_plan

__all__ = ["command", "fake_worker"]
Behave = Callable[[str], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_POLL_S", 0.05)


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


def machine(*, free: int, total: int = 100, gpu: bool = True) -> hardware.Machine:
    """With one GPU of `total` bytes, or with so much RAM and none."""
    card = Gpu(0, "card", "GPU-1", total, free, None, None, None, None)
    return hardware.Machine((card,) if gpu else (), None, 1, 0.0, total, free)


@pytest.mark.parametrize(
    ("expected", "free", "obstacle"),
    [
        (None, 10, "the GPU's memory is in use"),
        (None, 90, ""),
        ({"kind": "cuda", "need_bytes": 30}, 29, "it needs 0.00 GiB of a GPU"),
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
    queue._file().write_text('{"name": ')
    assert queue.waiting() == []
    queue.add("one")
    assert [entry.name for entry in queue.waiting()] == ["one"]


def test_the_command_adds_lists_and_removes(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ensure_running", lambda: None)
    assert command("queue", "add", "starter").out.strip() == "starter-1"
    assert json.loads(command("queue", "list", "--json").out) == {"waiting": ["starter-1"], "running": False}
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
