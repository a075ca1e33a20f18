"""Longer texts of a run, all of them foreign: its samples and its warnings."""

from difflib import SequenceMatcher
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.reactive import var
from textual.widgets import Static

from qlora_tui.runs import events, narration
from qlora_tui.terminal import printable
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.widgets.vim import VimKeys

_SAMPLES_SHOWN = 40


class RunTexts(VerticalScroll, VimKeys):
    """A text that scrolls, drawn again only when it has changed."""

    EMPTY: ClassVar[str] = ""
    """What to say while there is nothing."""

    view: var[RunView | None] = var(None)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._shown: Any = None

    def compose(self) -> ComposeResult:
        yield Static(self.EMPTY, markup=False)

    def watch_view(self, view: RunView | None) -> None:
        if view is None:
            return
        items = self.items(view)
        if items != self._shown:
            self._shown = items
            text = Content("\n").join(self.lines(view)) if items else Content.styled(self.EMPTY, "$foreground 60%")
            self.query_one(Static).update(text)

    def items(self, view: RunView) -> Any:
        """What is shown: the text is written again when this has changed."""
        raise NotImplementedError

    def lines(self, view: RunView) -> list[Content]:
        """The text."""
        raise NotImplementedError


class SamplesPanel(RunTexts):
    """What the model answered during training, newest first."""

    BORDER_TITLE = "Samples"
    EMPTY = "Answers to the sample prompts appear here during training."
    HELP = """## Samples

Answers of the model to the same fixed prompts, newest first. `v` groups the answers to one prompt
in the order of the steps; words that differ from the previous step are underlined.
"""

    by_prompt: var[bool] = var(False)

    def watch_by_prompt(self) -> None:
        self.border_title = "Samples by prompt" if self.by_prompt else "Samples"
        self.watch_view(self.view)

    def items(self, view: RunView) -> object:
        return (self.by_prompt, view.state.samples) if view.state.samples else ()

    def lines(self, view: RunView) -> list[Content]:
        return _by_prompt(view.state.samples) if self.by_prompt else self._by_step(view)

    @staticmethod
    def _by_step(view: RunView) -> list[Content]:
        found: list[Content] = []
        step = None
        for sample in view.state.samples[: -_SAMPLES_SHOWN - 1 : -1]:
            if sample.step != step:
                step = sample.step
                found.append(Content.styled(f"step {step}", "bold $primary"))
            found.append(Content.assemble(("› ", "$foreground 60%"), (printable(sample.prompt), "$foreground 70%")))
            found.append(Content(f"  {printable(sample.answer).strip()}"))
        return found


def _by_prompt(samples: tuple[events.Sample, ...]) -> list[Content]:
    """Each prompt with its answers in the order of the steps."""
    width = len(str(max(sample.step for sample in samples)))
    found: list[Content] = []
    for prompt in dict.fromkeys(sample.prompt for sample in samples):
        found.append(Content.styled(f"› {printable(prompt)}", "bold $primary"))
        before: list[str] = []
        for sample in (sample for sample in samples if sample.prompt == prompt):
            words = printable(sample.answer).split()
            found.append(Content(f"  step {sample.step:>{width}}  ") + _changed(before, words))
            before = words
    return found


def _changed(before: list[str], words: list[str]) -> Content:
    """An answer, its words underlined where they differ from those of the step before."""
    same = set[int]()
    if before:
        blocks = SequenceMatcher(None, before, words, autojunk=False).get_matching_blocks()
        same = {index for block in blocks for index in range(block.b, block.b + block.size)}
    styled = [
        Content(word) if not before or index in same else Content.styled(word, "underline $success")
        for index, word in enumerate(words)
    ]
    return Content(" ").join(styled)


class WarningsPanel(RunTexts):
    """What the person should know, and what was decided where a setting was "auto"."""

    BORDER_TITLE = "Warnings and choices"
    EMPTY = "No warnings."
    HELP = "## Warnings and choices\n\nWarnings of the run, then what the program chose where a setting is `auto`."

    def items(self, view: RunView) -> tuple[object, ...]:
        return (*view.state.warnings, *view.state.resolved, view.state.model, view.state.dataset)

    def lines(self, view: RunView) -> list[Content]:
        state = view.state
        found = [
            Content.assemble(("! ", "bold $warning"), printable(item.message, one_line=True))
            for item in reversed(state.warnings)
        ]
        for event in (state.model, state.dataset, *state.resolved):
            text = narration.line(event) if event is not None else None
            if text:
                found.append(Content.assemble(("· ", "$foreground 60%"), printable(text, one_line=True)))
        return found
