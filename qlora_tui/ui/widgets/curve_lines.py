"""The curves of a run where there is no room for a plot: a sparkline each, with its last value."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.reactive import var
from textual.widgets import Sparkline, Static

from qlora_tui.runs import narration
from qlora_tui.ui.curves import Curve
from qlora_tui.ui.run_view import RunView


class CurveLines(Vertical):
    """Loss large, learning rate and gradient norm in one line each."""

    BORDER_TITLE = "Loss"
    DEFAULT_CSS = """
    CurveLines {
        Static { height: 1; color: $text-muted; }
        Sparkline { height: 1; }
        #spark-loss { height: 1fr; min-height: 2; }
        #spark-loss > .sparkline--max-color, #spark-loss > .sparkline--min-color { color: $loss; }
        #spark-rate > .sparkline--max-color, #spark-rate > .sparkline--min-color { color: $secondary; }
        #spark-norm > .sparkline--max-color, #spark-norm > .sparkline--min-color { color: $secondary; }
    }
    """

    view: var[RunView | None] = var(None)

    def compose(self) -> ComposeResult:
        for name in ("loss", "rate", "norm"):
            yield Static(id=f"label-{name}", markup=False)
            yield Sparkline(id=f"spark-{name}", summary_function=_mean)

    def watch_view(self, old: RunView | None, view: RunView | None) -> None:
        if self.display and view is not None and (old is None or old.curves is not view.curves):
            self._draw_all(view)

    def on_show(self) -> None:
        if self.view is not None:
            self._draw_all(self.view)

    def _draw_all(self, view: RunView) -> None:
        found = view.curves
        evals = f"   eval {narration.number(found.evals.values[-1])}" if found.evals.values else ""
        self._draw("loss", "loss, smoothed", found.smoothed, evals)
        self._draw("rate", "learning rate", found.learning_rate)
        self._draw("norm", "gradient norm", found.grad_norm)

    def _draw(self, name: str, title: str, curve: Curve, more: str = "") -> None:
        values = list(curve.values)
        span = (
            f"  {values[-1]:.4g}   from {min(values):.4g} to {max(values):.4g}{more}"
            if values
            else "  begins with the first step"
        )
        self.query_one(f"#label-{name}", Static).update(title + span, layout=False)
        self.query_one(f"#spark-{name}", Sparkline).data = values


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
