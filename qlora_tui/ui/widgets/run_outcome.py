"""How a run ended and what one can do now; while it runs, what was asked of it."""

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.reactive import var

from qlora_tui.runs import events
from qlora_tui.runs.crash_cause import crash_cause
from qlora_tui.runs.narration import short
from qlora_tui.terminal import printable
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.widgets.run_static import RunStatic
from qlora_tui.units import clock, disk, memory

_METRICS = {"train_loss": "mean loss"}
"""Metrics that have another name on the screen."""


_REASON_LINES = 2.6
"""How much of a reason or a hint is shown; words wrap, so it takes at most three lines."""

_LEAST_REASON_CELLS = 60


class RunOutcome(RunStatic):
    """Nothing, or a few lines. A long reason is shortened, so that what to do about it is always visible."""

    DEFAULT_CSS = """
    RunOutcome { height: auto; max-height: 10; padding: 0 1; display: none; }
    RunOutcome.-speaks { display: block; }
    """

    WRAPS = True

    asked: var[str] = var("")
    """What was asked of the worker and not answered yet."""

    def watch_asked(self) -> None:
        self._say()

    def _say(self) -> None:
        super()._say()
        self.set_class(self.view is not None and bool(self.content_of(self.view)), "-speaks")

    def content_of(self, view: RunView) -> Content:
        asked = Content.styled(self.asked, "$warning")
        cells = max(int(_REASON_LINES * self.content_size.width), _LEAST_REASON_CELLS)
        damage = Content.styled(_cut(printable(" ".join(view.damage), one_line=True), cells), "$error")
        return Content("\n").join([line for line in (asked, damage, _outcome(view, cells)) if line])


def _outcome(view: RunView, reason_cells: int) -> Content:
    if view.silence is not None:
        return Content.styled(f"{view.silence}. ".capitalize() + view.silence.advice, "$warning")
    match view.status:
        case "running" if view.state.samples:
            return _newest_sample(view.state.samples)
        case "finished":
            return _finished(view)
        case "failed":
            return _failed(view, reason_cells)
        case "crashed":
            return _crashed(view, reason_cells)
        case "stopped" | "cancelled":
            return Content(f"{view.status.capitalize()} at step {view.state.step_number}. ") + _way_back(view)
        case "created":
            return Content("Its worker has not been started. ") + _way_back(view)
        case "queued":
            return Content.assemble("Waiting in the queue. ", ("r", "bold $primary"), " starts it now.")
        case "removed":
            return Content.styled("The folder of this run was removed.", "$error")
    return Content("")


def _newest_sample(samples: tuple[events.Sample, ...]) -> Content:
    """Latest answer to the first sample prompt."""
    newest = samples[-1]
    first = next(sample for sample in samples if sample.step == newest.step)
    return Content.assemble(
        (f"Sample, step {first.step}: ", "$foreground 70%"),
        (f"{printable(short(first.prompt), one_line=True)} → ", "$foreground 70%"),
        printable(short(first.answer), one_line=True),
    )


def _way_back(view: RunView) -> Content:
    return Content.assemble(("r", "bold $primary"), f" resumes {view.resumes_from}.")


def _finished(view: RunView) -> Content:
    finished = view.state.finished
    if finished is None:
        return Content("")
    words = [f"{finished.step:,} steps in {clock(finished.train_seconds)}"]
    words += [f"{_METRICS.get(name, name.replace('_', ' '))} {value:.4g}" for name, value in finished.metrics.items()]
    if finished.adapter_bytes:
        words.append(f"adapter {disk(finished.adapter_bytes)}")
    first = Content.assemble(("Finished: ", "bold $success"), ", ".join(words) + ". ")
    if peak := measured_against_estimate(view):
        first += Content(f"{peak}. ")
    return first + Content.assemble(
        ("a", "bold $primary"), " opens a chat, ", ("r", "bold $primary"), " trains it further."
    )


def measured_against_estimate(view: RunView) -> str:
    """Return the measured peak and the error of the estimate.

    A peak measured on a GPU is what PyTorch allocated; of the estimate only that part is compared with it.
    """
    peak_bytes, estimate = view.state.peak_bytes, view.estimate
    if not peak_bytes:
        return ""
    if estimate is None:
        return f"Peak memory {memory(peak_bytes)}"
    off = (estimate.comparable_bytes - peak_bytes) / peak_bytes
    said = f"Peak memory {memory(peak_bytes)}, estimated {memory(estimate.full_bytes)}"
    if estimate.comparable_bytes != estimate.full_bytes:
        said += f" ({memory(estimate.comparable_bytes)} of it allocated)"
    return f"{said} ({off:+.1%})" + (f" for {estimate.covers}" if estimate.covers else "")


def _failed(view: RunView, reason_cells: int) -> Content:
    failed = view.state.failed
    if failed is None:
        return Content("")
    where = f" while {failed.where}" if failed.where else ""
    text = f"Failed{where}: {failed.message}"
    hint = f"{_cut(printable(failed.hint, one_line=True), reason_cells)}\n" if failed.hint else ""
    return Content.assemble((_cut(printable(text, one_line=True), reason_cells), "$error"), "\n", hint, _way_back(view))


def _crashed(view: RunView, reason_cells: int) -> Content:
    stage = f" while {view.state.stage.stage}" if view.state.stage else ""
    said = [f"The worker died at step {view.state.step_number}{stage} without a final event."]
    if cause := crash_cause(view.log.lines):
        said.append(f" Its output says: {cause}")
    else:
        said.append(" Its output does not say why: the system may have ended it, as when memory runs out.")
    return Content.assemble((_cut("".join(said), reason_cells), "$error"), "\n", _way_back(view))


def _cut(text: str, cells: int) -> str:
    return text if cell_len(text) <= cells else f"{set_cell_size(text, cells - 1)}…"
