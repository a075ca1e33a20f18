"""`estimate --simulate`, `--probe` and `--history`: what children and finished runs measured."""

import json
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from qlora_tui.cli.output import write_facts, write_json, write_table
from qlora_tui.errors import ExitCode, QloraError, UsageError
from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.terminal import narrate
from qlora_tui.units import memory

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig
    from qlora_tui.memory.device import Device
    from qlora_tui.models.facts import ModelFacts

PROBE = "qlora_tui.engine.probe"
SIMULATION = "qlora_tui.engine.simulation"


def show_history(*, as_json: bool) -> None:
    """Write the estimates of finished runs and their measured peaks."""
    from qlora_tui.memory import history

    checked = history.checked_runs()
    if as_json:
        write_json(
            {
                "runs": [
                    {
                        "run": each.run,
                        "model": each.model,
                        "device": each.device,
                        "source": each.source,
                        "before_start_bytes": each.before_bytes,
                        "estimated_bytes": each.estimated_bytes,
                        "measured_bytes": each.measured_bytes,
                        "error": each.error,
                    }
                    for each in checked
                ]
            }
        )
        return
    if not checked:
        narrate("no finished run has an estimate yet")
        return
    rows = [
        [
            each.run,
            each.model,
            each.device,
            memory(each.before_bytes),
            memory(each.estimated_bytes),
            memory(each.measured_bytes),
            f"{each.error:+.1%}",
        ]
        for each in checked
    ]
    write_table(["run", "model", "device", "before the start", "for its rows", "measured", "error"], rows)
    narrate("The error is that of the estimate made for the trained rows.")


def probe(config: "RunConfig", facts: "ModelFacts", device: "Device", longest: int | None, *, as_json: bool) -> None:
    """Run two real training steps in a child process and write the measured and the estimated peak memory.

    Raises UsageError for a device that is not on this machine.
    """
    from dataclasses import replace

    from qlora_tui import hardware
    from qlora_tui.memory import context
    from qlora_tui.memory import device as devices
    from qlora_tui.memory.step import row_tokens

    here = devices.automatic(hardware.snapshot(), config.model.device)
    if (device.kind, bool(device.uuid)) != (here.kind, bool(here.uuid)):
        raise UsageError(
            f"--probe measures on this machine's {here.name}, not on a {device.name}",
            hint="Leave --gpu out, or ask about that card without --probe.",
        )
    if facts.origin == "catalogue":
        raise UsageError(
            f"--probe needs the weights of {facts.id}, which are not on this machine",
            hint=f"Download them: qlora-tui models download {facts.id}",
        )
    expected = estimate(config, facts, device, longest_tokens=longest, replay=True)
    # What is not chosen is settled here, so that the child trains what was estimated.
    chosen = config.training.model_copy(update={"gradient_checkpointing": "on" if expected.checkpointing else "off"})
    config = config.model_copy(update={"training": chosen})
    request = {"config": config.model_dump(mode="json"), "tokens": row_tokens(config, longest)}
    measured = ask(PROBE, request, visible=device.uuid)
    if measured["context_bytes"]:
        context.remember(device.name, measured["context_bytes"])
        found = replace(device, context_bytes=measured["context_bytes"], context_measured=True)
        expected = estimate(config, facts, found, longest_tokens=longest, replay=True)
    _write_measured(facts, expected, measured, as_json=as_json)


def _write_measured(facts: "ModelFacts", expected: Estimate, measured: dict[str, Any], *, as_json: bool) -> None:
    error = expected.peak_bytes / measured["peak_bytes"] - 1
    if as_json:
        write_json({"model": facts.id, **measured, "estimated_peak_bytes": expected.peak_bytes, "error": error})
        return
    reserved, context = measured["reserved_bytes"], measured["context_bytes"]
    write_facts(
        {
            "batch": f"{measured['rows']} x {measured['row_tokens']:,} tokens",
            "measured peak": memory(measured["peak_bytes"]),
            "estimated peak": f"{memory(expected.peak_bytes)} ({error:+.1%}, from a {expected.source})",
            **({"reserved by PyTorch": memory(reserved)} if reserved else {}),
            **({"CUDA context": memory(context)} if context else {}),
        }
    )


def ask(module: str, request: dict[str, Any], *, visible: str = "") -> dict[str, Any]:
    """The result of a child that reads a JSON request and writes JSON lines; its stages are narrated.

    `visible`: the only card that it sees, as CUDA_VISIBLE_DEVICES calls it; empty: as this process sees them.

    Raises the child's error with its exit code, or QloraError when it dies without one.
    """
    command = [sys.executable, "-m", module]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible} if visible else None
    # To a file: a child that fills an unread pipe would wait forever.
    with tempfile.TemporaryFile("w+") as noise:
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=noise, text=True, env=environment) as child:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(json.dumps(request))
            child.stdin.close()
            answer: dict[str, Any] = {}
            try:
                for line in child.stdout:
                    answer = _line(line) or answer
                    if "stage" in answer:
                        narrate(f"{answer.pop('stage')} ...")
            except BaseException:  # Ctrl-C and SIGTERM
                child.terminate()
                raise
        noise.seek(0)
        complaints = noise.read().strip().splitlines()
    if "error" in answer:
        failure = QloraError(str(answer["error"]), hint=str(answer.get("hint", "")))
        failure.exit_code = ExitCode(answer.get("exit_code", ExitCode.INTERNAL))
        raise failure
    if "result" not in answer:
        reason = complaints[-1] if complaints else f"exit code {child.returncode}"
        raise QloraError(f"{module} ended without a result: {reason}", hint="Run `qlora-tui doctor`.")
    return dict(answer["result"])


def _line(text: str) -> dict[str, Any] | None:
    """A line of the protocol; whatever a library prints in between is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def simulate(config: "RunConfig", facts: "ModelFacts", device: "Device", longest: int | None, *, as_json: bool) -> None:
    """Dry-run a step of the real libraries in a child and write what it would take on a GPU."""
    from qlora_tui.memory.step import row_tokens

    if device.kind == "cpu":
        narrate("note: the simulation is of a CUDA card; name one with --gpu 24GB")
    expected = estimate(config, facts, device, longest_tokens=longest, replay=True)
    chosen = config.training.model_copy(update={"gradient_checkpointing": "on" if expected.checkpointing else "off"})
    config = config.model_copy(update={"training": chosen})
    request: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "tokens": row_tokens(config, longest),
    }
    found = ask(SIMULATION, request)
    need = found["capacity_bytes"] + device.context_bytes
    if as_json:
        write_json({"model": facts.id, **found, "need_bytes": need, "estimated_bytes": expected.need_bytes})
        return
    _write_simulation(found, need, expected)


def _write_simulation(found: dict[str, Any], need: int, expected: Estimate) -> None:
    peaks = found["phase_peaks"]
    in_step = found["peak_bytes"] == found["step_peak_bytes"]
    where = f"in the step, {found['phase']}" if in_step else f"in {max(peaks, key=peaks.get)}"
    parts = {name: memory(size) for name, size in sorted(found["by_category"].items(), key=lambda item: -item[1])}
    write_facts(
        {
            "batch": f"{found['rows']} x {found['row_tokens']:,} tokens",
            "stored": memory(found["stored_bytes"]),
            "peak allocated": f"{memory(found['peak_bytes'])}, {where}",
            "peak of the step": memory(found["step_peak_bytes"]),
            "smallest capacity": memory(found["capacity_bytes"]),
            "reserved without pressure": memory(found["reserved_bytes"]),
            **({"paged": memory(found["paged_bytes"])} if found["paged_bytes"] else {}),
            "needs with the context": memory(need),
            **({"estimated": memory(expected.need_bytes)} if expected.device.kind == "cuda" else {}),
            "at the peak of the step": "\n".join(f"{name:16} {size:>10}" for name, size in parts.items()),
        }
    )
    narrate(f"simulated in {found['seconds']:.1f} s with {', '.join(f'{k} {v}' for k, v in found['versions'].items())}")
