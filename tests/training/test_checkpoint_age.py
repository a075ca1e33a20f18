"""A checkpoint is written when the last one is old, however rare the regular ones are."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl

from qlora_tui.config.training import TrainingSpec
from qlora_tui.engine import callbacks
from qlora_tui.engine.callbacks import RunCallback


def saves(callback: RunCallback) -> bool:
    """Whether the callback asks for a checkpoint at the end of a step."""
    control = TrainerControl()
    state: Any = SimpleNamespace(global_step=7, max_steps=100)
    callback.on_step_end(SimpleNamespace(), state, control)  # type: ignore[arg-type]
    return control.should_save


@pytest.mark.parametrize(
    ("age_s", "saving_s", "expected"), [(599, 1, False), (601, 1, True), (601, 60, False), (1201, 60, True)]
)
def test_old_checkpoint_is_followed_by_another(
    age_s: float, saving_s: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session: Any = SimpleNamespace(save_now=threading.Event(), stop_reason=None)
    nothing: Any = None
    now_s = [1000.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now_s[0])
    callback = RunCallback(session, TrainingSpec(), nothing, nothing, None)
    callback._saving_s = saving_s
    now_s[0] += age_s
    assert saves(callback) is expected
