"""Judging: every question, every pair of models, both orders of showing, each paid for once.

A verdict is a line in a file the moment it arrives. What is in the file is not asked again, so a run that was killed
continues where it stopped; a request that was in flight when the process died is sent again with the same idempotency
key.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import combinations
from threading import Event
from typing import Any

from qlora_tui.arena import judge_prompts
from qlora_tui.arena.judge_endpoint import Judge, RefusedError, Reply
from qlora_tui.arena.judge_prompts import Prompt, Protocol
from qlora_tui.arena.verdict import instructs_the_judge, ten_point, three_class
from qlora_tui.errors import DataError, QloraError
from qlora_tui.evaluation.predictions import Answer
from qlora_tui.evaluation.questions import Question, written_id
from qlora_tui.evaluation.row_log import RowLog

_CHARACTERS_PER_TOKEN = 4
_EXPECTED_REPLY_TOKENS = 200
_REFUSALS_IN_A_ROW = 5
_OUTCOME_SCORES = {"1": 1, "2": 2, "tie": 3, "unparsed": -1}

Contestants = dict[str, dict[str, Answer]]
"""Answers by question id of each model, by the model's name."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question to the judge: `model_1` is shown first."""

    question: Question
    model_1: str
    model_2: str
    answer_1: Answer
    answer_2: Answer
    protocol: Protocol

    def prompt(self) -> Prompt:
        return judge_prompts.judge_prompt(
            self.question.text, self.answer_1.text, self.answer_2.text, self.question.category, self.protocol
        )

    def review_id(self, judge: str) -> str:
        """The same for the same judge, question, answers, order, protocol and wording of the prompt."""
        prompt = self.prompt()
        parts = (judge, self.protocol, self.question.question_id, self.model_1, self.model_2, prompt.system)
        return hashlib.sha256("\x00".join((*parts, prompt.user)).encode("utf-8", "replace")).hexdigest()[:32]


@dataclass
class Tally:
    """What has been judged so far, this time and before."""

    total: int = 0
    done: int = 0
    from_before: int = 0
    unparsed: int = 0
    refused: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    absurd_counts: int = 0
    """Number of replies with impossible token counts, which are left out of the sums."""

    steering: dict[str, int] = field(default_factory=dict)
    """Answers that speak to the judge, by model."""

    empty: dict[str, int] = field(default_factory=dict)
    """Empty answers, by model."""


def common_questions(questions: Sequence[Question] | None, contestants: Contestants) -> list[Question]:
    """The questions that every model answered. Without a question file the answers must hold the questions' texts.

    Raises DataError for fewer than two models and when there is no such question.
    """
    if len(contestants) < 2:
        raise DataError("one model alone cannot be compared", hint="Give the answers of two or more models.")
    first = next(iter(contestants.values()))
    if questions is None:
        questions = [Question(key, answer.question, answer.category) for key, answer in first.items()]
        if not all(question.text.strip() for question in questions):
            raise DataError("the answers do not hold their questions", hint="Give the question file with --questions.")
    common = [
        question for question in questions if all(question.question_id in answers for answers in contestants.values())
    ]
    if not common:
        raise DataError(
            f"no question was answered by all of {', '.join(contestants)}",
            hint="Are these answers to the same question file? Their question_id must be the same.",
        )
    return common


def comparisons(questions: Sequence[Question], contestants: Contestants, protocol: Protocol) -> list[Comparison]:
    """Every question for every pair of models in both orders, question by question."""
    found = []
    for question in questions:
        for one, other in combinations(contestants, 2):
            for first, second in ((one, other), (other, one)):
                answers = contestants[first][question.question_id], contestants[second][question.question_id]
                found.append(Comparison(question, first, second, *answers, protocol))
    return found


def expected_tokens(wanted: Iterable[Comparison]) -> tuple[int, int]:
    """About how many tokens asking and answering would take, at four characters a token and a short explanation."""
    prompts = [item.prompt() for item in wanted]
    characters = sum(len(prompt.system) + len(prompt.user) for prompt in prompts)
    return characters // _CHARACTERS_PER_TOKEN, len(prompts) * _EXPECTED_REPLY_TOKENS


def pending(wanted: Sequence[Comparison], log: RowLog, judge: str) -> list[Comparison]:
    """The comparisons without a verdict of this judge in the log."""
    done = {row.get("review_id") for row in log.rows}
    return [item for item in wanted if item.review_id(judge) not in done]


def judge_all(
    wanted: Sequence[Comparison], log: RowLog, judge: Judge, *, concurrency: int = 4, stop: Event | None = None,
    progress: Callable[[Tally], None] | None = None,
) -> Tally:  # fmt: skip
    """Ask for every verdict that the log does not have, `concurrency` at a time, and add each to the log.

    After an error or `stop`, no further question is asked and the replies on their way are still kept.
    A prompt that the server refuses is counted and asked again by the next call.

    Raises QloraError when the judge cannot be asked at all, StorageError.
    """
    todo = pending(wanted, log, judge.name)
    tally = _start_tally(wanted, todo, log, judge.name)
    report = progress or (lambda _: None)
    report(tally)
    stop = stop or Event()
    failure: QloraError | None = None
    waiting = iter(todo)
    running: dict[Future[Reply], Comparison] = {}
    with ThreadPoolExecutor(concurrency) as pool:
        while True:
            while failure is None and not stop.is_set() and len(running) < concurrency:
                item = next(waiting, None)
                if item is None:
                    break
                running[pool.submit(judge.ask, item.prompt(), item.review_id(judge.name))] = item
            if not running:
                break
            try:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    _keep(future, running.pop(future), log, judge.name, tally)
                    report(tally)
            except QloraError as error:
                failure = failure or error
                stop.set()
    if failure is not None:
        raise failure
    return tally


def _start_tally(wanted: Sequence[Comparison], todo: Sequence[Comparison], log: RowLog, judge: str) -> Tally:
    tally = Tally(total=len(wanted), done=len(wanted) - len(todo), from_before=len(wanted) - len(todo))
    mine = {item.review_id(judge) for item in wanted}
    tally.unparsed = sum(row.get("review_id") in mine and row.get("score") in (-1, [-1, -1]) for row in log.rows)
    answers = {(name, answer.question_id): answer for item in wanted for name, answer in (
        (item.model_1, item.answer_1), (item.model_2, item.answer_2),
    )}  # fmt: skip
    for (model, _), answer in answers.items():
        tally.steering[model] = tally.steering.get(model, 0) + instructs_the_judge(answer.text)
        tally.empty[model] = tally.empty.get(model, 0) + (not answer.text.strip())
    return tally


def _keep(future: "Future[Reply]", item: Comparison, log: RowLog, judge: str, tally: Tally) -> None:
    """Write down a reply. Raises what the judge raised, unless it refused this one prompt."""
    try:
        reply = future.result()
    except RefusedError as error:
        tally.refused.append(f"question {item.question.question_id}, {item.model_1} and {item.model_2}: {error}")
        if tally.done == tally.from_before and len(tally.refused) >= _REFUSALS_IN_A_ROW:
            raise QloraError(
                f"the judge refuses every prompt: {error}", hint=error.hint or "Check --model and --max-tokens."
            ) from error
        return
    row = verdict_row(item, reply, judge)
    log.append(row)
    tally.done += 1
    tally.unparsed += row["score"] in (-1, [-1, -1])
    tally.prompt_tokens += reply.prompt_tokens
    tally.completion_tokens += reply.completion_tokens
    tally.absurd_counts += reply.absurd_counts


def verdict_row(item: Comparison, reply: Reply, judge: str) -> dict[str, Any]:
    """A line of the verdict file: the original repository's fields, and the models, which it leaves to file names."""
    return {
        "review_id": item.review_id(judge),
        "question_id": written_id(item.question.question_id),
        "answer1_id": item.answer_1.id,
        "answer2_id": item.answer_2.id,
        "reviewer_id": judge,
        "metadata": {
            "protocol": item.protocol,
            "category": item.question.category,
            "criteria": judge_prompts.criteria_category(item.question.category),
            "prompt_version": judge_prompts.PROMPT_VERSION,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "time_s": round(time.time(), 3),
            **({"problem": reply.problem} if reply.problem else {}),
        },
        "model_1": item.model_1,
        "model_2": item.model_2,
        "text": reply.text,
        "score": score_of(reply.text, item.protocol),
    }


def score_of(text: str, protocol: Protocol) -> int | list[float]:
    """A judge's text as a score of the original files: 1, 2, 3 (tie) or -1, or a pair with [-1, -1] for unreadable."""
    if protocol == "three-class":
        return _OUTCOME_SCORES[three_class(text)]
    scores = ten_point(text)
    return [-1, -1] if scores is None else list(scores)
