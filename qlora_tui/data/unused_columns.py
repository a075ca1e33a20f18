"""Detect data loss of a reading: text in unused columns, and prompts with several answers."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

Row = dict[str, Any]

_METADATA_NAMES = {
    "id", "idx", "index", "uuid", "guid", "hash", "key", "source", "origin", "url", "link", "path", "file", "filename",
    "category", "subcategory", "type", "kind", "task", "subtask", "task_name", "dataset", "subset", "split", "config",
    "domain", "topic", "topics", "subject", "tag", "tags", "keywords", "label", "labels", "lang", "language", "license",
    "licence", "date", "time", "timestamp", "created", "created_at", "updated_at", "author", "user", "username",
    "model", "model_name", "generator", "version", "metadata", "meta", "title", "name", "difficulty", "level", "score",
    "scores", "rating", "ratings", "quality", "split_name", "citation", "reference_url",
}  # fmt: skip
"""Metadata columns. They are listed in the notes and never cause an error."""

_METADATA_ENDINGS = ("_id", "_ids", "_uuid", "_hash", "_url", "_score", "_rating", "_date", "_time", "_at")
_LEAST_PROSE = 0.5
_LEAST_COPIES = 0.9
_MOST_LEAVES = 64
_MOST_DEPTH = 6


def is_metadata(name: str) -> bool:
    """Return whether a column of this name is metadata and not part of the conversation."""
    return name.lower() in _METADATA_NAMES or name.lower().endswith(_METADATA_ENDINGS)


def unused_columns(rows: Sequence[Row], used: Collection[str]) -> list[str]:
    """Return the non-empty columns that are not in `used`, in order of appearance."""
    names = dict.fromkeys(str(name) for row in rows for name, value in row.items() if value not in (None, "", [], {}))
    return [name for name in names if name not in used]


def unused_text(rows: Sequence[Row], used: Collection[str]) -> list[str]:
    """Return the unused columns with text that differs between rows and is not a copy of a used column."""
    return [name for name in unused_columns(rows, used) if not is_metadata(name) and _says_more(rows, name, used)]


def _says_more(rows: Sequence[Row], name: str, used: Collection[str]) -> bool:
    said = [(row, " ".join(texts(row[name])).strip()) for row in rows if row.get(name) is not None]
    said = [(row, text) for row, text in said if text]
    if not said or (len(rows) > 1 and len({text for _, text in said}) == 1 and len(said) == len(rows)):
        return False
    prose = sum(is_prose(text) for _, text in said)
    if prose < _LEAST_PROSE * len(said):
        return False
    copies = sum(_is_copy(text, [part for column in used for part in texts(row.get(column))]) for row, text in said)
    return copies < _LEAST_COPIES * len(said)


def is_prose(text: str) -> bool:
    """Whether a text is more than one word, as names and codes are."""
    return len(text.split(maxsplit=1)) > 1 or (len(text) > 40 and not text.isascii())


def _is_copy(text: str, used: list[str]) -> bool:
    """Return whether `text` is part of the used text, or contains all of it, as Alpaca's "text" does."""
    whole = " ".join(used)
    return text in whole or (bool(used) and all(part.strip() in text for part in used))


def texts(value: Any, depth: int = 0) -> list[str]:
    """The texts in a value of any shape, the first few of a large one."""
    return list(_texts(value, depth))[:_MOST_LEAVES]


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list) and depth < _MOST_DEPTH:
        for item in list(value.values() if isinstance(value, dict) else value)[:_MOST_LEAVES]:
            yield from _texts(item, depth + 1)


def repeated_prompts(rows: Sequence[Row], asked: Sequence[str], answered: str) -> tuple[int, str]:
    """Return the number of rows that share their prompt with another answer, and one such prompt.

    `asked` are the columns that make up the prompt.
    """
    answers: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if not isinstance(row.get(answered), str | int | float | list):
            continue
        answers["\n".join(repr(row.get(column)) for column in asked)].append(repr(row.get(answered)))
    shared = {prompt: found for prompt, found in answers.items() if len(set(found)) > 1}
    if not shared:
        return 0, ""
    most = max(shared, key=lambda prompt: len(shared[prompt]))
    return sum(map(len, shared.values())), most.partition("\n")[0].strip("'\"")
