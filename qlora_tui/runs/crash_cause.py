"""Find the cause of a crash in the worker's output: the error itself, never a warning of a library."""

import re
from collections.abc import Sequence

STARTED = "--- qlora-tui: a worker starts ---"
"""Printed before each attempt to separate its output from that of earlier attempts."""

_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|Panic\w*)\b(?::|$)")
_FATAL = re.compile(
    r"CUDA error|CUDA out of memory|out of memory|Segmentation fault|Fatal Python error|Bus error|Aborted|Killed|"
    r"core dumped|terminate called|std::bad_alloc|bad_alloc|Cannot allocate memory|No space left|Xid|NCCL error|"
    r"panicked at|[Nn]o such |error while loading shared libraries|\b[Ee]rror:",
)
_WARNING = re.compile(r"\b\w*Warning\b|\bWARNING\b|\bwarnings?\.warn|^warning:|deprecated", re.IGNORECASE)
_LONGEST = 200


def crash_cause(lines: Sequence[str]) -> str:
    """Return the line of a worker's output with the reason why it ended, or an empty string."""
    newest = [line.strip() for line in _newest_attempt(lines)]
    said = [line for line in newest if line and not _WARNING.search(line)]
    for pattern in (_ERROR, _FATAL):
        if found := next((line for line in reversed(said) if pattern.search(line)), ""):
            return found[:_LONGEST]
    return ""


def _newest_attempt(lines: Sequence[str]) -> Sequence[str]:
    starts = [index for index, line in enumerate(lines) if line.strip() == STARTED]
    return lines[starts[-1] + 1 :] if starts else lines
