"""The shipped programs against full-depth dry runs: `python -m qlora_tui.engine.simulation.validate FILE [--cases N]`.

Appends one JSON line a case to FILE and leaves out the cases that are there; `--store` writes all of them, with the
versions and a summary, beside the programs.
"""

from qlora_tui.engine import environment

environment.prepare(allow_download=False)

import argparse  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from qlora_tui import atomic  # noqa: E402
from qlora_tui.config.run import RunConfig  # noqa: E402
from qlora_tui.engine.simulation.hf_config import of_model  # noqa: E402
from qlora_tui.engine.simulation.simulate import Simulation, Workload, simulate  # noqa: E402
from qlora_tui.memory import program, step  # noqa: E402
from qlora_tui.memory.allocator import Trace, rounded, smallest_capacity  # noqa: E402
from qlora_tui.memory.device import card  # noqa: E402
from qlora_tui.memory.estimate import estimate  # noqa: E402
from qlora_tui.memory.program import PROGRAMS, ProgramKey  # noqa: E402
from qlora_tui.models import describe  # noqa: E402

MODELS = (
    "HuggingFaceTB/SmolLM2-135M", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.2-1B",
    "google/gemma-3-1b-pt", "google/gemma-2-2b", "microsoft/Phi-3-mini-4k-instruct", "mistralai/Mistral-7B-v0.3",
    "huggyllama/llama-7b", "Qwen/Qwen2.5-7B", "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B", "google/gemma-2-9b",
    "meta-llama/Llama-3.2-3B", "microsoft/phi-4", "Qwen/Qwen2.5-14B", "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-70B",
)  # fmt: skip
ROUNDS = 4
MOST_TOKENS = 16384
_SEED = 11
GRID = PROGRAMS / "grid.json"
Case = dict[str, Any]


class NoProgramError(Exception):
    """A case for which no program is shipped."""


def cases() -> list[Case]:
    """Every model in each round with other switches, always the same ones."""
    choose = random.Random(_SEED)  # noqa: S311 - a sample, no secret
    found: list[Case] = []
    for number in range(ROUNDS):
        for model in MODELS:
            tokens, rows = choose.choice((512, 1024, 2048, 4096, 8192)), choose.choice((1, 1, 2, 4))
            found.append(
                {
                    "number": len(found),
                    "round": number,
                    "model": model,
                    "tokens": tokens,
                    "rows": rows if rows * tokens <= MOST_TOKENS else 1,
                    "accumulate": choose.choice((1, 16)),
                    "rank": choose.choice((8, 16, 64)),
                    "dropout": choose.choice((0.0, 0.05)),
                    "recipe": choose.choice(("lean", "lean", "original")),
                    "checkpointing": choose.choice(("on", "on", "off")),
                    "double_quantization": choose.choice((True, True, False)),
                    "optimizer": choose.choice(
                        ("paged_adamw_32bit", "adamw_bnb_8bit", "paged_adamw_8bit", "adamw_torch_fused", "adamw_torch")
                    ),
                }
            )
    return found


def measure(case: Case) -> Case:
    """One full dry run, the program beside it, and the estimate beside both. Bytes."""
    config = _config(case)
    facts = describe(case["model"], network=False)
    batch = step.Shape(case["rows"], case["tokens"], case["accumulate"] > 1)
    masked = step.masked(config, facts, batch)
    key = ProgramKey(case["recipe"], case["checkpointing"] == "on", case["dropout"] > 0, masked=masked)
    shipped = program.find(facts.model_type, key)
    if shipped is None:
        raise NoProgramError(f"no program {facts.model_type} {key.name}")
    workload = Workload(tokens=case["tokens"], padded=case["rows"] > 1)
    found = simulate(config, of_model(config.model), workload)
    dims = step.dims(config, facts, batch)
    began = time.perf_counter()
    peak = program.evaluate(shipped, dims, accumulate=batch.accumulate, optimizer_step_bytes=_step_bytes(case, found))
    seconds = time.perf_counter() - began
    trace = _prelude(found)
    program.expand(shipped, dims, trace, accumulate=batch.accumulate)
    whole = estimate(config, facts, card(1024), longest_tokens=case["tokens"], replay=True)
    return {
        **case,
        "masked": masked,
        "family": facts.model_type,
        "dims": dims,
        "optimizer_step_bytes": _step_bytes(case, found),
        "stored": found.stored_bytes,
        "peak": found.peak_bytes,
        "program_peak": peak.peak_bytes + found.stored_bytes,
        "capacity": smallest_capacity(found.ledger.trace()),
        "program_capacity": smallest_capacity(trace),
        "estimate_capacity": whole.need_bytes - whole.device.context_bytes,
        "phase": found.phase,
        "program_phase": peak.phase,
        "dry_run_seconds": round(found.seconds, 1),
        "evaluate_ms": round(1000 * seconds, 2),
    }


def _config(case: Case) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"id": case["model"], "attention": "sdpa"},
            "quantization": {"double_quantization": case["double_quantization"]},
            "adapter": {"rank": case["rank"], "dropout": case["dropout"]},
            "training": {
                "recipe": case["recipe"],
                "micro_batch_size": case["rows"],
                "gradient_accumulation_steps": case["accumulate"],
                "max_length_tokens": case["tokens"],
                "gradient_checkpointing": case["checkpointing"],
                "optimizer": case["optimizer"],
            },
        }
    )


def _step_bytes(case: Case, found: Simulation) -> int:
    """foreach AdamW copies every adapter matrix while it steps."""
    if case["optimizer"] != "adamw_torch":
        return 0
    live = found.ledger.live(found.step_began)
    return sum(rounded(birth.size_bytes) for birth in live if birth.category == "adapter")


def _prelude(found: Simulation) -> Trace:
    """The recorded loading and preparation, to which the program adds the step."""
    trace = found.ledger.trace()
    trace.events = trace.events[: found.step_began]
    return trace


def summary(rows: Iterable[Case]) -> dict[str, dict[str, float]]:
    """Errors in percent."""
    rows = list(rows)
    pairs = (
        ("program_peak", "peak"),
        ("program_capacity", "capacity"),
        ("estimate_capacity", "capacity"),
    )
    found = {}
    for guess, truth in pairs:
        errors = sorted(abs(100 * (row[guess] / row[truth] - 1)) for row in rows)
        found[guess] = {
            "median": round(statistics.median(errors), 4),
            "p90": round(errors[int(0.9 * (len(errors) - 1))], 4),
            "max": round(errors[-1], 4),
        }
    return found


def main() -> None:
    """Run what is missing, oldest round first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--cases", type=int, default=len(MODELS) * ROUNDS)
    parser.add_argument("--store", action="store_true")
    chosen = parser.parse_args()
    done = [json.loads(line) for line in chosen.file.read_text().splitlines()] if chosen.file.is_file() else []
    have = {row["number"] for row in done}
    for case in [case for case in cases()[: chosen.cases] if case["number"] not in have]:
        try:
            row = measure(case)
        except NoProgramError as missing:
            print(missing, flush=True)
            continue
        done.append(row)
        with chosen.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        errors = {name: f"{value['max']:.3f} %" for name, value in summary([row]).items()}
        print(case["model"], case["tokens"], case["recipe"], errors, f"{row['dry_run_seconds']} s", flush=True)
    print(f"{len(done)} cases, errors in percent: {json.dumps(summary(done))}")
    if chosen.store:
        store(done)


def store(rows: list[Case]) -> None:
    """Write the table beside the programs, with the versions the dry runs were made with."""
    from qlora_tui.engine.simulation.derive import versions

    ordered = sorted(rows, key=lambda row: row["number"])
    lines = ",\n".join(f"  {json.dumps(row)}" for row in ordered)
    head = json.dumps({"versions": versions(), "errors_percent": summary(ordered)}, indent=1)[:-2]
    atomic.write_text(GRID, f'{head},\n "rows": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
