"""Answers to questions: greedy ones scored against the expected, and sampled ones for a judge."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from statistics import fmean
from typing import Any, NamedTuple

import torch

from qlora_tui import atomic
from qlora_tui.config.data import SourceSpec
from qlora_tui.data.convert import split_into_turns, whole_content
from qlora_tui.data.downloads import Consent
from qlora_tui.data.load import read_rows, to_example
from qlora_tui.data.spans import Conversation
from qlora_tui.engine import generate
from qlora_tui.engine.chat_model import context_max_tokens
from qlora_tui.engine.chat_text import turn_end_text
from qlora_tui.engine.evaluation import partial
from qlora_tui.engine.evaluation.pair import Pair
from qlora_tui.engine.evaluation.partial import Keep, forgotten, interrupted_batch
from qlora_tui.engine.prompts import Prompts
from qlora_tui.errors import DataError, ModelError, RunConflictError
from qlora_tui.evaluation import row_log
from qlora_tui.evaluation.predictions import (
    ANSWER_COLUMNS,
    Answer,
    Side,
    answer_row,
    answers_file,
    prediction_row,
    predictions_file,
    settings_file,
)
from qlora_tui.evaluation.questions import Question
from qlora_tui.evaluation.tasks import AnswersTask, GenerateTask
from qlora_tui.evaluation.text_scores import scores
from qlora_tui.regular_files import read_bytes
from qlora_tui.runs.store import RunFolder

Progress = Callable[[str, int, int], None]


class Expected(NamedTuple):
    """The conversation up to the last answer, and that answer."""

    conversation: Conversation
    answer: str

    @property
    def question(self) -> str:
        """Text of the last turn."""
        return whole_content(self.conversation.turns[-1])


def read(source: SourceSpec, limit: int | None, consent: Consent = lambda download: False) -> list[Expected]:
    """Questions with expected answers from any dataset of the data package.

    Raises what reading a dataset raises, and DataError naming the row that has no answer at its end.
    """
    found: list[Expected] = []
    rows = read_rows(split_into_turns(source, consent), consent=consent).rows
    for row in islice(rows, limit):
        example = to_example(row)
        if len(example.turns) < 2 or example.turns[-1]["role"] != "assistant":
            raise DataError(
                f"{source.source}, row {len(found) + 1}: no answer to compare with",
                hint="Every row must end with the assistant's answer.",
            )
        found.append(Expected(Conversation(example.turns[:-1], example.tools), example.turns[-1]["content"]))
    return found


def measure(
    pair: Pair, rows: Sequence[Expected], task: AnswersTask, progress: Progress, keep: Keep = forgotten
) -> dict[str, Any]:
    """Mean of every score for each side, and the answers themselves."""
    found: dict[str, Any] = {"questions": len(rows)}
    per_row: list[dict[str, Any]] = [{"question": row.question, "expected": row.answer} for row in rows]
    for side in pair.sides:
        with keep(side) as log, pair.side(side) as model:
            start, kept = interrupted_batch(log, task.batch_rows)
            rest = [row.conversation for row in rows[start:]]
            answered = generate.answer(
                model, pair.prompts, rest, max_tokens=task.max_tokens, batch_size=task.batch_rows
            )
            for text in islice(answered, kept, None):
                log.append({"answer": text})
                progress(side, len(log.rows), len(rows))
            texts = [str(row["answer"]) for row in log.rows]
        marks = [scores(text, row.answer) for text, row in zip(texts, rows, strict=True)]
        for row, text, mark in zip(per_row, texts, marks, strict=True):
            row[side] = {"answer": text, **mark}
        found[side] = {name: fmean(mark[name] for mark in marks) for name in marks[0]}
    found["per_row"] = per_row
    return found


def generate_all(
    run: RunFolder, pair: Pair, questions: Sequence[Question], task: GenerateTask, progress: Progress
) -> dict[str, Any]:
    """Answer every question that has no answer yet, each batch kept as soon as it is there.

    The seed of a batch follows from the task's and its first question, so that a resumed run says the same.
    Raises RunConflictError as `check_kept`.
    """
    check_kept(run, pair.sides, questions, task)
    files = {}
    for side in pair.sides:
        path = answers_file(run, task.name, side)
        with row_log.opened(path) as log, pair.side(side) as model:
            if not log.rows:
                atomic.write_json(settings_file(run, task.name, side), _settings(run, task, side))
            known = {str(row["question_id"]) for row in log.rows}
            for start in range(0, len(questions), task.batch_rows):
                batch = [one for one in questions[start : start + task.batch_rows] if one.question_id not in known]
                if batch:
                    torch.manual_seed(task.seed * 1_000_003 + start)
                    with _told_when_diverged():
                        sampled = _sampled(model, pair.prompts, batch, task)
                    for question, prompt, text in sampled:
                        log.append(answer_row(_answer(question, prompt, text)))
                progress(side, min(start + task.batch_rows, len(questions)), len(questions))
            files[side] = str(path)
            predictions = [prediction_row(_asked(row), row["prompt"], row["generation"]) for row in log.rows]
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
            atomic.write_text(predictions_file(run, task.name, side), lines)
    return {"questions": len(questions), "files": files, "sampling": task.sampling.model_dump(), "seed": task.seed}


def check_kept(run: RunFolder, sides: Sequence[Side], questions: Sequence[Question], task: GenerateTask) -> None:
    """Raise RunConflictError when answers of that name are kept that this task would not have given."""
    for side in sides:
        path = answers_file(run, task.name, side)
        if not path.is_file():
            continue
        with row_log.opened(path) as log:
            other = _differences(run, log.rows, questions, task, side) if log.rows else []
        if other:
            raise RunConflictError(
                f"run {run.name!r} has answers to {task.name!r} of its {side} that were made otherwise: "
                + "; ".join(other),
                hint=f"Give the new ones a name of their own with --name, or remove {path}.",
            )


def _differences(
    run: RunFolder, rows: Sequence[dict[str, Any]], questions: Sequence[Question], task: GenerateTask, side: Side
) -> list[str]:
    """In which way these rows are no answers of the task, each as a few words."""
    try:
        before = json.loads(read_bytes(settings_file(run, task.name, side)))
    except (OSError, ValueError):
        return ["with which settings is not known"]
    now = _settings(run, task, side)
    found = [
        "other weights" if key == "weights" else f"{key} {_text(before.get(key))}, now {_text(value)}"
        for key, value in now.items()
        if before.get(key) != value
    ]
    asked = {one.question_id: _as_written(one.text) for one in questions}
    for row in rows:
        new = asked.get(str(row["question_id"]), row["text"])
        if new != row["text"]:
            return [*found, f"question {row['question_id']} {row['text'][:40]!r}, now {new[:40]!r}"]
    return found


def _settings(run: RunFolder, task: GenerateTask, side: Side) -> dict[str, Any]:
    """What decides an answer beside the question and the base; the base itself is the run's for good."""
    decides = {"seed": task.seed, **task.sampling.model_dump(mode="json")}
    if side == "adapter":
        decides |= {"checkpoint": task.checkpoint, "weights": partial.weights_identity(run, task)}
    return decides


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def _as_written(text: str) -> str:
    """A lone surrogate cannot be written."""
    return text.encode("utf-8", "replace").decode()


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of the question that its answer row keeps."""
    return {key: value for key, value in row.items() if key not in ANSWER_COLUMNS}


def _answer(question: Question, prompt: str, text: str) -> Answer:
    asked = (question.question_id, question.text, text, question.category)
    return Answer(*asked, prompt=prompt, generation=text, kept=question.kept)


@contextmanager
def _told_when_diverged() -> Iterator[None]:
    """Turn PyTorch's refusal to draw from what is no distribution into a ModelError."""
    try:
        yield
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise ModelError(
            "the model's outputs are not finite numbers: its training diverged",
            hint="Evaluate an earlier checkpoint with --checkpoint, or train again with a lower learning rate.",
        ) from error


def _sampled(
    model: Any, asked: Prompts, batch: Sequence[Question], task: GenerateTask
) -> list[tuple[Question, str, str]]:
    tokenizer = asked.tokenizer
    prompts = [asked.ids(one.conversation) for one in batch]
    width, context = max(len(prompt) for prompt in prompts), context_max_tokens(model, tokenizer)
    for one, prompt in zip(batch, prompts, strict=True):
        if len(prompt) >= context:
            raise DataError(
                f"question {one.question_id} takes {len(prompt)} tokens, and the model's context has {context}",
                hint="Shorten it, or take it out.",
            )
    ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for number, prompt in enumerate(prompts):
        ids[number, width - len(prompt) :] = torch.tensor(prompt)
        mask[number, width - len(prompt) :] = 1
    sampling, end = task.sampling, turn_end_text(tokenizer)
    choice = (
        {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        if sampling.temperature > 0
        else {"do_sample": False}
    )
    output = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=generate.room(model, tokenizer, width, sampling.max_tokens),
        repetition_penalty=sampling.repetition_penalty,
        eos_token_id=generate.stop_ids(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        **choice,
    )
    return [
        (
            question,
            tokenizer.decode(prompt),
            tokenizer.decode(row, skip_special_tokens=True).strip().removesuffix(end).strip(),
        )
        for question, prompt, row in zip(batch, prompts, output[:, width:], strict=True)
    ]
