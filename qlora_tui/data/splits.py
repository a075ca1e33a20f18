"""Splits: which file belongs to which, which one is meant, and slices such as train[:1000]."""

import re
from dataclasses import dataclass
from typing import Literal

from qlora_tui.errors import DataError, nearest

Purpose = Literal["train", "eval"]

_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "eval",
    "heldout": "eval",
    "test": "test",
    "testing": "test",
}
_EVAL_ORDER = ("eval", "validation", "test")
_EXPRESSION = re.compile(r"\s*([^\[\]]+?)\s*(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?\s*")


@dataclass(frozen=True)
class SplitChoice:
    name: str
    start: str | None = None
    stop: str | None = None

    def rows(self, total: int) -> range:
        """Row numbers of the slice in a split of `total` rows. Percentages are rounded to whole rows."""
        # An empty range begins at 0: `datasets` refuses one that begins beyond the last row.
        return range(total)[slice(_row(self.start, total), _row(self.stop, total))] or range(0)

    def leading_rows(self) -> int | None:
        """Rows of the slice when it is a plain [:n], which needs no total."""
        plain = self.start in {None, "0"} and self.stop is not None and self.stop.isdigit()
        return int(self.stop) if plain and self.stop is not None else None

    @property
    def sliced(self) -> bool:
        return self.start is not None or self.stop is not None


def _row(bound: str | None, total: int) -> int | None:
    if bound is None:
        return None
    return round(int(bound[:-1]) * total / 100) if bound.endswith("%") else int(bound)


def split_of(path: str) -> str | None:
    """The split that a file's path names, by whole words of its file name, then of its folders."""
    for part in reversed(path.split("/")):
        stem = re.sub(r"\.\w+(\.(gz|zst|zstd))?$", "", part.lower())
        for word in re.split(r"[^a-z]+", stem):
            if word in _WORDS:
                return _WORDS[word]
    return None


def choose(wanted: str | None, splits: list[str], purpose: Purpose, label: str) -> SplitChoice:
    """The split meant by `wanted`; without it the usual one for the purpose.

    Raises DataError that lists the splits when there is no such split or the expression is broken.
    """
    if wanted is None:
        return SplitChoice(_usual(splits, purpose, label))
    match = _EXPRESSION.fullmatch(wanted)
    if match is None:
        raise DataError(
            f"{wanted!r} is no split", hint="Write a name, or a slice such as train[:1000] or train[10%:20%]."
        )
    name = match[1]
    if name not in splits and _WORDS.get(name) in splits:
        name = _WORDS[name]
    if name not in splits:
        hint = nearest(name, splits)
        raise DataError(f"{label} has no split {name!r}; its splits: {', '.join(splits)}", hint=hint)
    return SplitChoice(name, match[2], match[3])


def unused_note(wanted: str | None, chosen: SplitChoice, splits: list[str]) -> list[str]:
    """Return the notice about a split that was chosen automatically."""
    others = [name for name in splits if name != chosen.name]
    return [f"split {chosen.name} is read; there is also {', '.join(others)}"] if others and wanted is None else []


def _usual(splits: list[str], purpose: Purpose, label: str) -> str:
    usual = ("train",) if purpose == "train" else _EVAL_ORDER
    for name in usual:
        if name in splits:
            return name
    if len(splits) == 1:
        return splits[0]
    raise DataError(
        f"{label} has no usual split for {'training' if purpose == 'train' else 'evaluation'};"
        f" its splits: {', '.join(splits)}",
        hint=f'Choose one: {"data.split" if purpose == "train" else "data.eval_split"} = "{splits[0]}".',
    )
