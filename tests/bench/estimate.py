"""How long an estimate takes: one, full searches for what fits and what would, and the table of all cards."""

import time
from collections.abc import Callable
from statistics import median

from qlora_tui.config.overrides import resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.memory import advisor
from qlora_tui.memory.device import Device, card
from qlora_tui.memory.estimate import estimate
from qlora_tui.memory.largest import largest
from qlora_tui.memory.table import table
from qlora_tui.models import ModelFacts, describe
from tests.bench.report import Ratio

_RUNS = 21


def measure() -> list[Ratio]:
    """Seconds of a processor for each, against those it may take: it is all one thread of Python."""
    config, small = _config("meta-llama/Llama-3.1-8B"), card(24)
    facts = describe(config.model.id, network=False)
    return [
        _ratio("one estimate", lambda: estimate(config, facts, small), 0.020, _RUNS),
        _ratio("one estimate with a replay", lambda: estimate(config, facts, small, replay=True), 1.0, 3),
        _ratio("the largest batch, estimated", lambda: largest(config, facts, small, "batch"), 0.5, 3),
        _ratio("the largest batch, replayed", lambda: largest(config, facts, small, "batch", replay=True), 3.0, 3),
        _ratio("what makes it fit 8 GB, replayed", lambda: _advice(config, facts, card(8)), 3.0, 3),
        _ratio("the table of all cards", lambda: table(config, facts), 30.0, 1),
    ]


def _advice(config: RunConfig, facts: ModelFacts, where: Device) -> None:
    now = estimate(config, facts, where, replay=True)
    advisor.suggestions(config, facts, now, replay=True)


def _ratio(what: str, work: Callable[[], object], goal_s: float, runs: int) -> Ratio:
    seconds = []
    for _ in range(runs):
        began_s = time.process_time()
        work()
        seconds.append(time.process_time() - began_s)
    return Ratio(f"{what}, CPU s / {goal_s:g} s", median(seconds), goal_s, 1, at_least=False)


def _config(model: str) -> RunConfig:
    sizes = ("training.micro_batch_size=2", "training.max_length_tokens=2048")
    return resolve(overrides=[f"model.id={model}", *sizes])
