"""How long an estimate takes: a program evaluated, the capacity search, and full dry runs of 7B and 70B."""

import time
from collections.abc import Callable
from statistics import median

from tests.bench.report import Ratio

_RUNS = 11
_LLAMA_7B = {"h": 4096, "f": 11008, "L": 32, "H": 32, "K": 32, "d": 128, "V": 32000, "B": 1, "S": 2048, "r": 64}
_SIMULATED = {"huggyllama/llama-7b": 30, "meta-llama/Llama-3.1-70B": 90}
"""Seconds that a dry run may take."""


def measure() -> list[Ratio]:
    """Median seconds of the torch-free part, one run of each dry run."""
    from qlora_tui.memory.allocator import Trace, smallest_capacity
    from qlora_tui.memory.program import ProgramKey, evaluate, expand, find

    shipped = find("llama", ProgramKey())
    assert shipped is not None
    trace = Trace()
    expand(shipped, _LLAMA_7B, trace)
    evaluated = _seconds(lambda: evaluate(shipped, _LLAMA_7B))
    searched = _seconds(lambda: smallest_capacity(trace))
    return [
        Ratio("peak of a 7B step from a program, s / 0.02 s", evaluated, 0.02, 1, at_least=False),
        Ratio("its smallest capacity, s / 1 s", searched, 1, 1, at_least=False),
        *(Ratio(f"dry run of {model}, s / {limit} s", _dry_run(model), limit, 1, at_least=False)
          for model, limit in _SIMULATED.items()),
    ]  # fmt: skip


def _seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_RUNS):
        began_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began_s)
    return median(seconds)


def _dry_run(model: str) -> float:
    from qlora_tui.config.run import RunConfig
    from qlora_tui.engine.simulation.hf_config import of_model
    from qlora_tui.engine.simulation.simulate import Workload, simulate

    spec = {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "gradient_checkpointing": "on"}
    config = RunConfig.model_validate({"model": {"id": model}, "training": spec})
    return simulate(config, of_model(config.model), Workload(tokens=512)).seconds
