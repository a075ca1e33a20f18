"""How the next answer is chosen: system prompt, sampling, and named settings of both."""

from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Input, Label, Select

from qlora_tui.chat.protocol import Sampling
from qlora_tui.ui.widgets.slider import Slider

PRESETS: dict[str, Sampling] = {
    "as in the paper": Sampling(),
    "likeliest token": Sampling(temperature=0.0),
    "careful": Sampling(temperature=0.3, top_p=0.8),
    "inventive": Sampling(temperature=1.1, top_p=0.95),
}
_RANGES = {
    "temperature": (0.0, 2.0, 0.05),
    "top_p": (0.05, 1.0, 0.05),
    "top_k": (0.0, 200.0, 5.0),
    "max_tokens": (16.0, 4096.0, 16.0),
    "repetition_penalty": (1.0, 2.0, 0.05),
}


class SamplingPanel(VerticalScroll):
    """Sliders for `Sampling` and the system prompt."""

    HELP = """
## Answers

**Temperature** 0 always picks the most likely token. **top_p** keeps the most likely tokens whose probabilities
sum to this value. **top_k** 0 keeps all tokens. The **system prompt** is sent before the conversation.

**Left** and **right** move a slider by one step. You can also type a number and press **Enter**.
"""
    DEFAULT_CSS = """
    SamplingPanel {
        width: 42; padding: 0 1; border: round $foreground 25%; border-title-color: $text-muted;
        &:focus-within { border: round $primary; }
        Label { color: $text-muted; margin-top: 1; }
        Input, Select { width: 1fr; }
    }
    """

    class Changed(Message):
        """Another way to choose tokens."""

        def __init__(self, sampling: Sampling) -> None:
            super().__init__()
            self.sampling = sampling

    class SystemChanged(Message):
        """Another system prompt; empty for none."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__()
        self.border_title = "Answers"
        self._sampling = Sampling()

    def compose(self) -> ComposeResult:
        presets = [(name, name) for name in PRESETS]
        yield Select[str](presets, prompt="sampling presets", id="sampling-preset", compact=True)
        for name, (low, high, step) in _RANGES.items():
            help_text = Sampling.model_fields[name].description or ""
            value = float(getattr(self._sampling, name))
            yield Slider(
                name.replace("_", " "), low, high, step, value, tooltip=help_text, widget_id=f"sampling-{name}"
            )
        yield Label("System prompt")
        yield Input(placeholder="none", id="system-prompt", tooltip="Sent before the conversation; Enter sets it.")

    def show(self, sampling: Sampling, system: str | None = None) -> None:
        """Show these settings; None leaves the system prompt as it is shown."""
        self._sampling = sampling
        for name in _RANGES:
            self.query_one(f"#sampling-{name}", Slider).value = float(getattr(sampling, name))
        if system is not None:
            self.query_one("#system-prompt", Input).value = system

    @on(Slider.Moved)
    def _moved(self, event: Slider.Moved) -> None:
        event.stop()
        name = (event.slider.id or "").removeprefix("sampling-")
        self._sampling = self._sampling.changed(name, f"{event.value:g}")
        self.post_message(self.Changed(self._sampling))

    @on(Select.Changed, "#sampling-preset")
    def _chosen(self, event: Select.Changed) -> None:
        event.stop()
        if isinstance(event.value, str):
            self.show(PRESETS[event.value])
            self.post_message(self.Changed(self._sampling))

    @on(Input.Submitted, "#system-prompt")
    def _system(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.SystemChanged(event.value))
