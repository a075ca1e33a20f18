"""MMLU by restricted logits over the four letters, per subject; macro average as in the paper, micro beside it.

The prompt is a row's `input` as it stands, which ends with "Answer:"; what is compared is the likelihood of " A" to
" D" behind it. A letter of several tokens is compared by the sum of their log-likelihoods.
"""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from peft import PeftModel

from qlora_tui.engine.chat_model import context_max_tokens
from qlora_tui.engine.evaluation.loss import token_nats
from qlora_tui.engine.evaluation.pair import Pair
from qlora_tui.engine.evaluation.partial import Keep, forgotten, interrupted_batch
from qlora_tui.errors import DataError
from qlora_tui.evaluation.row_log import located_rows
from qlora_tui.evaluation.tasks import MmluTask

LETTERS = ("A", "B", "C", "D")
_LETTER_TOKENS = 4
"""Room that is left in the context for the tokens of a letter."""


class Question(NamedTuple):
    subject: str
    prompt: str
    letter: str


def read(path: Path, limit: int | None) -> list[Question]:
    """The rows of a file in the original format. Raises DataError naming the row, NotFoundError."""
    questions = []
    for where, row in located_rows(path):
        subject, prompt, letter = (row.get(key) for key in ("subject", "input", "output"))
        if not (isinstance(subject, str) and isinstance(prompt, str) and isinstance(letter, str)):
            raise DataError(f"{where}: no multiple-choice row", hint="Expected subject, input and output.")
        if letter.strip() not in LETTERS:
            raise DataError(f"{where}: output {letter!r} is none of {', '.join(LETTERS)}", hint="Correct the row.")
        questions.append(Question(subject, prompt, letter.strip()))
        if len(questions) == limit:
            break
    if not questions:
        raise DataError(f"{path}: no questions in this file", hint="Expected subject, input and output.")
    return questions


def measure(
    pair: Pair,
    questions: Sequence[Question],
    task: MmluTask,
    progress: Callable[[str, int, int], None],
    keep: Keep = forgotten,
) -> dict[str, Any]:
    """Accuracy of each side: macro over subjects, micro over questions, and of each subject."""
    found: dict[str, Any] = {"questions": len(questions)}
    chosen: dict[str, list[str]] = {}
    for side in pair.sides:
        with keep(side) as log, pair.side(side) as model:
            start, kept = interrupted_batch(log, task.batch_rows)
            chosen_letters = letters(model, pair.tokenizer, questions[start:], task.batch_rows, task.max_source_tokens)
            for letter in islice(chosen_letters, kept, None):
                log.append({"letter": letter})
                progress(side, len(log.rows), len(questions))
            chosen[side] = [row["letter"] for row in log.rows]
        found[side] = accuracy(questions, chosen[side])
    found["per_row"] = [
        {"subject": question.subject, "expected": question.letter, **{side: chosen[side][number] for side in chosen}}
        for number, question in enumerate(questions)
    ]
    return found


def letters(
    model: Any, tokenizer: Any, questions: Sequence[Question], batch_rows: int, max_source_tokens: int = 2048
) -> Iterator[str]:
    """Yield the letter that the model, in evaluation mode, chooses for each question.

    Of a prompt longer than `max_source_tokens` or the model's context, the end is kept.
    """
    longest = min(max_source_tokens, context_max_tokens(model, tokenizer) - _LETTER_TOKENS)
    for start in range(0, len(questions), batch_rows):
        batch = [_encode(tokenizer, question, longest) for question in questions[start : start + batch_rows]]
        yield from choose(model, batch, tokenizer.pad_token_id)


def accuracy(questions: Sequence[Question], chosen: Sequence[str]) -> dict[str, Any]:
    """`macro` is the plain mean over subjects, `micro` the share of all questions."""
    right: dict[str, list[bool]] = defaultdict(list)
    for question, letter in zip(questions, chosen, strict=True):
        right[question.subject].append(letter == question.letter)
    subjects = {subject: fmean(marks) for subject, marks in sorted(right.items())}
    return {
        "macro_accuracy": fmean(subjects.values()),
        "micro_accuracy": fmean(mark for marks in right.values() for mark in marks),
        "subjects": subjects,
    }


class Encoded(NamedTuple):
    prompt: list[int]
    letters: tuple[list[int], ...]


def _encode(tokenizer: Any, question: Question, max_source_tokens: int) -> Encoded:
    prompt: list[int] = tokenizer(question.prompt.rstrip())["input_ids"]
    continuations = tuple(
        tokenizer(f"{question.prompt.rstrip()} {letter}")["input_ids"][len(prompt) :] for letter in LETTERS
    )
    return Encoded(prompt[-max_source_tokens:], continuations)


def choose(model: Any, batch: Sequence[Encoded], pad_id: int) -> list[str]:
    """The likeliest letter of each question."""
    if all(len(letter) == 1 for encoded in batch for letter in encoded.letters):
        prompts = [encoded.prompt for encoded in batch]
        last = _logits(model, prompts, [range(len(prompt) - 1, len(prompt)) for prompt in prompts], pad_id)
        return [
            LETTERS[int(torch.stack([logits[0, letter[0]] for letter in encoded.letters]).argmax())]
            for logits, encoded in zip(last, batch, strict=True)
        ]
    return [_likeliest(model, encoded, pad_id) for encoded in batch]


def _likeliest(model: Any, encoded: Encoded, pad_id: int) -> str:
    rows = [encoded.prompt + letter for letter in encoded.letters]
    # The logits of a token are those at the place before it.
    before = [
        range(len(row) - len(letter) - 1, len(row) - 1) for row, letter in zip(rows, encoded.letters, strict=True)
    ]
    nats = []
    for logits, letter in zip(_logits(model, rows, before, pad_id), encoded.letters, strict=True):
        nats.append(float(token_nats(logits, torch.tensor(letter, device=logits.device)).sum()))
    return LETTERS[nats.index(min(nats))]


def _logits(model: Any, rows: Sequence[list[int]], wanted: Sequence[range], pad_id: int) -> list[torch.Tensor]:
    """Logits [wanted places, vocabulary] of each row, in float32.

    The model computes no others if it can leave them out: those of all places of a batch may take gigabytes.
    """
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    computed: Sequence[int] = range(width)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if _can_leave_out_logits(type(base).forward):
        computed = sorted({place for places in wanted for place in places})
        inputs["logits_to_keep"] = torch.tensor(computed)
    output = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}, use_cache=False).logits
    index = {place: number for number, place in enumerate(computed)}
    return [logits[[index[place] for place in places]].float() for logits, places in zip(output, wanted, strict=True)]


@cache
def _can_leave_out_logits(forward: Callable[..., Any]) -> bool:
    """Return whether a model can compute logits for chosen positions only."""
    return "logits_to_keep" in inspect.signature(forward).parameters
