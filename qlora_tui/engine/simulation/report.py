"""What a simulation found, as plain data."""

from typing import Any

from qlora_tui.config.run import RunConfig
from qlora_tui.engine.simulation.derive import versions
from qlora_tui.engine.simulation.simulate import Simulation, Workload
from qlora_tui.memory.allocator import replay, rounded, smallest_capacity

_LARGEST = 10


def report(config: RunConfig, workload: Workload, found: Simulation) -> dict[str, Any]:
    """Everything in bytes, without the CUDA context.

    `peak_bytes`: most allocated from loading to the optimizer's step. `capacity_bytes`: the smallest GPU memory it
    survives on. `paged_bytes`: optimizer states in managed memory, in neither of them. `largest`: what the peak of the
    step is made of.
    """
    trace = found.ledger.trace()
    return {
        "peak_bytes": max(found.phase_peaks.values()),
        "step_peak_bytes": found.peak_bytes,
        "stored_bytes": found.stored_bytes,
        "reserved_bytes": replay(trace).reserved_bytes,
        "capacity_bytes": smallest_capacity(trace),
        "paged_bytes": found.paged_bytes,
        "by_category": found.by_category,
        "phase": found.phase,
        "phase_peaks": found.phase_peaks,
        "largest": _largest(found),
        "trainable_parameters": found.trainable_parameters,
        "rows": config.training.micro_batch_size,
        "row_tokens": workload.tokens,
        "padded": workload.padded,
        "operations": found.operations,
        "seconds": round(found.seconds, 2),
        "versions": versions(),
    }


def _largest(found: Simulation) -> list[dict[str, Any]]:
    """The groups of equal tensors that take most at the peak."""
    groups: dict[tuple[str, str, tuple[int | str, ...]], list[int]] = {}
    for birth in found.ledger.live(found.ledger.peak_event):
        group = groups.setdefault((birth.category, birth.operation, birth.shape), [0, 0])
        group[0] += rounded(birth.size_bytes)
        group[1] += 1
    ordered = sorted(groups.items(), key=lambda item: -item[1][0])[:_LARGEST]
    return [
        {"category": category, "operation": operation, "shape": list(shape), "bytes": size, "count": count}
        for (category, operation, shape), (size, count) in ordered
    ]
