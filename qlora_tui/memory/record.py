"""Estimate a run for plan.json: for the queue, for display, and for comparison with the measured peak."""

from collections import Counter
from typing import Any

from qlora_tui.config.run import RunConfig
from qlora_tui.hardware import Machine
from qlora_tui.memory.device import Device, automatic
from qlora_tui.memory.estimate import Estimate, estimate, verdict
from qlora_tui.memory.stored_estimate import Longest
from qlora_tui.models import describe


def entry(found: Estimate, device: Device, longest: Longest | None) -> dict[str, Any]:
    """Entry of plan.json. `device`: with its free memory at the time. `longest`: the row lengths of the estimate."""
    return {
        "need_bytes": found.need_bytes,
        "low_bytes": found.low_bytes,
        "high_bytes": found.high_bytes,
        "paged_bytes": found.paged_bytes,
        "peak_bytes": found.peak_bytes,
        "source": found.source,
        "verdict": verdict(found, device.free_bytes).answer,
        "device": device.name,
        "kind": device.kind,
        "free_bytes": device.free_bytes,
        "rows": found.rows,
        "row_tokens": found.row_tokens,
        "longest_tokens": longest.train_tokens if longest is not None else None,
        "longest_eval_tokens": longest.eval_tokens if longest is not None else None,
        "gradient_checkpointing": found.checkpointing,
        "terms": _sums(found),
        "phases": dict(found.phases),
    }


def _sums(found: Estimate) -> dict[str, int]:
    """Bytes by key: what the optimizer keeps and what it copies while it steps have the same."""
    sums: Counter[str] = Counter()
    for term in found.terms:
        sums[term.key] += term.bytes
    return dict(sums)


def estimated(config: RunConfig, device: Device, longest: Longest | None = None) -> dict[str, Any]:
    """Return the estimate of a run for plan.json. Raises QloraError when too little is known about the model."""
    facts = describe(config.model.id, config.model.revision)
    tokens = (longest.train_tokens, longest.eval_tokens) if longest is not None else (None, 0)
    found = estimate(config, facts, device, longest_tokens=tokens[0], longest_eval_tokens=tokens[1], replay=True)
    return entry(found, device, longest)


def before_start(config: RunConfig, machine: Machine) -> dict[str, Any] | None:
    """Return the entry of a run before the start, with rows of the maximum length; None without an estimate.

    An error of the estimator counts as no estimate: the run can start without one.
    """
    try:
        return estimated(config, automatic(machine, config.model.device))
    except Exception:
        return None
