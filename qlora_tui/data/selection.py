"""Which rows are trained on and which are held out, in what order: mixing, duplicates and the split.

A row is known by the hash of its content, so a row that occurs twice can be counted, and can never be both trained on
and evaluated with. All of it is arithmetic on hashes, decided before anything is tokenized and the same on every
machine for the same content and seed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qlora_tui.config.data import DataSpec
from qlora_tui.data.batches import rows_at_a_time
from qlora_tui.data.downloads import Progress
from qlora_tui.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Hashes = NDArray[np.uint64]

_MAX_REPEATED_ROWS = 10**8
"""A weight that asks for more rows than these, and more than there are, is a slip."""

HASHED_COLUMNS = ("messages", "text", "tools")
"""Columns that decide whether two normalized rows are equal."""


@dataclass(frozen=True, slots=True)
class Selection:
    train: "Indices"
    """Rows of all sources, numbered through, in training order."""

    evaluation: "Indices"
    """Rows of the evaluation source, or held-out rows numbered as those of `train`."""

    duplicate_rows: int
    """Rows equal to an earlier one."""

    removed_duplicates: int
    """Those of them left out of training."""

    kept_apart_rows: int
    """Further rows left out because they are equal to a row on the other side of the split."""

    repeated_rows: int
    """Rows of a mixed source used again because its share is larger than what it has."""

    unused_rows: int
    """Rows of a mixed source left out because its share is smaller than what it has."""

    train_fingerprint: str
    """Hash of the content and order of the training rows."""

    eval_fingerprint: str
    """The same of the evaluation rows."""


def row_hashes(dataset: Any, on_progress: Progress) -> "Hashes":
    """64-bit hash of the content of each row, its origin left out."""
    import numpy as np

    hashes = np.empty(len(dataset), dtype=np.uint64)
    done = 0
    columns = dataset.select_columns(list(HASHED_COLUMNS)).with_format("arrow")
    for batch in columns.iter(batch_size=rows_at_a_time(dataset)):
        digests = hash_rows({name: batch[name].to_pylist() for name in HASHED_COLUMNS})
        hashes[done : done + len(digests)] = digests
        done += len(digests)
        on_progress("comparing rows", done, len(dataset))
    return hashes


def hash_rows(batch: dict[str, list[Any]]) -> list[int]:
    """64-bit hash of the content of each row of a batch of columns."""
    digests = []
    for row in zip(*(batch[name] for name in HASHED_COLUMNS), strict=True):
        content = repr(row).encode("utf-8", "surrogatepass")
        digests.append(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little"))
    return digests


def nothing_selected(content: str) -> Selection:
    """The selection of a stream, whose rows are not known before they are read."""
    import numpy as np

    none = np.empty(0, dtype=np.int64)
    return Selection(none, none, 0, 0, 0, 0, 0, content, "")


def select_rows(
    data: DataSpec, sources: Sequence["Hashes"], weights: Sequence[float], evaluation: "Hashes | None"
) -> Selection:
    """Decide both sides of the split.

    `sources`: the main source's hashes, then those of each mixed one; `weights`: theirs, the main one's being 1.
    `evaluation`: hashes of separate evaluation rows; None cuts `data.eval_rows` rows from the main source.
    Raises DataError when a side that was asked for has no rows.
    """
    import numpy as np

    pool = np.concatenate(list(sources))
    first = _first_occurrences(pool)
    if evaluation is None:
        held_out = _held_out(data, first[: len(sources[0])])
        usable = ~np.isin(pool, pool[held_out])
        kept_apart = int(len(pool) - usable.sum()) - len(held_out)
    else:
        held_out = _unseen(evaluation, pool)
        usable = np.ones(len(pool), dtype=bool)
        kept_apart = len(evaluation) - len(held_out)
    removed = 0
    if data.drop_duplicates:
        removed = int((usable & ~first).sum())
        usable &= first
    sizes = [len(one) for one in sources]
    train, repeated, unused = _mixed(np.flatnonzero(usable), sizes, weights, data.split_seed)
    train = train[: data.max_train_rows]
    held_out = held_out[: data.max_eval_rows]
    if not len(train):
        raise DataError("no training rows are left", hint="Lower data.eval_rows, or give more data.")
    return Selection(
        train=train,
        evaluation=held_out,
        duplicate_rows=int((~first).sum()),
        removed_duplicates=removed,
        kept_apart_rows=kept_apart,
        repeated_rows=repeated,
        unused_rows=unused,
        train_fingerprint=_fingerprint(pool[train]),
        eval_fingerprint=_fingerprint((pool if evaluation is None else evaluation)[held_out]),
    )


def _fingerprint(hashes: "Hashes") -> str:
    return hashlib.blake2b(hashes.tobytes(), digest_size=16).hexdigest()


def _unseen(evaluation: "Hashes", pool: "Hashes") -> "Indices":
    """Separate evaluation rows that are no training rows."""
    import numpy as np

    unseen = np.flatnonzero(~np.isin(evaluation, pool))
    if len(evaluation) and not len(unseen):
        raise DataError(
            "every evaluation row is a training row too",
            hint="Give other evaluation data, or cut rows from the training data with data.eval_rows.",
        )
    return unseen


def _first_occurrences(pool: "Hashes") -> "NDArray[np.bool_]":
    import numpy as np

    first = np.zeros(len(pool), dtype=bool)
    first[np.unique(pool, return_index=True)[1]] = True
    return first


def _held_out(data: DataSpec, first: "NDArray[np.bool_]") -> "Indices":
    """Rows cut from the main source, in order: drawn by the seed from its distinct rows."""
    import numpy as np

    distinct = np.flatnonzero(first)
    if not data.eval_rows:
        return distinct[:0]
    refuse_too_many_eval_rows(data, len(distinct))
    drawn = np.random.default_rng(data.split_seed).permutation(len(distinct))[: data.eval_rows]
    return np.sort(distinct[drawn])


def refuse_too_many_eval_rows(data: DataSpec, distinct_rows: int) -> None:
    """Raise DataError when `data.eval_rows` leaves no distinct rows to train on."""
    if data.eval_rows >= distinct_rows:
        raise DataError(
            f"data.eval_rows = {data.eval_rows} leaves no rows to train on: "
            f"{data.source} has {distinct_rows} distinct rows",
            hint=f"Choose fewer than {distinct_rows} evaluation rows.",
        )


def _mixed(usable: "Indices", sizes: Sequence[int], weights: Sequence[float], seed: int) -> tuple["Indices", int, int]:
    """All usable rows of the main source once; of each other `weight` times as many, spread evenly between them.

    A source with too few rows starts over; of one with too many, rows are drawn by the seed. Returns the rows, how
    many are repetitions, and how many were not drawn.
    """
    import numpy as np

    if len(sizes) == 1:
        return usable, 0, 0
    borders = np.searchsorted(usable, np.cumsum([0, *sizes]))
    parts = [usable[start:end] for start, end in pairwise(borders)]
    main_rows = len(parts[0])
    chosen, places, repeated, unused = [], [], 0, 0
    for part, weight in zip(parts, weights, strict=True):
        wanted = _weighted_rows(weight, main_rows, len(part))
        chosen.append(_drawn(part, wanted, seed))
        places.append((np.arange(wanted) + 0.5) / max(wanted, 1))
        repeated += max(0, wanted - len(part))
        unused += max(0, len(part) - wanted)
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(chosen)[order], repeated, unused


def _drawn(part: "Indices", wanted: int, seed: int) -> "Indices":
    """Every row as often as it goes, in order, and the rest drawn by the seed."""
    import numpy as np

    if not len(part):
        return part
    passes, rest = divmod(wanted, len(part))
    drawn = np.random.default_rng(seed).permutation(len(part))[:rest]
    return np.concatenate([np.tile(part, passes), part[np.sort(drawn)]])


def _weighted_rows(weight: float, main_rows: int, own_rows: int) -> int:
    """How many rows of a source with `own_rows` its weight asks for. Raises DataError where it cannot be meant."""
    if not (main_rows and own_rows):
        return 0
    wanted = round(weight * main_rows)
    if 0 < wanted <= max(own_rows, _MAX_REPEATED_ROWS):
        return wanted
    raise DataError(
        f"data.mix: weight = {weight:g} asks for {wanted:,} rows of a source that has {own_rows:,}",
        hint="A weight is how many rows the source gives for each row of the main one, such as 0.5.",
    )
