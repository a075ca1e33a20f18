"""Where a run is: its state, what it is doing, how far, how fast, how long still."""

from textual.content import Content

from qlora_tui.runs import narration
from qlora_tui.terminal import printable
from qlora_tui.ui.amounts import gib
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.statuses import MARKS, status_mark
from qlora_tui.ui.widgets.gauge import Part, gauge
from qlora_tui.ui.widgets.run_static import RunStatic

_SEPARATOR = "  ·  "


class RunProgress(RunStatic):
    """Three lines: name, state and stage; a bar; the numbers."""

    DEFAULT_CSS = """
    RunProgress { height: 3; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def content_of(self, view: RunView) -> Content:
        return Content("\n").join([_title(view), self._bar(view), _numbers(view)])

    def _bar(self, view: RunView) -> Content:
        done, total, unit = _progress(view)
        if not total:
            return Content("")
        share = min(done / total, 1.0)
        text = f" {done:,} of {total:,} {unit}  {share:.0%}"
        if unit == "bytes":
            text = f" {gib(done)} of {gib(total)}  {share:.0%}"
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


def _numbers(view: RunView) -> Content:
    state, last = view.state, view.state.steps.last
    pieces: list[Content] = []
    if last is not None:
        pieces.append(Content.assemble("loss ", (narration.number(last.loss), "bold $loss")))
        if state.evals.last is not None:
            evaluated = Content.assemble("eval ", (narration.number(state.evals.last.loss), "bold $eval"))
            if state.best_eval is not None and state.best_eval is not state.evals.last:
                evaluated += Content(f" (best {narration.number(state.best_eval.loss)})")
            pieces.append(evaluated)
        if last.epoch:
            pieces.append(Content(f"epoch {last.epoch:.2f}"))
        if view.is_live:
            pieces.append(Content(f"{last.tokens_per_s:,.0f} tokens/s"))
    if view.is_live and (left := narration.left(state)):
        pieces.append(Content(left))
    if state.first_event_s and state.last_event_s > state.first_event_s and not view.is_live:
        pieces.append(Content(f"{last.tokens:,} tokens" if last else ""))
    return Content(_SEPARATOR).join([piece for piece in pieces if piece])
