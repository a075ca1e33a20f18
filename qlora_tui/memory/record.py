"""What plan.json keeps of an estimate: for the queue, and to be held against the measured peak."""

from typing import Any

from qlora_tui.config.run import RunConfig
from qlora_tui.errors import QloraError
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
        "terms": {term.key: term.bytes for term in found.terms},
        "phases": dict(found.phases),
    }


def before_start(config: RunConfig, machine: Machine) -> dict[str, Any] | None:
    """The entry of a run that nobody has started, its rows as long as allowed; None when too little is known."""
    try:
        device = automatic(machine, config.model.device)
        facts = describe(config.model.id, config.model.revision)
        return entry(estimate(config, facts, device), device)
    except QloraError:
        return None
