"""Tokens per second of our worker against the same training without it."""

import json
import random
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from qlora_tui.config.overrides import resolve
from qlora_tui.hardware import cpu_has_native_bf16
from qlora_tui.runs import jobs, store
from qlora_tui.runs.follow import Follower
from qlora_tui.starter import TRAIN_DATA
from tests.bench.report import Ratio

_STEPS = 14
_SKIPPED_STEPS = 4
_BATCH_ROWS = 16
_PAIRS = 3


def measure() -> list[Ratio]:
    """Our worker beside a plain TRL script, and beside the loop of the original qlora.py, in turn.

    Every program trains each row once, in steps of 16 rows, and tokens of padding do not count. qlora.py computes in
    float32 unless told otherwise; ours is shown in float32, and in bfloat16 where the processor has that. It takes row
    by row, which costs most where rows are short: single questions are shown beside conversations of mixed length.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows, short = Path(folder) / "rows.jsonl", Path(folder) / "short.jsonl"
        rows.write_text(_mixed_length_rows(_STEPS * _BATCH_ROWS))
        short.write_text("".join(TRAIN_DATA.read_text().splitlines(keepends=True)[: _STEPS * _BATCH_ROWS]))
        dtypes = ("float32", "bfloat16") if cpu_has_native_bf16() else ("float32",)
        plain: list[tuple[float, float]] = []
        questions: list[tuple[float, float]] = []
        original: dict[str, list[tuple[float, float]]] = {dtype: [] for dtype in dtypes}
        for number in range(_PAIRS):
            plain.append((_ours(rows, f"plain-{number}"), _theirs(rows, folder)))
            ours = _ours(short, f"short-{number}", "training.group_by_length=true", *_computing_in("float32"))
            questions.append((ours, _theirs(short, folder, "--original")))
            theirs = _theirs(rows, folder, "--original")
            for dtype in dtypes:
                ours = _ours(rows, f"{dtype}-{number}", "training.group_by_length=true", *_computing_in(dtype))
                original[dtype].append((ours, theirs))
    return [
        _ratio("training, tokens/s: ours / plain SFTTrainer, same settings", plain, 0.99),
        _ratio("training, tokens/s, single questions: ours in float32 / qlora.py's settings", questions, 3),
        *(_ratio(f"training, tokens/s: ours in {dtype} / qlora.py's settings", original[dtype], 3) for dtype in dtypes),
    ]


def _ratio(what: str, pairs: list[tuple[float, float]], goal: float) -> Ratio:
    """Of the pair with the middle ratio: a machine that is busy for a while slows both of a pair."""
    ours, theirs = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    return Ratio(what, ours, theirs, goal)


def _computing_in(dtype: str) -> tuple[str, ...]:
    return (f"model.dtype={dtype}", f"quantization.compute_dtype={dtype}")


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
