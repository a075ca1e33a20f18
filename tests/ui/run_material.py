"""Runs for the screen, written without a worker: the same bytes each time."""

import math
from collections.abc import Iterable

from qlora_tui.config.run import RunConfig
from qlora_tui.runs import events, store
from qlora_tui.runs.events import AnyEvent
from qlora_tui.runs.store import RunFolder

BEGAN_S = 1_800_000_000.0
GIB = 1 << 30
EVIL = "[bold red]not markup[/] \x1b[31mnot red\x1b[0m"


def written(name: str, log: Iterable[AnyEvent], stdio: str = "") -> RunFolder:
    """A run whose worker said this and has gone. Events get numbers, and times one second apart."""
    run = store.create(name, RunConfig(), {"estimate": {"peak_bytes": 5 * GIB}})
    with run.events.open("w") as file:
        for number, event in enumerate(log, 1):
            stamped = event.model_copy(update={"seq": number, "time_s": BEGAN_S + number})
            file.write(stamped.model_dump_json() + "\n")
    run.stdio.write_text(stdio)
    return run


def beginning(total_steps: int = 200) -> list[AnyEvent]:
    """What a worker says before its first step."""
    return [
        events.Created(name="one", program_version="0"),
        events.Started(attempt=1, pid=0, process_start_s=BEGAN_S),
        events.Resolved(field="quantization.compute_dtype", value="bfloat16", reason="the card has it in hardware"),
        events.ModelLoaded(
            model="starter", parameters=4_000_000, trainable_parameters=200_000,
            parameters_by_dtype={"uint8": 3_800_000}, stored_bytes=3 << 20, trainable_bytes=800_000,
        ),
        events.DatasetReady(train_rows=1600, eval_rows=100),
        events.TrainingPlanned(total_steps=total_steps, steps_per_epoch=100, effective_batch_rows=16),
        events.Stage(stage="training", done=0, total=total_steps, unit="steps"),
    ]  # fmt: skip


def step(number: int) -> events.Step:
    """A step of a run that learns, with noise that is the same each time."""
    loss = 0.4 + 3 * math.exp(-number / 40) + 0.15 * math.sin(number * 2.3)
    return events.Step(
        step=number, epoch=number / 100, loss=loss, learning_rate=2e-4 * (1 - number / 250),
        grad_norm=1 + 0.5 * math.sin(number), tokens=number * 2048, tokens_per_s=2345.0,
        allocated_bytes=4 * GIB, reserved_bytes=5 * GIB, peak_bytes=int(4.9 * GIB),
    )  # fmt: skip


def training(steps: int = 200) -> list[AnyEvent]:
    """The steps, an evaluation and a sample every fifty of them, a checkpoint every hundred."""
    log: list[AnyEvent] = []
    for number in range(1, steps + 1):
        log.append(step(number))
        if number % 50 == 0:
            log.append(events.Eval(step=number, loss=0.5 + 2.5 * math.exp(-number / 50)))
            log.append(events.Sample(step=number, prompt="Who owns the red boat?", answer=f"{EVIL} Mira owns it."))
        if number % 100 == 0:
            log.append(events.Checkpoint(step=number, folder=f"checkpoint-{number}", size_bytes=2 << 20, seconds=0.25))
    return log


def finished(steps: int = 200) -> events.Finished:
    """The end of a run that got there."""
    return events.Finished(
        step=steps, train_seconds=61.5, metrics={"train_loss": 0.51}, peak_bytes=int(4.9 * GIB), adapter_bytes=1 << 20
    )
