"""`python -m tests.bench.quality`: the table of the README, the starter taught with each way to store its weights."""

import os
import tempfile

from qlora_tui.config.overrides import resolve
from qlora_tui.evaluation import process
from qlora_tui.evaluation.predictions import Side
from qlora_tui.evaluation.tasks import AnswersTask
from qlora_tui.runs import jobs, store
from qlora_tui.runs.follow import Follower
from qlora_tui.starter import HELDOUT_DATA

_UNQUANTIZED = ("quantization.kind=none",)
KINDS = {
    "nf4": ("quantization.double_quantization=false",),
    "nf4, double quantization": (),
    "fp4": ("quantization.kind=fp4", "quantization.double_quantization=false"),
    "8-bit": ("quantization.kind=8bit",),
    "LoRA, not quantized": _UNQUANTIZED,
    "full finetune": (*_UNQUANTIZED, "adapter.kind=full", "training.learning_rate=3e-4"),
}


def main() -> None:
    print("| weights stored as | MB | base right | tuned right | held-out loss | training, s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        os.environ["QLORA_TUI_HOME"] = home
        for kind, overrides in KINDS.items():
            print(row(kind, overrides), flush=True)


def row(kind: str, overrides: tuple[str, ...]) -> str:
    """Train the demonstration with other weights and ask its held-out questions."""
    config = resolve("starter", overrides=["data.eval_source=starter", *overrides])
    run = store.create(store.free_name("quality"), config, {})
    jobs.start(run)
    follower = Follower(run)
    for _ in follower.batches():
        pass
    finished, model = follower.state.finished, follower.state.model
    if finished is None or model is None:
        raise SystemExit(f"{kind}: {follower.state.failed}")
    sides: tuple[Side, ...] = ("adapter",) if config.adapter.kind == "full" else ("base", "adapter")
    task = AnswersTask(name="heldout", data=str(HELDOUT_DATA), max_tokens=32, batch_rows=32, sides=sides)
    *_, scores = process.measure(run, task)
    right = [f"{scores[side]['exact_match']:.1%}" if side in scores else "as above" for side in ("base", "adapter")]
    return (
        f"| {kind} | {model.stored_bytes / 1e6:.1f} | {right[0]} | {right[1]} "
        f"| {finished.metrics['eval_loss']:.4f} | {finished.train_seconds:.0f} |"
    )


if __name__ == "__main__":
    main()
