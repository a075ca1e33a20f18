"""The shipped programs against full dry runs: `python -m qlora_tui.engine.simulation.validate FOLDER [--store]`.

Each dry run is kept in FOLDER and not made again while the case and the libraries are the same, so that a run that was
stopped goes on, and changed programs are compared in seconds. `--store` writes the table, with the versions and a
summary, beside the programs.
"""

from qlora_tui.engine import environment

if __name__ == "__main__":  # Imported by a test, it must leave the environment alone.
    environment.prepare(allow_download=False)

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

from qlora_tui import atomic
from qlora_tui.engine.simulation import grid
from qlora_tui.engine.simulation.derive import versions
from qlora_tui.engine.simulation.grid import Case
from qlora_tui.engine.simulation.simulate import Simulation, simulate
from qlora_tui.memory import program, step
from qlora_tui.memory.allocator import Trace, rounded, smallest_capacity
from qlora_tui.memory.choices import choose
from qlora_tui.memory.device import card
from qlora_tui.memory.estimate import estimate
from qlora_tui.memory.program import PROGRAMS

GRID = PROGRAMS / "grid.json"
_PAIRS = (("program_peak", "peak"), ("program_capacity", "capacity"), ("estimate_capacity", "capacity"))


def dry_run(case: Case, folder: Path) -> Case:
    """The recorded dry run of a case, made first if it is not there. Bytes."""
    path = folder / f"{case['number']:02d}.json.gz"
    if path.is_file():
        kept: Case = json.loads(gzip.decompress(path.read_bytes()))
        if kept["case"] == case and kept["versions"] == versions():
            return kept
    began = time.process_time()
    found = simulate(grid.run_config(case), grid.model(case)[0], grid.workload(case))
    trace = found.ledger.trace()
    kept = {
        "case": case,
        "versions": versions(),
        "stored": found.stored_bytes,
        "peak": found.peak_bytes,
        "phase": found.phase,
        "capacity": smallest_capacity(trace),
        "optimizer_step_bytes": _step_bytes(case, found),
        "step_began": found.step_began,
        "sizes": trace.sizes,
        "events": trace.events,
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    atomic.write_bytes(path, gzip.compress(json.dumps(kept).encode()))
    return kept


def _step_bytes(case: Case, found: Simulation) -> int:
    """foreach AdamW copies every adapter matrix while it steps."""
    if case["optimizer"] != "adamw_torch":
        return 0
    live = found.ledger.live(found.step_began)
    return sum(rounded(birth.size_bytes) for birth in live if birth.category == "adapter")


def compare(case: Case, real: Case) -> Case:
    """The program of a case and the estimate beside its dry run. Raises LookupError when none is shipped."""
    config, (_, facts) = grid.run_config(case), grid.model(case)
    batch = step.shape(config, case["tokens"])
    shipped = step.recorded(config, facts, choose(config, card(1024)), batch, case["checkpointing"] == "on")
    if shipped is None:
        raise LookupError(f"{case['number']}: no program of {facts.model_type}")
    dims = step.dims(config, facts, batch)
    began = time.perf_counter()
    peak = program.evaluate(
        shipped, dims, accumulate=batch.accumulate, optimizer_step_bytes=real["optimizer_step_bytes"]
    )
    seconds = time.perf_counter() - began
    trace = Trace(real["sizes"], real["events"][: real["step_began"]])
    program.expand(shipped, dims, trace, accumulate=batch.accumulate)
    row = {
        **case,
        "family": shipped.family,
        "program": shipped.name,
        "dims": dims,
        "optimizer_step_bytes": real["optimizer_step_bytes"],
        "stored": real["stored"],
        "peak": real["peak"],
        "program_peak": peak.peak_bytes + real["stored"],
        "capacity": real["capacity"],
        "program_capacity": smallest_capacity(trace),
        "phase": real["phase"],
        "program_phase": peak.phase,
        "evaluate_ms": round(1000 * seconds, 2),
    }
    whole = estimate(config, facts, card(1024), longest_tokens=case["tokens"], replay=True)
    row["estimate_capacity"] = whole.need_bytes - whole.device.context_bytes
    return row


def summary(rows: Iterable[Case]) -> dict[str, dict[str, float]]:
    """Errors in percent."""
    rows = list(rows)
    found = {}
    for guess, truth in _PAIRS:
        errors = sorted(abs(100 * (row[guess] / row[truth] - 1)) for row in rows if guess in row)
        if errors:
            found[guess] = {
                "cases": len(errors),
                "median": round(statistics.median(errors), 4),
                "p90": round(errors[int(0.9 * (len(errors) - 1))], 4),
                "max": round(errors[-1], 4),
            }
    return found


def main() -> None:
    """Make the dry runs that are missing, compare them all, print the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--from", type=int, default=0, dest="first", help="number of the first case")
    parser.add_argument("--store", action="store_true")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in (case for case in grid.cases() if case["number"] >= chosen.first):
        real = dry_run(case, chosen.folder)
        try:
            rows.append(compare(case, real))
        except LookupError as missing:
            print(missing, flush=True)
            continue
        errors = {name: f"{value['max']:.3f} %" for name, value in summary(rows[-1:]).items()}
        print(case["number"], case["model"], rows[-1]["program"], errors, f"{real['cpu_seconds']} s", flush=True)
    print(f"{len(rows)} cases, errors in percent: {json.dumps(summary(rows))}")
    if chosen.store:
        store(rows)


def store(rows: list[Case]) -> None:
    """Write the table beside the programs, with the versions the dry runs were made with."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    head = json.dumps({"versions": versions(), "errors_percent": summary(rows)}, indent=1)[:-2]
    atomic.write_text(GRID, f'{head},\n "rows": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
