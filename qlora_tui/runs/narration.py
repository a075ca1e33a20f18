"""Events as lines for a person. Pure text: nothing here writes, and foreign text is made inert by whoever does."""

from qlora_tui.runs import events
from qlora_tui.runs.pace import remaining
from qlora_tui.runs.state import RunState
from qlora_tui.units import clock, disk, memory

_SHORT = 160


def line(event: events.AnyEvent) -> str | None:
    """What to say about an event, or None for one that has its own place (steps, stages, outcomes)."""
    match event:
        case events.Started(resumed_from_step=step) if step is not None:
            return f"resumed from checkpoint of step {step}"
        case events.Resolved():
            return f"{event.field} = {event.value}: {event.reason}"
        case events.ModelLoaded():
            return _model(event)
        case events.DatasetReady():
            rows = "streamed" if event.train_rows is None else f"{event.train_rows:,}"
            return f"{rows} training rows, {event.eval_rows:,} evaluation rows"
        case events.TrainingPlanned():
            return f"plan: {event.total_steps:,} steps of {event.effective_batch_rows} rows"
        case events.Eval():
            return f"evaluation at step {event.step}: loss {number(event.loss)}"
        case events.Sample():
            return f"sample at step {event.step}: {short(event.prompt)} -> {short(event.answer)}"
        case events.Checkpoint():
            best = ", best so far" if event.best else ""
            return f"{event.folder}: {disk(event.size_bytes)} in {event.seconds:.1f} s{best}"
        case events.Warned():
            return f"warning: {event.message}"
        case events.Replanned():
            changes = ", ".join(f"{key} = {value}" for key, value in event.changes.items())
            return f"memory ran out; going on with {changes}"
        case events.Extended():
            changes = ", ".join(f"{key} = {value}" for key, value in event.changes.items())
            return f"the run is extended: {changes}"
    return None


def stage(event: events.Stage) -> str:
    """What the worker is doing, with how far it is."""
    detail = f": {short(event.detail)}" if event.detail else ""
    if event.done is None and event.total is None:
        return f"{event.stage}{detail}"
    counts = [count for count in (event.done, event.total) if count is not None]
    if event.unit == "bytes":
        return f"{event.stage}{detail} ({' of '.join(map(disk, counts))})"
    progress = " of ".join(f"{count:,}" for count in counts)
    return f"{event.stage}{detail} ({f'{progress} {event.unit}'.rstrip()})"


def step(state: RunState, *, running: bool = True) -> str:
    """The newest step in one line; the time that is left only of a run that is `running`."""
    last = state.steps.last
    if last is None:
        return ""
    total = f"/{state.plan.total_steps}" if state.plan else ""
    parts = [
        f"step {last.step}{total}",
        f"loss {number(last.loss)}",
        f"lr {last.learning_rate:.2e}",
        f"grad norm {number(last.grad_norm)}",
        f"{last.tokens_per_s:,.0f} tokens/s",
    ]
    if running and (rest := left(state)):
        parts.append(rest)
    if last.peak_bytes:
        parts.append(f"GPU peak {memory(last.peak_bytes)}")
    return "  ".join(parts)


def left(state: RunState) -> str:
    """Return the time left, with "at least" while some remaining work is not measured yet; empty if unknown."""
    rest = remaining(state)
    if rest is None or not rest.seconds:
        return ""
    return f"{'at least ' if rest.at_least else ''}{clock(rest.seconds)} left"


def losses(state: RunState) -> str:
    """Return the training loss: smoothed at the last step, and the mean of all steps. Empty before the first step."""
    if state.smoothed_loss is None:
        return ""
    return f"{number(state.smoothed_loss)} (smoothed, at step {state.step_number:,}), {number(state.mean_loss)} (mean)"


def number(value: float | None) -> str:
    """A loss or norm with four digits; a missing one was not a finite number."""
    return "not finite" if value is None else f"{value:.4g}"


def _model(event: events.ModelLoaded) -> str:
    """The base model and the adapter are counted apart, as everywhere else."""
    trainable, base = event.trainable_parameters, event.parameters - event.trainable_parameters
    stored = f"stored in {memory(event.stored_bytes)}"
    if base <= 0:
        return f"{event.model}: {trainable:,} parameters, all trainable, {stored}"
    share = f"{trainable / event.parameters:.2%} of both"
    return f"{event.model}: {base:,} frozen parameters, {stored}; {trainable:,} trainable ones ({share})"


def short(text: str) -> str:
    """The beginning of a text that may be long, on one line."""
    text = " ".join(text[: _SHORT * 2].split())
    return text if len(text) <= _SHORT else text[: _SHORT - 3] + "..."
