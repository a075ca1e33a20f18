"""The error in a crashed worker's output is quoted, never a warning."""

import pytest

from qlora_tui.runs.crash_cause import STARTED, crash_cause

WARNING = [
    "/venv/training_args.py:1541: FutureWarning: `gradient_checkpointing` is deprecated and will be removed in v6.",
    '  warnings.warn(f"`{old}` is deprecated", FutureWarning)',
]
TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "worker.py", line 3, in main',
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (WARNING, ""),
        ([*TRACEBACK, *WARNING], TRACEBACK[-1]),
        (["ValueError: a", *WARNING, "  0%|      | 0/3 [00:00<?, ?it/s]"], "ValueError: a"),
        ([*WARNING, "Fatal Python error: Segmentation fault", *WARNING], "Fatal Python error: Segmentation fault"),
        (["CUDA error: [device] lost"], "CUDA error: [device] lost"),
        (["KeyboardInterrupt"], "KeyboardInterrupt"),
        ([*TRACEBACK, STARTED, *WARNING], ""),
        (["loading", "DeprecationWarning: old Error: x"], ""),
        ([], ""),
    ],
)
def test_error_is_quoted_instead_of_warnings(lines: list[str], cause: str) -> None:
    assert crash_cause(lines) == cause
