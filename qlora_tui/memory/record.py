"""What plan.json keeps of an estimate: for the queue, and to be held against the measured peak."""

from collections import Counter
from typing import Any

from qlora_tui.config.run import RunConfig
from qlora_tui.hardware import Machine
from qlora_tui.memory.device import Device, automatic
from qlora_tui.memory.estimate import Estimate, estimate, verdict
from qlora_tui.models import describe


def entry(found: Estimate, device: Device) -> dict[str, Any]:
    """Plain data. `device`: with what was free on it when the estimate was made."""
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


def before_start(config: RunConfig, machine: Machine) -> dict[str, Any] | None:
    """The entry of a run that nobody has started, its rows as long as allowed; None when there is no estimate, be it
    by a fault of the estimator: the run can wait for its turn without."""
    try:
        device = automatic(machine, config.model.device)
        facts = describe(config.model.id, config.model.revision)
        return entry(estimate(config, facts, device, replay=True), device)
    except Exception:
        return None
