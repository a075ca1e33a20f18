"""Real training on the starter model, small enough to run often."""

from collections.abc import Callable
from typing import Any

from qlora_tui.config.overrides import resolve
from qlora_tui.runs import jobs, store
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

SMALL = (
    "model.device=cpu",
    "quantization.compute_dtype=float32",
    "adapter.dropout=0.1",
    "data.max_train_rows=40",
    "training.micro_batch_size=4",
    "training.gradient_accumulation_steps=2",
    "training.learning_rate=1e-3",
    "training.max_length_tokens=64",
    "training.max_steps=8",
    "training.save_every_steps=3",
)
"""Eight optimizer steps over forty rows: epochs end in between, and dropout makes every step need the right seed."""

Condition = Callable[[RunState], bool]


class Runs:
    """Makes runs in the test's own folder and follows their workers."""

    def __init__(self) -> None:
        self.made: list[RunFolder] = []

    def create(self, name: str, *overrides: str) -> RunFolder:
        run = store.create(name, resolve(overrides=(*SMALL, *overrides)), {})
        self.made.append(run)
        return run

    def follow(self, run: RunFolder, until: Condition = lambda state: False) -> RunState:
        """The state at which `until` holds, or the last one when the worker ends before."""
        follower = Follower(run)
        for _ in follower.batches():
            if until(follower.state):
                break
        return follower.state

    def train(self, run: RunFolder, until: Condition = lambda state: False, **options: Any) -> RunState:
        """Start a worker and follow it."""
        jobs.start(run, **options)
        return self.follow(run, until)

    def finished(self, name: str, *overrides: str) -> RunFolder:
        """A new run, trained to its end."""
        run = self.create(name, *overrides)
        state = self.train(run)
        assert state.phase == "finished", state.failed
        return run


Step = tuple[int, float | None, float | None, float, int]


def course(state: RunState) -> list[Step]:
    """What must be equal to the last bit: step, loss, gradient norm, learning rate and tokens of each step."""
    return [
        (point.step, point.loss, point.grad_norm, point.learning_rate, point.tokens) for point in state.steps.points()
    ]


def adapter_bytes(run: RunFolder) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()
