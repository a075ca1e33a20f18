"""Whether the draft fits: its memory as a stacked bar against what is free, the numbers, and what would help."""

from collections.abc import Sequence
from typing import NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Click, Resize
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from qlora_tui.config.run import RunConfig
from qlora_tui.forecast.forecast import Forecast
from qlora_tui.memory.device import Device
from qlora_tui.memory.estimate import Verdict
from qlora_tui.terminal import printable
from qlora_tui.ui.pricing import Price
from qlora_tui.ui.widgets.vim import VimKeys
from qlora_tui.units import count, memory

_LOOKS = {
    "weights": ("$primary", "B"),
    "tables": ("$primary 60%", "E"),
    "constants": ("$primary 35%", "Q"),
    "adapter": ("$success", "A"),
    "optimizer": ("$secondary", "O"),
    "gradients": ("$secondary 60%", "G"),
    "work": ("$warning", "W"),
    "context": ("$foreground 45%", "C"),
}
"""Colour of each part, and its letter where there are no colours."""

_VERDICTS = {
    "fits": "$text-success",
    "fits by paging": "$text-warning",
    "tight": "$text-warning",
    "does not fit": "$text-error",
}


class Advice(NamedTuple):
    """One change that would help."""

    text: str
    edits: dict[str, str]
    """Texts by dotted key, as `--set` takes them."""


class AdviceList(OptionList, VimKeys):
    """What would help, best first; enter applies it."""


class FitPanel(VerticalScroll):
    """Shows a price. Without one it says why there is none."""

    DEFAULT_CSS = """
    FitPanel {
        border: round $primary 40%; border-title-color: $primary; padding: 0 1;
        &:focus, &:focus-within { border: round $primary; }
        #fit-answer, #fit-bar, #fit-work, #fit-cards, #fit-legend, #fit-more { height: auto; }
        #fit-bar, #fit-cards, #fit-legend, #fit-more { margin: 1 0 0 0; }
        #fit-cards { display: none; }
        &.-several #fit-cards { display: block; }
        #fit-more { color: $text-muted; }
        #fit-advice-title { height: 1; margin: 1 0 0 0; text-style: bold; display: none; }
        AdviceList { height: auto; max-height: 12; border: none; background: $background; padding: 0; display: none; }
        &.-advised AdviceList, &.-advised #fit-advice-title { display: block; }
        #fit-hint { height: 1; display: none; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """
    HELP = """\
## Memory

What the run needs at its fullest moment, by what it is for, against what is free now. The range in brackets is what
the estimate could be off by.

Of the parts, the weights with their quantization constants, the embeddings and the head are the base model; adapter,
optimizer and gradients grow with the trained parameters; activations and loss with the rows of a batch and their
tokens; context and allocator are the libraries' own. It fits, is tight or fits by paging.

Below the bar are the steps and tokens of the run and how long it trains, by an earlier run of the same model here or by
a short measurement of this machine. `c` prices another card, such as 8GB or 2x24GB.

**Advice** lists changes that would help, with what each saves: enter applies one.
"""

    class AdviceTaken(Message):
        """A change is to be made to the draft."""

        def __init__(self, advice: Advice) -> None:
            super().__init__()
            self.advice = advice

    class Unfolded(Message):
        """The whole panel is to be seen, or the form again."""

    def __init__(self) -> None:
        super().__init__(id="fit")
        self._price: Price | None = None
        self._forecasts: tuple[RunConfig, Forecast, str] | None = None
        self._advice: list[Advice] = []
        self.border_title = "Memory"

    def compose(self) -> ComposeResult:
        yield Static("pricing …", id="fit-answer", markup=False)
        yield Static("", id="fit-bar", markup=False)
        yield Static("", id="fit-work", markup=False)
        yield Static("", id="fit-cards", markup=False)
        yield Static("", id="fit-hint", markup=False)
        yield Static("", id="fit-legend", markup=False)
        yield Static("Advice: enter applies, F8 the first", id="fit-advice-title", markup=False)
        yield AdviceList(id="fit-advice", compact=True, markup=False)
        yield Static("", id="fit-more", markup=False)

    def show(self, price: Price) -> None:
        """Show what the draft needs."""
        self._price = price
        self._draw()

    def show_forecast(self, config: RunConfig, forecast: Forecast, note: str) -> None:
        """Show how much work a configuration is. `note`: what its time rests on, or why there is none."""
        self._forecasts = (config, forecast, note)
        self._draw()

    def show_problem(self, text: str) -> None:
        """Say why there is no estimate."""
        self._price = None
        self.query_one("#fit-answer", Static).update(Content.styled(printable(text), "$text-warning"))
        for name in ("bar", "work", "cards", "legend", "more", "hint"):
            self.query_one(f"#fit-{name}", Static).update("")

    def show_advice(self, advice: Sequence[Advice]) -> None:
        """Show what would help."""
        told = [one.text for one in self._advice]
        self._advice = list(advice)
        if [one.text for one in advice] != told:
            self.set_class(bool(advice), "-advised")
            self.query_one(AdviceList).set_options(Option(Content(one.text)) for one in advice)
            self._draw()

    @property
    def advice(self) -> Sequence[Advice]:
        """What is offered, best first."""
        return self._advice

    def _draw(self) -> None:
        price = self._price
        if price is None:
            return
        forecast, note = None, ""
        if self._forecasts is not None and self._forecasts[0] == price.config:
            _, forecast, note = self._forecasts
        self.query_one("#fit-answer", Static).update(_answer(price, forecast))
        self.query_one("#fit-work", Static).update(_work(forecast, note))
        self.query_one("#fit-bar", Static).update(self._bar(price, price.device))
        others = [line for card, said in price.others for line in (_card(card, said), self._bar(price, card))]
        self.query_one("#fit-cards", Static).update(Content("\n").join(others))
        self.set_class(bool(others), "-several")
        self.query_one("#fit-legend", Static).update(self._legend(price))
        self.query_one("#fit-more", Static).update(_more(price))
        self.query_one("#fit-hint", Static).update(self._hint(price))

    def _hint(self, price: Price) -> Content:
        """Return the most important line: a warning, else advice, else the largest part."""
        if price.estimate.warnings:
            return Content.styled(printable(f"! {price.estimate.warnings[0]}", one_line=True), "$text-warning")
        if self._advice:
            return Content(f"F8 {self._advice[0].text}")
        return Content(f"largest: {price.largest}; ctrl+l: the whole estimate")

    def _bar(self, price: Price, device: Device) -> Content:
        """Taken by others, then the run's parts, then what stays free, to scale; a stroke where the memory ends."""
        width = max(10, self.scrollable_content_region.width or 40)
        need = price.estimate.full_bytes
        taken = max(0, device.total_bytes - device.free_bytes)
        scale = width / max(device.total_bytes, taken + need, 1)
        pieces: list[tuple[str, str]] = [("░" * round(taken * scale), "$foreground 30%")]
        begun = float(taken)
        for part in price.parts:
            cells = round((begun + part.bytes) * scale) - round(begun * scale)
            colour, letter = _LOOKS[part.key]
            pieces.append(((letter if self.app.no_color else "█") * cells, colour))
            begun += part.bytes
        bar = Content.assemble(*pieces)
        if begun > device.total_bytes:
            end = max(0, min(width - 1, round(device.total_bytes * scale) - 1))
            return Content.assemble(bar[:end], ("┃", "bold $text-error"), bar[end + 1 :])
        return Content.assemble(bar, ("·" * (width - bar.cell_length), "$foreground 30%"))

    def _legend(self, price: Price) -> Content:
        lines = []
        for part in price.parts:
            colour, letter = _LOOKS[part.key]
            mark = letter if self.app.no_color else "■"
            lines.append(Content.assemble((mark, colour), f" {part.label:<24}{memory(part.bytes):>10}"))
        return Content("\n").join(lines)

    @on(OptionList.OptionSelected)
    def _take(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.AdviceTaken(self._advice[event.option_index]))

    def on_resize(self, event: Resize) -> None:
        self._draw()

    def on_click(self, event: Click) -> None:
        if not isinstance(event.widget, OptionList):
            self.post_message(self.Unfolded())


def _work(forecast: Forecast | None, note: str) -> Content:
    """Steps, tokens and time of the run, and what the time rests on."""
    if forecast is None:
        return Content("")
    time = f", about {forecast.time}" if forecast.time else ""
    return Content.assemble(f"{forecast.steps}{time}", (f" ({note})" if note else "", "$foreground 60%"))


def _answer(price: Price, forecast: Forecast | None) -> Content:
    found, device = price.estimate, price.device
    slow = f", BUT TAKES ABOUT {forecast.time.upper()}" if forecast is not None and forecast.is_long else ""
    bounds = f"({memory(found.low_bytes)} to {memory(found.high_bytes + found.paged_bytes)})"
    place = printable(device.name, one_line=True)
    if device.count > 1:
        place = f"each of {device.count} x {place} ({device.strategy}, in another trainer)"
    if not price.here:
        place += ", asked about with c"
    return Content.assemble(
        (price.verdict.answer.upper(), f"bold {_VERDICTS.get(price.verdict.answer, '$text-warning')}"),
        (slow, "bold $text-warning"),
        f"  {memory(found.full_bytes)} {bounds} of {memory(device.free_bytes)} free, {place}",
    )


def _card(card: Device, said: Verdict) -> Content:
    """Another card, and whether the run would fit there."""
    name = printable(card.name, one_line=True)
    colour = _VERDICTS.get(said.answer, "$text-warning")
    return Content.assemble((said.answer, colour), f" on {name}, {memory(card.free_bytes)} free")


def _more(price: Price) -> Content:
    found, device = price.estimate, price.device
    lines = [
        price.verdict.reason,
        f"for {price.covers}",
        f"largest: {price.largest}",
        f"fullest during {price.peak}" + (", activations recomputed" if found.checkpointing else ""),
        f"{count(found.trainable_parameters)} trained parameters, model as stored {memory(found.stored_bytes)}",
        f"{printable(device.name, one_line=True)}: {memory(device.free_bytes)} free of {memory(device.total_bytes)}",
    ]
    lines += [f"! {warning}" for warning in found.warnings] + list(found.reasons)
    return Content(printable("\n".join(lines)))
