"""Files of answers: the format of the original repository, predictions.jsonl, and where a run keeps its own.

A run's answers to a question set lie in RUN/eval/answers/SET.SIDE.jsonl, side being "adapter" or "base".
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qlora_tui import paths
from qlora_tui.errors import DataError, NotFoundError
from qlora_tui.evaluation.questions import GENERAL, row_id, written_id
from qlora_tui.runs.store import RunFolder

Side = Literal["adapter", "base"]

SYSTEM_SENTENCE = "A chat between a curious human and an artificial intelligence"
"""Where a generation begins to repeat its own prompt, it is cut before it is judged."""

ANSWER_COLUMNS = frozenset({"prompt", "generation", "generation_truncated", "answer_id"})
"""Columns of a generation file that belong to the answer; the others belong to the question."""

_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ID_CHARACTERS = 22


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one model. `text` is what is judged; `generation` may run on beyond the end of the turn."""

    question_id: str
    question: str
    text: str
    category: str = GENERAL
    prompt: str = ""
    generation: str = ""
    answer_id: str = ""
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the question, such as `message_id` and `lang`."""

    @property
    def id(self) -> str:
        """The id in the file, else one made from the text, the same for the same text."""
        return self.answer_id or id_of_text(self.text)


def id_of_text(text: str) -> str:
    """The id that the original repository gives an answer without one: a version 5 UUID of the text in base 57."""
    namespace = uuid.NAMESPACE_URL if text.lower().startswith(("http://", "https://")) else uuid.NAMESPACE_DNS
    number = uuid.uuid5(namespace, text.encode("utf-8", "replace").decode()).int
    digits = []
    for _ in range(_ID_CHARACTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def answer_row(answer: Answer) -> dict[str, Any]:
    """`answer` as a line of the original repository's generation files."""
    return {
        "question_id": written_id(answer.question_id),
        "text": answer.question,
        "category": answer.category,
        **answer.kept,
        "prompt": answer.prompt,
        "generation": answer.generation or answer.text,
        "generation_truncated": answer.text,
        "answer_id": answer.id,
    }


def prediction_row(row: dict[str, Any], prompt: str, generation: str) -> dict[str, Any]:
    """A line of predictions.jsonl: the dataset row, the whole decoded text, and the same without the prompt."""
    return {**row, "prediction_with_input": prompt + generation, "prediction": generation}


def answers_file(run: RunFolder, question_set: str, side: Side) -> Path:
    """Where a run's answers to a question set are, adapter and base apart."""
    return run.path / "eval" / "answers" / f"{question_set}.{side}.jsonl"


def predictions_file(run: RunFolder, question_set: str, side: Side) -> Path:
    """The same answers as predictions.jsonl, once all questions are answered."""
    return run.path / "eval" / "answers" / f"{question_set}.{side}.predictions.jsonl"


def settings_file(run: RunFolder, question_set: str, side: Side) -> Path:
    """What decided those answers: seed, sampling and, of an adapter, its weights."""
    return run.path / "eval" / "answers" / f"{question_set}.{side}.settings.json"


def read_answers(path: Path) -> dict[str, Answer]:
    """Answers by question id, from generation files with or without a truncated text, and from predictions.jsonl.

    Raises NotFoundError, or DataError naming the line for a row without an answer or a question answered twice.
    """
    from qlora_tui.evaluation.row_log import located_rows

    answers: dict[str, Answer] = {}
    seen: dict[str, str] = {}
    for number, (where, row) in enumerate(located_rows(path), start=1):
        answer = _answer(row, number, where)
        if answer.question_id in seen:
            raise DataError(
                f"{where}: question {answer.question_id} is answered in {seen[answer.question_id]} already",
                hint="Take one of the two out.",
            )
        seen[answer.question_id] = where
        answers[answer.question_id] = answer
    if not answers:
        raise DataError(f"{path}: no answers in this file", hint="Generate some first.")
    if not any(answer.text.strip() for answer in answers.values()):
        raise DataError(f"{path}: every answer is empty", hint="Look at the run's template and stop tokens.")
    return answers


def _answer(row: dict[str, Any], number: int, where: str) -> Answer:
    key = next((key for key in ("generation_truncated", "generation", "prediction") if row.get(key) is not None), None)
    text = row.get(key or "text")
    if not isinstance(text, str):
        raise DataError(
            f"{where}: no answer in this row",
            hint="Expected the answer in generation_truncated, generation, prediction or text, with a question_id.",
        )
    question = row.get("text") if key else None
    generation = row.get("generation")
    return Answer(
        row_id(row, number),
        str(question or row.get("question") or row.get("input") or ""),
        text.partition(SYSTEM_SENTENCE)[0],
        str(row.get("category") or GENERAL),
        str(row.get("prompt") or ""),
        generation if isinstance(generation, str) else text,
        str(row.get("answer_id") or ""),
    )


def find(text: str, question_set: str) -> tuple[str, Path]:
    """(name, file) of the answers that a word on the command line means: [NAME=]FILE, or RUN, or RUN:base.

    Raises NotFoundError, UsageError.
    """
    from qlora_tui.errors import UsageError
    from qlora_tui.runs import store

    name, equals, rest = text.partition("=")
    path = paths.existing(rest if equals else text)
    if equals and not name:
        raise UsageError(f"{text!r}: no name before '='", hint="Write it as NAME=FILE.")
    if path is not None and path.is_file():
        return (name if equals else path.name.partition(".jsonl")[0]), path
    run_name, colon, side = (rest if equals else text).partition(":")
    if "/" in run_name or run_name.endswith((".jsonl", ".json", ".csv")):
        path = paths.expanded(rest if equals else text)
        raise NotFoundError(f"no such file: {path}", hint="Give a file of answers, or the name of a run.")
    if colon and side not in {"adapter", "base"}:
        raise UsageError(f"{text!r}: {side!r} is no side of a run", hint="Write RUN:adapter or RUN:base.")
    run = store.find(run_name)
    file = answers_file(run, question_set, "base" if side == "base" else "adapter")
    if not file.is_file():
        raise NotFoundError(f"run {run.name!r} has no answers to {question_set!r}", hint=_known_sets(run))
    return (name if equals else text.removesuffix(":adapter")), file


def _known_sets(run: RunFolder) -> str:
    files = [path for side in ("adapter", "base") for path in (run.path / "eval" / "answers").glob(f"*.{side}.jsonl")]
    known = sorted({path.name.rsplit(".", 2)[0] for path in files})
    return f"It has answered: {', '.join(known)}." if known else "Generate them first."
