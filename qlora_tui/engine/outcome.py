"""Write metrics.json and predictions.jsonl of a finished run, as qlora.py does."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice, repeat
from statistics import fmean
from typing import Any, NamedTuple

from qlora_tui import atomic
from qlora_tui.config.training import TrainingSpec
from qlora_tui.engine import generate
from qlora_tui.engine.session import Session, finite
from qlora_tui.evaluation.predictions import prediction_row
from qlora_tui.evaluation.text_scores import scores
from qlora_tui.runs.state import RunState

_IGNORED = -100
_LARGEST_EXPONENT = 700
"""The exponential of this is close to the largest float."""


class Asked(NamedTuple):
    """An evaluation row truncated before its last trained answer."""

    prompt: list[int]
    answer: list[int]
    kept: dict[str, Any]
    """Columns of its source row, such as `message_id`."""


def predict(
    session: Session, model: Any, tokenizer: Any, rows: Any, kept: Iterable[dict[str, Any]], spec: TrainingSpec
) -> dict[str, float]:
    """Generate greedy answers to the first evaluation rows, write predictions.jsonl and return the mean scores.

    Rows without a prompt are left out. `kept` has for each row the columns that are copied to its prediction.
    """
    asked = list(islice(_asked(rows, kept), spec.prediction_rows))
    if not asked:
        return {}
    session.stage("sampling", "predictions", total=len(asked), unit="rows")
    prompts = [row.prompt for row in asked]
    texts = generate.continuations(
        model, tokenizer, prompts, max_tokens=spec.prediction_max_tokens, batch_size=spec.micro_batch_size
    )
    lines, marks = [], []
    for row, text in zip(asked, texts, strict=True):
        prompt = tokenizer.decode(row.prompt)
        expected = tokenizer.decode(row.answer, skip_special_tokens=True)
        lines.append(prediction_row({**row.kept, "input": prompt, "output": expected}, prompt, text))
        marks.append(scores(text, expected))
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    atomic.write_text(session.run.predictions, content)
    return {f"predict_{name}": fmean(mark[name] for mark in marks) for name in marks[0]}


def _asked(rows: Any, kept: Iterable[dict[str, Any]]) -> Iterator[Asked]:
    for row, columns in zip(rows, chain(kept, repeat({})), strict=False):
        ids, labels = row["input_ids"], row["labels"]
        end = next((place for place in range(len(labels), 0, -1) if labels[place - 1] != _IGNORED), 0)
        start = next((place for place in range(end, 0, -1) if labels[place - 1] == _IGNORED), 0)
        if start > 1:  # more than the token that opens every row
            yield Asked(list(ids[:start]), list(ids[start:end]), columns)


def write_metrics(session: Session, metrics: Mapping[str, float], *, train_seconds: float) -> None:
    """Write metrics.json with the names that qlora.py and the trainer use, such as `train_loss` and `eval_loss`."""
    state = session.state
    found = {"run_name": session.run.name, **_training(state, train_seconds), **_evaluation(state), **metrics}
    atomic.write_json(session.run.metrics, {name: value for name, value in found.items() if value is not None})


def _training(state: RunState, train_seconds: float) -> dict[str, float | int | None]:
    last, rows = state.steps.last, state.plan.effective_batch_rows if state.plan else None
    steps = state.step_number
    return {
        "epoch": last.epoch if last else None,
        "train_steps": steps,
        "train_tokens": last.tokens if last else None,
        "train_runtime": round(train_seconds, 3),
        "train_steps_per_second": round(steps / train_seconds, 3) if train_seconds else None,
        "train_samples_per_second": round(steps * rows / train_seconds, 3) if train_seconds and rows else None,
    }


def _evaluation(state: RunState) -> dict[str, float | None]:
    last = state.evals.last
    if last is None:
        return {}
    perplexity = math.exp(last.loss) if last.loss is not None and last.loss < _LARGEST_EXPONENT else None
    rest = {f"eval_{name}": finite(value) for name, value in last.metrics.items()}
    return {"eval_perplexity": perplexity, **rest}
