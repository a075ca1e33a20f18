"""Where a run is: its state, what it is doing, how far, how fast, how long still."""

from textual.content import Content

from qlora_tui.runs import narration
from qlora_tui.terminal import printable
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.statuses import MARKS, status_mark
from qlora_tui.ui.widgets.gauge import Part, gauge
from qlora_tui.ui.widgets.run_static import RunStatic
from qlora_tui.units import disk

_SEPARATOR = "  ·  "


LOSSES = (
    "last: the loss of the last step. smoothed: its exponential average over the last 4 % of the steps. "
    "mean: the mean of all steps so far. eval: the loss on held-out rows."
)


class RunProgress(RunStatic):
    """Three lines: name, state and stage; a bar; the numbers."""

    DEFAULT_CSS = """
    RunProgress { height: 3; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def on_mount(self) -> None:
        self.tooltip = LOSSES

    def content_of(self, view: RunView) -> Content:
        return Content("\n").join([_title(view), self._bar(view), _numbers(view)])

    def _bar(self, view: RunView) -> Content:
        done, total, unit = _progress(view)
        if not total:
            return Content("")
        share = min(done / total, 1.0)
        text = f" {done:,} of {total:,} {unit}  {share:.0%}"
        if unit == "bytes":
            text = f" {disk(done)} of {disk(total)}  {share:.0%}"
        last = view.state.steps.last
        if unit == "steps" and last is not None and last.epoch:
            text += f"{_SEPARATOR}epoch {last.epoch:.2f}"
        color = MARKS[view.shown_status][1]
        width = min(self.content_size.width - len(text), 60)
        return gauge(width, [Part(share, color, "━")]) + Content(text)


def _title(view: RunView) -> Content:
    state = view.state
    pieces: list[Content | tuple[str, str] | str] = [(view.name, "bold"), "  ", status_mark(view.shown_status)]
    if view.status == "reading":
        pieces.append(" its log")
    elif view.is_live and state.stage is not None:
        doing = "training" if state.stage.stage == "training" else narration.stage(state.stage)
        pieces.append(_SEPARATOR + printable(doing, one_line=True))
    if view.is_live and (left := narration.left(state)):
        pieces.append(_SEPARATOR + left)
    if state.attempt > 1:
        pieces.append((f"{_SEPARATOR}attempt {state.attempt}", "$foreground 70%"))
    return Content.assemble(*pieces)


def _progress(view: RunView) -> tuple[int, int, str]:
    """Done, total and unit of the stage before training, else of the steps."""
    state = view.state
    stage = state.stage
    if view.is_live and stage is not None and stage.stage in ("downloading", "loading", "quantizing", "tokenizing"):
        return stage.done or 0, stage.total or 0, stage.unit
    return state.step_number, state.plan.total_steps if state.plan else 0, "steps"


def _losses(view: RunView, last: float | None) -> Content:
    """The loss of the last step, smoothed over the recent ones, and the mean of all steps."""
    found = Content.assemble("loss ", (narration.number(last), "bold $loss"))
    smoothed, mean = view.curves.smoothed.values, view.state.mean_loss
    if smoothed and mean is not None:
        found += Content(f" last, {narration.number(smoothed[-1])} smoothed, {narration.number(mean)} mean")
    return found


def _numbers(view: RunView) -> Content:
    state, last = view.state, view.state.steps.last
    pieces: list[Content] = []
    if last is not None:
        pieces.append(_losses(view, last.loss))
        if state.evals.last is not None:
            evaluated = Content.assemble("eval ", (narration.number(state.evals.last.loss), "bold $eval"))
            if state.best_eval is not None and state.best_eval is not state.evals.last:
                evaluated += Content(f" (best {narration.number(state.best_eval.loss)})")
            pieces.append(evaluated)
        if view.is_live:
            pieces.append(Content(f"{last.tokens_per_s:,.0f} tokens/s"))
    if state.first_event_s and state.last_event_s > state.first_event_s and not view.is_live:
        pieces.append(Content(f"{last.tokens:,} tokens" if last else ""))
    return Content(_SEPARATOR).join([piece for piece in pieces if piece])
