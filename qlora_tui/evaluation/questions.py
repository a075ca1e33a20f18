"""Questions: JSON lines with question_id, text and category, plain text with one a line, or any dataset."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from qlora_tui.config.data import SourceSpec
from qlora_tui.data.downloads import Consent
from qlora_tui.data.kept_columns import KEPT_COLUMNS
from qlora_tui.data.rows import Turn
from qlora_tui.errors import DataError, NotFoundError
from qlora_tui.regular_files import read_bytes

GENERAL = "general"
"""The category of a question that names none, and the judge's prompt for a category without one of its own."""

_TEXTS = ("text", "question", "prompt", "input")

_OPEN_END = "### Assistant:"
_OF_CONVERSATIONS = {"messages", "conversations", "conversation", "instruction", "chosen"}


@dataclass(frozen=True, slots=True)
class Question:
    question_id: str
    text: str
    category: str = GENERAL
    turns: tuple[Turn, ...] = ()
    """Conversation that ends with the question; empty if the question is only a text."""

    kept: Mapping[str, Any] = field(default_factory=dict)
    """Further columns that are copied to its answers, such as `message_id` and `lang`."""

    @property
    def conversation(self) -> tuple[Turn, ...]:
        """The turns up to the answer."""
        return self.turns or (Turn(role="user", content=self.text),)


def questions_of(spec: SourceSpec, limit: int | None, consent: Consent = lambda download: False) -> list[Question]:
    """Return the questions of a question file; for other sources the turns before the first answer, numbered from 1.

    Raises as `read_questions`, and what reading a dataset raises.
    """
    path = Path(spec.source)
    if path.is_file() and _is_question_file(path):
        return read_questions(path)[:limit]
    from qlora_tui.data.convert import split_into_turns, whole_content
    from qlora_tui.data.load import read_rows, to_example

    found = []
    rows = read_rows(split_into_turns(spec, consent), consent=consent).rows
    for number, row in enumerate(islice(rows, limit), start=1):
        turns = tuple(takewhile(lambda turn: turn["role"] in {"system", "user"}, to_example(row).turns))
        asked = "\n\n".join(whole_content(turn) for turn in turns if turn["role"] == "user")
        if not asked:
            raise DataError(
                f"{spec.source}, row {number}: contains no question", hint="Choose a dataset with questions."
            )
        found.append(Question(str(number), asked, turns=turns))
    return found


def _is_question_file(path: Path) -> bool:
    """Decide by the first row: a text that is not a conversation, or a conversation without a final answer."""
    _, row = next(_rows(path), ("", {}))
    asked = next((row[key] for key in _TEXTS if row.get(key)), "")
    finished = str(asked).startswith("### Human:") and not str(asked).rstrip().endswith(_OPEN_END)
    return not _OF_CONVERSATIONS & row.keys() and not finished


def read_questions(path: Path) -> list[Question]:
    """The questions of a file, in its order.

    A row names its question `text`, `question`, `prompt` or `input`, and itself `question_id`, `message_id` or `id`;
    without an id its row number, from 1, is used. A text from "### Human:" to an open "### Assistant:" is a
    conversation. A .txt file has one question a line.

    Raises NotFoundError, or DataError naming the line for a question without text or an id that appears twice.
    """
    questions: list[Question] = []
    seen: dict[str, str] = {}
    for number, (where, row) in enumerate(_rows(path), start=1):
        text = next((row[key] for key in _TEXTS if row.get(key)), None)
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"{where}: no question in this row",
                hint='Expected {"question_id": 1, "text": "...", "category": "..."}, or a .txt file.',
            )
        question_id = row_id(row, number)
        if question_id in seen:
            raise DataError(
                f"{where}: question_id {question_id} is that of {seen[question_id]} too", hint="Give each its own."
            )
        seen[question_id] = where
        kept = {key: row[key] for key in KEPT_COLUMNS if row.get(key) is not None}
        category = str(row.get("category") or GENERAL)
        questions.append(Question(question_id, text, category, _conversation(text, where), kept))
    if not questions:
        raise DataError(f"{path}: no questions in this file", hint="Write one question a line.")
    return questions


def _conversation(text: str, where: str) -> tuple[Turn, ...]:
    """The turns of a text in the form of the original repository's OpenAssistant questions; none of another text."""
    from qlora_tui.data.bad_rows import RowError
    from qlora_tui.data.marked_text import GUANACO

    whole = text.strip()
    if not whole.startswith("### Human:") or not whole.endswith(_OPEN_END):
        return ()
    try:
        turns = GUANACO.split(whole.removesuffix(_OPEN_END), "the question")
    except RowError as error:
        raise DataError(f"{where}: {error}", hint="Write it as ### Human: ... ### Assistant:") from error
    return tuple(Turn(role=turn["role"], content=str(turn["content"])) for turn in turns)


def row_id(row: dict[str, Any], number: int) -> str:
    """What a row of a question, answer or rating file calls its question; its `number` when it says nothing."""
    found = next((row[key] for key in ("question_id", "message_id", "id") if row.get(key) not in (None, "")), number)
    return str(found)


def written_id(question_id: str) -> int | str:
    """A question's id as the original files have it: whole numbers as numbers."""
    return int(question_id) if question_id.isascii() and question_id.isdecimal() and len(question_id) < 16 else (
        question_id
    )  # fmt: skip


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from qlora_tui.evaluation.row_log import located_rows

    if path.suffix.lower() not in {".txt", ".md"}:
        yield from located_rows(path)
        return
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}", hint="Check the path.")
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text", hint="Save the file as UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}:{number}", {"text": line.strip()}
