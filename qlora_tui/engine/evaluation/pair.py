"""A run's base and its adapter on one loaded copy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from qlora_tui.engine import chat_model
from qlora_tui.engine.generate import evaluating
from qlora_tui.engine.prompts import Prompts
from qlora_tui.errors import UsageError
from qlora_tui.evaluation.predictions import Side
from qlora_tui.evaluation.tasks import Task
from qlora_tui.runs.store import RunFolder


@dataclass(frozen=True, slots=True)
class Pair:
    model: Any
    prompts: Prompts
    sides: tuple[Side, ...]
    context_max_tokens: int

    @property
    def tokenizer(self) -> Any:
        return self.prompts.tokenizer

    @contextmanager
    def side(self, side: Side) -> Iterator[Any]:
        """The model as this side, in evaluation mode and without gradients."""
        chosen = self.model.disable_adapter() if side == "base" else nullcontext()
        with chosen, evaluating(self.model), torch.inference_mode():
            yield self.model


def load(run: RunFolder, task: Task, say: Callable[[str], None]) -> Pair:
    """Load what the task asks for. Raises UsageError for a base that a full finetune does not have."""
    loaded = chat_model.load(run, checkpoint=task.checkpoint, device=task.device, on_stage=say, on_notice=say)
    missing = [side for side in task.sides if side not in loaded.ready.sides]
    if missing:
        raise UsageError(
            f"run {run.name!r} has no base to compare with: it trained every weight of its model",
            hint="Evaluate the trained model alone: --side adapter.",
        )
    return Pair(loaded.model, loaded.prompts, task.sides, loaded.ready.context_max_tokens)
