"""Tokens per second of our worker against the same training without it."""

import json
import random
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

from qlora_tui.config.overrides import resolve
from qlora_tui.runs import jobs, store
from qlora_tui.runs.follow import Follower
from qlora_tui.starter import TRAIN_DATA
from tests.bench.report import Ratio

_STEPS = 14
_SKIPPED_STEPS = 4
_BATCH_ROWS = 16
_PAIRS = 3


def measure() -> list[Ratio]:
    """Our worker beside a plain TRL script, and beside the loop of the original qlora.py, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text(_mixed_length_rows(600))
        ours, grouped, plain, original = [], [], [], []
        for number in range(_PAIRS):
            ours.append(_ours(rows, f"plain-{number}"))
            plain.append(_theirs(rows, folder))
            grouped.append(_ours(rows, f"grouped-{number}", "training.group_by_length=true"))
            original.append(_theirs(rows, folder, "--original"))
    return [
        Ratio("training, tokens/s: ours / plain SFTTrainer, same settings", median(ours), median(plain), 0.99),
        Ratio("training, tokens/s: ours / settings of qlora.py, mixed lengths", median(grouped), median(original), 3),
    ]


def _mixed_length_rows(count: int) -> str:
    """Conversations of one to twelve questions, so that rows differ in length by an order of magnitude."""
    single = [json.loads(line)["messages"][-2:] for line in TRAIN_DATA.read_text().splitlines()]
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        turns = [turn for pair in draw.sample(single, draw.randint(1, 12)) for turn in pair]
        rows.append(json.dumps({"messages": turns}))
    return "\n".join(rows) + "\n"


def _ours(rows: Path, name: str, *overrides: str) -> float:
    settings = [
        f"data.source={rows}", "model.device=cpu", "quantization.compute_dtype=float32",
        f"training.max_steps={_STEPS}", "training.learning_rate=1e-3", f"training.micro_batch_size={_BATCH_ROWS}",
        "training.gradient_accumulation_steps=1", "training.max_length_tokens=512",
        f"training.save_every_steps={_STEPS}",
    ]  # fmt: skip
    run = store.create(name, resolve(overrides=[*settings, *overrides]), {})
    jobs.start(run)
    follower = Follower(run)
    for _ in follower.batches():
        pass
    if follower.state.finished is None:
        raise SystemExit(f"the run for the benchmark failed: {follower.state.failed}")
    steps = follower.state.steps.points()[_SKIPPED_STEPS - 1 :]
    tokens = sum(after.tokens - before.tokens for before, after in pairwise(steps))
    return tokens / (steps[-1].time_s - steps[0].time_s)


def _theirs(rows: Path, folder: str, *options: str) -> float:
    command = [
        sys.executable, "-m", "tests.bench.plain_training", str(rows), f"{folder}/plain", *options,
        "--steps", str(_STEPS), "--skip", str(_SKIPPED_STEPS), "--batch", str(_BATCH_ROWS),
    ]  # fmt: skip
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1])["tokens_per_s"])
