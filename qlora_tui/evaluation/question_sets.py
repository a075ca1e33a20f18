"""The question sets of the QLoRA paper by name, downloaded from the hub as question files."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlora_tui import atomic, paths
from qlora_tui.config.data import SourceSpec
from qlora_tui.data.downloads import Consent, Progress
from qlora_tui.data.kept_columns import KEPT_COLUMNS
from qlora_tui.errors import DataError
from qlora_tui.evaluation.questions import GENERAL

Row = dict[str, Any]

_VICUNA_ORDER = (
    "7fa490 451817 27033c 64f504 48e56f 35a4a1 55e266 f95a22 53cf21 4a1bba 3b0e35 481fe5 f81f65 d0836f 3d3137 0bb925 "
    "1f16eb 0b6a31 ad093d 0ebee1 e3cb02 33863a 1f9807 b18789 a6726e de053e a42cfa cf2726 e75b92 0c969c 7e29e1 0cc362 "
    "c33790 4f3588 35552c 9a6ca6 dae101 deed98 336222 3a65e1 9b7222 b9b91b 852996 99bf58 70b110 4bef76 8f9906 d51c90 "
    "cc1a23 9574ab df6f84 bda098 73ba48 212cd2 415117 24bea5 ac77d6 0b427f 821c54 d79490 c94390 6d0eb2 3225a8 91c67a "
    "8a8eb7 a0f1ab 75e0f0 db3f1b a69aaa 642ad5 28b06b 7e977b 6827d5 e246ef abf26c 687d8b cc4f30 de0d73 496a31 6f8f7e"
)
"""Digest of each question's words, from question 1 to 80: the hub's copy has neither their numbers nor categories."""

_VICUNA_CATEGORIES = (
    ("generic", 10), ("knowledge", 20), ("roleplay", 30), ("common-sense", 40), ("fermi", 50), ("counterfactual", 60),
    ("coding", 67), ("math", 70), ("writing", 80),
)  # fmt: skip
"""Each category and its last question."""


@dataclass(frozen=True)
class QuestionSet:
    title: str
    questions: str
    """Number of questions, as text."""

    hub_id: str
    licence: str
    read: Callable[[Iterable[Row]], list[Row]]
    """The question rows made from the rows of the hub dataset."""

    split: str | None = None
    data_file: str | None = None
    """The only file that is read from the repository."""


def write_file(name: str, out: Path, *, consent: Consent, on_progress: Progress | None = None) -> int:
    """Write the set as a question file atomically, and return the number of questions.

    Raises DataError if the set is unavailable or has no questions, StorageError.
    """
    known = SETS[name]
    rows = known.read(_hub_rows(known, consent, on_progress))
    if not rows:
        raise DataError(
            f"{known.hub_id} contains none of the questions of {name!r}",
            hint="The dataset has changed. Use a question file instead.",
        )
    with atomic.storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)


def stored(name: str, *, consent: Consent) -> Path:
    """Return the local question file of the set, downloading it if needed. Raises as `write_file`."""
    path = paths.data() / "questions" / f"{name}.jsonl"
    if not path.is_file():
        write_file(name, path, consent=consent)
    return path


def _hub_rows(known: QuestionSet, consent: Consent, on_progress: Progress | None) -> Iterator[Row]:
    from qlora_tui.data.bad_rows import BadRow
    from qlora_tui.data.hub import hub_files
    from qlora_tui.data.readers import raw_rows

    spec = SourceSpec(source=known.hub_id, split=known.split)
    found = hub_files(
        spec, "eval", data_file=known.data_file, streaming=False, consent=consent, on_progress=on_progress
    )
    for row in raw_rows(found.files):
        if isinstance(row, BadRow):
            raise DataError(f"{known.hub_id}, {row.where}: {row.reason}")
        yield row[1]


def _vicuna(rows: Iterable[Row]) -> list[Row]:
    """The 80 questions in their original order. Other rows of the copy follow with numbers from 81."""
    numbers = {digest: number for number, digest in enumerate(_VICUNA_ORDER.split(), start=1)}
    found: list[Row] = []
    for row in rows:
        text = row.get("instruction")
        if row.get("dataset") != "vicuna" or not isinstance(text, str):
            continue
        number = numbers.get(_digest(text))
        category = next((name for name, last in _VICUNA_CATEGORIES if number and number <= last), GENERAL)
        found.append({"question_id": number, "text": text, "category": category})
    found.sort(key=lambda row: row["question_id"] or len(numbers) + 1)
    for place, row in enumerate((row for row in found if row["question_id"] is None), start=len(numbers) + 1):
        row["question_id"] = place
    return found


def _digest(text: str) -> str:
    words = re.sub(r"\W+", " ", text.casefold()).strip()
    return hashlib.sha256(words.encode()).hexdigest()[:6]


def _open_assistant(rows: Iterable[Row]) -> list[Row]:
    """Yield every user message with a ranked answer: the conversation up to it, and the best answer."""
    messages = {str(row["message_id"]): row for row in rows if row.get("message_id") and row.get("text")}
    best: dict[str, Row] = {}
    for row in messages.values():
        rank, parent = row.get("rank"), str(row.get("parent_id"))
        if row.get("role") == "assistant" and rank is not None and parent in messages:
            known = best.get(parent)
            if known is None or rank < known["rank"]:
                best[parent] = row
    return [_with_context(answer, messages) for answer in best.values()]


def _with_context(answer: Row, messages: dict[str, Row]) -> Row:
    """One question in the columns of the original repository's file."""
    turns: list[str] = ["### Assistant:"]
    place: Row | None = messages.get(str(answer["parent_id"]))
    seen: set[str] = set()
    while place is not None and place["message_id"] not in seen:
        seen.add(place["message_id"])
        speaker = "Human" if place.get("role") == "prompter" else "Assistant"
        turns.insert(0, f"### {speaker}: {place['text']}")
        place = messages.get(str(place.get("parent_id")))
    text = " ".join(turns)
    kept = {key: answer.get(key) for key in KEPT_COLUMNS}
    asked = {"question_id": answer["message_id"], "text": text, "category": "generic"}
    return {"input": text, "output": answer["text"], **kept, **asked}


SETS: dict[str, QuestionSet] = {
    "vicuna": QuestionSet(
        "Vicuna: questions of nine categories",
        "80 questions",
        "tatsu-lab/alpaca_eval",
        "CC-BY-NC-4.0 (the questions: Apache-2.0)",
        _vicuna,
        data_file="alpaca_eval.json",
    ),
    "oa": QuestionSet(
        "OpenAssistant: messages of the validation split in their conversations, 15 languages",
        "953 questions",
        "OpenAssistant/oasst1",
        "Apache-2.0",
        _open_assistant,
        split="validation",
    ),
}
