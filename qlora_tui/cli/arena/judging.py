"""`arena judge`: what it will cost, the question before it costs anything, progress, and what was found."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING

from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.arena.judge import Comparison, Contestants, Tally
    from qlora_tui.arena.judge_endpoint import EndpointJudge, EndpointSettings
    from qlora_tui.arena.judge_local import LocalJudge, LocalModel
    from qlora_tui.arena.judge_prompts import Protocol
    from qlora_tui.evaluation.questions import Question
    from qlora_tui.evaluation.row_log import RowLog

_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}
_TOLD_EVERY = 20
_INTERRUPTED = 130


@dataclass(frozen=True)
class Prices:
    """Per million tokens; None if not given."""

    prompt: float | None
    completion: float | None

    def cost(self, prompt_tokens: int, completion_tokens: int) -> str:
        """Such as ", 1.23 in money", or nothing without prices."""
        if self.prompt is None and self.completion is None:
            return ""
        cost = (prompt_tokens * (self.prompt or 0) + completion_tokens * (self.completion or 0)) / 1e6
        return f", costing {cost:.4g}"


def run(
    contestants: "Contestants", questions: "list[Question] | None", asked: "EndpointSettings | LocalJudge",
    protocol: "Protocol", out: Path, prices: Prices, *, concurrency: int, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Judge what is not judged yet. Raises what judging raises, CancelledError after an interrupt."""
    from qlora_tui.arena import judge
    from qlora_tui.cli.output import write_json
    from qlora_tui.errors import CancelledError, QloraError
    from qlora_tui.evaluation import row_log

    stop = Event()
    who = _judge(asked, stop)
    wanted = judge.comparisons(judge.common_questions(questions, contestants), contestants, protocol)
    with row_log.opened(out) as log:
        todo = judge.pending(wanted, log, who.name)
        _announce(todo, wanted, log, prices)
        with _ready(who, yes) if todo else nullcontext(), _interrupt_sets(stop, who), _told(prices) as told:
            tally = judge.judge_all(wanted, log, who, concurrency=concurrency, stop=stop, progress=told)
    _conclude(tally, prices)
    if as_json:
        write_json({**asdict(tally), "file": str(out)})
    if stop.is_set():
        raise CancelledError(
            f"stopped with {tally.done} of {tally.total} verdicts", hint="Run the same command again to continue."
        )
    if tally.refused:
        raise QloraError(
            f"{len(tally.refused)} prompts were refused, first {tally.refused[0]}",
            hint="The same command asks them again.",
        )


def _judge(asked: "EndpointSettings | LocalJudge", stop: Event) -> "EndpointJudge | LocalModel":
    from qlora_tui.arena.judge_endpoint import EndpointJudge, EndpointSettings

    if not isinstance(asked, EndpointSettings):
        from qlora_tui.arena.judge_local import LocalModel

        return LocalModel(asked, narrate)
    return EndpointJudge(asked, wait=lambda seconds: _wait(stop, seconds), say=narrate)


@contextmanager
def _ready(who: "EndpointJudge | LocalModel", yes: bool) -> Iterator[None]:
    """A yes to what leaves this machine, or the model in memory while the block lasts."""
    from qlora_tui.arena.judge_endpoint import EndpointJudge

    if not isinstance(who, EndpointJudge):
        with who:
            yield
        return
    if who.host not in _THIS_MACHINE:
        from qlora_tui.cli.consent import confirmed

        confirmed(f"Send these to {who.host}?", yes=yes)
    yield


def _wait(stop: Event, seconds: float) -> None:
    """Sleep, but not once the work is to stop. Raises CancelledError then: the request was not answered."""
    from qlora_tui.errors import CancelledError

    if stop.wait(seconds):
        raise CancelledError(
            "stopped while the judge was not answering", hint="Run the same command again to continue."
        )


@contextmanager
def _interrupt_sets(stop: Event, who: "EndpointJudge | LocalModel") -> Iterator[None]:
    """The first Ctrl-C lets the requests on their way finish where they are paid for; a second one ends at once."""
    from qlora_tui.arena.judge_endpoint import EndpointJudge

    def interrupted(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(_INTERRUPTED)  # every verdict that arrived is on disk
        stop.set()
        if isinstance(who, EndpointJudge):
            narrate("stopping after the requests on their way; Ctrl-C again to lose them")
        else:
            who.cancel()
            narrate("stopping")

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _announce(todo: "list[Comparison]", wanted: "list[Comparison]", log: "RowLog", prices: Prices) -> None:
    from qlora_tui.arena.judge import expected_tokens

    before = len(wanted) - len(todo)
    kept = f"; {before:,} are in {log.path} already" if before else ""
    narrate(f"{len(wanted):,} comparisons, every pair in both orders{kept}")
    if todo:
        prompt_tokens, completion_tokens = expected_tokens(todo)
        narrate(
            f"to ask: {len(todo):,}, about {prompt_tokens:,} prompt tokens and {completion_tokens:,} written ones"
            + prices.cost(prompt_tokens, completion_tokens)
        )


@contextmanager
def _told(prices: Prices) -> "Iterator[_Told]":
    if not sys.stderr.isatty():
        yield _Told(prices, None)
        return
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from qlora_tui.cli.inert_console import InertConsole

    columns = (
        TextColumn("judging"),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[spent]}", markup=False),
    )
    with Progress(*columns, console=InertConsole(stderr=True), transient=True) as bar:
        yield _Told(prices, (bar, bar.add_task("judging", spent="")))


class _Told:
    """Told the tally after each verdict: a line that changes on a terminal, now and then a line elsewhere."""

    def __init__(self, prices: Prices, bar: object) -> None:
        self._prices = prices
        self._bar = bar

    def __call__(self, tally: "Tally") -> None:
        from rich.progress import Progress

        spent = _spent(tally, self._prices)
        if isinstance(self._bar, tuple) and isinstance(self._bar[0], Progress):
            self._bar[0].update(self._bar[1], completed=tally.done, total=tally.total, spent=spent)
        elif tally.done > tally.from_before and (tally.done - tally.from_before) % _TOLD_EVERY == 0:
            narrate(f"{tally.done:,}/{tally.total:,} verdicts, {spent}")


def _spent(tally: "Tally", prices: Prices) -> str:
    tokens = f"{tally.prompt_tokens:,} + {tally.completion_tokens:,} tokens"
    return tokens + prices.cost(tally.prompt_tokens, tally.completion_tokens)


def _conclude(tally: "Tally", prices: Prices) -> None:
    new = tally.done - tally.from_before
    narrate(f"{tally.done:,}/{tally.total:,} verdicts, {new:,} of them new: {_spent(tally, prices)}")
    if tally.unparsed:
        verdicts, are = ("verdict", "is") if tally.unparsed == 1 else ("verdicts", "are")
        narrate(f"{tally.unparsed:,} {verdicts} could not be read and {are} stored as unparsed")
    if tally.absurd_counts:
        narrate(f"{tally.absurd_counts:,} replies have impossible token counts and are left out of the totals")
    for model, count in tally.empty.items():
        if count:
            narrate(f"{model}: {count:,} empty answers")
    for model, count in tally.steering.items():
        if count:
            narrate(f"{model}: {count:,} answers speak to the judge")
