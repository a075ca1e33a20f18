"""Any data source in, rows in normal form out, with what was found on the way."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from qlora_tui.config.data import SourceSpec
from qlora_tui.data import row_cache
from qlora_tui.data.bad_rows import BadRow, BadRows
from qlora_tui.data.content import content_hash, quick_hash
from qlora_tui.data.detect import Detection
from qlora_tui.data.downloads import Consent, Download, Progress
from qlora_tui.data.reading import Reading
from qlora_tui.data.rows import Example
from qlora_tui.data.sources import Source, find_source
from qlora_tui.data.splits import Purpose
from qlora_tui.data.turns import unpacked
from qlora_tui.errors import DataError

__all__ = ["BadRow", "Detection", "Download", "Loaded", "load_source", "to_example"]


@dataclass
class Loaded:
    dataset: Any
    """`datasets.Dataset`, or `IterableDataset` when streaming, with columns messages (turns; `tool_calls` is JSON),
    text, tools (JSON), rejected (turns), origin and kept (JSON). `to_example` turns a row into an Example."""

    detection: Detection
    columns: list[str]
    """Columns of the source, in the sampled rows."""

    bad_rows: list[BadRow]
    """The first of the rows that were skipped; fills up while reading when streaming."""

    bad_row_count: int
    fingerprint: str
    """Identity of the content and of how it was read: the same on every machine. Starts with "quick:" when only part
    was read or the rows are streamed from local files, so that equal does not prove equal content."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Which rows or columns are not trained, and why. For a stream: based on the first rows."""
    label: str = ""
    """What messages call the source."""
    commit: str | None = None
    """Of a hub dataset."""


def to_example(row: dict[str, Any]) -> Example:
    """The Example of one row of `Loaded.dataset`."""
    return Example(
        turns=tuple(unpacked(stored) for stored in row["messages"] or ()),
        text=row["text"],
        tools=tuple(json.loads(row["tools"])) if row["tools"] else (),
        rejected=tuple(unpacked(stored) for stored in row["rejected"] or ()),
        origin=row["origin"],
    )


def load_source(
    spec: SourceSpec,
    *,
    purpose: Purpose = "train",
    skip_bad_rows: bool = False,
    streaming: bool = False,
    consent: Consent = lambda download: False,
    sample_rows: int | None = None,
    on_progress: Progress | None = None,
) -> Loaded:
    """Load the rows that `spec` names.

    `sample_rows`: read only so many rows from the start, at once and without a cache. Otherwise the whole split is
    stored as arrow under the cache folder, found again by content, and mapped into memory.

    Raises DataError or NotFoundError when the source, split, format or columns cannot be used, and for the first bad
    row unless `skip_bad_rows`; StorageError when the cache cannot be written.
    """
    partial = streaming or sample_rows is not None
    source = find_source(spec, purpose, streaming=partial, consent=consent, on_progress=on_progress)
    reading = Reading.of(source, skip_bad_rows)
    key, fingerprint = _identity(source, reading.detection, partial, on_progress)
    if streaming:
        dataset = _streamed(reading)
    elif sample_rows is not None:
        dataset = _sampled(reading, sample_rows)
    else:
        dataset = _cached(reading, key, on_progress)
    bad = reading.bad
    notes = [*source.notes, *reading.notes, *bad.late_notes()]
    found, columns = reading.detection, reading.columns
    warnings = [*reading.warnings, *bad.left_out_reasons()]
    return Loaded(
        dataset, found, columns, bad.rows, bad.count, fingerprint, notes, warnings, source.label, source.commit
    )


@dataclass
class Rows:
    """Normal rows as they are read, for what needs each row once."""

    rows: Iterator[dict[str, Any]]
    detection: Detection
    bad: BadRows
    """Complete once `rows` has ended."""

    columns: list[str]
    notes: list[str]
    warnings: list[str]
    """What the format leaves out of the rows."""
    label: str


def read_rows(
    spec: SourceSpec,
    *,
    skip_bad_rows: bool = False,
    streaming: bool = False,
    consent: Consent = lambda download: False,
    on_progress: Progress | None = None,
) -> Rows:
    """The rows of `spec` one after another, without a cache. Raises as `load_source` does, also while they are read."""
    source = find_source(spec, "train", streaming=streaming, consent=consent, on_progress=on_progress)
    reading = Reading.of(source, skip_bad_rows)
    rows = reading.rows(_reading_progress(source, on_progress))
    if source.split.sliced:
        limit = source.split.leading_rows()
        if limit is None:
            rows = iter(_cached(reading, _identity(source, reading.detection, False, on_progress)[0], on_progress))
        rows = itertools.islice(rows, limit)
    notes = [*source.notes, *reading.notes]
    return Rows(rows, reading.detection, reading.bad, reading.columns, notes, reading.warnings, source.label)


def _identity(source: Source, detection: Detection, partial: bool, on_progress: Progress | None) -> tuple[str, str]:
    """Key of the cache of the whole split, and fingerprint of the part of it that is used."""
    if source.commit is not None:
        content = f"hub:{source.commit}:" + ",".join(file.name for file in source.files)
    elif partial:
        content = quick_hash(source.files)
    else:
        total = sum(file.size_bytes or 0 for file in source.files)
        tell = None if on_progress is None else lambda done: on_progress("hashing", done, total)
        content = content_hash(source.files, tell)
    columns = detection.columns.model_dump(exclude_none=True)
    ignored = sorted(source.spec.ignore_columns)
    key = _digest([row_cache.VERSION, content, source.split.name, detection.format, columns, ignored])
    part = _digest([key, source.split.start, source.split.stop])
    return key, f"quick:{part}" if content.startswith("quick:") else part


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _cached(reading: Reading, key: str, on_progress: Progress | None) -> Any:
    import datasets

    found = row_cache.find(key)
    if found is not None:
        path, met = found
        for row in met.rows:
            reading.bad.add(row)
        reading.bad.count = met.count
        reading.bad.left_out = met.left_out
        reading.bad.late_columns = met.late_columns
    else:
        path = row_cache.write(key, reading.rows(_reading_progress(reading.source, on_progress)), reading.bad)
    dataset = datasets.Dataset.from_file(str(path))
    split, total = reading.source.split, len(dataset)
    if split.sliced:
        dataset = dataset.select(split.rows(total))
    if len(dataset) == 0:
        raise DataError(f"{reading.source.label}: no usable row", hint=_why_none(reading, total))
    return dataset


def _reading_progress(source: Source, on_progress: Progress | None) -> Callable[[int], None] | None:
    if on_progress is None:
        return None
    sizes = [file.size_bytes for file in source.files]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return lambda done: on_progress("reading", done, total)


def _why_none(reading: Reading, total: int = 0) -> str:
    if total:
        return f"The slice is empty; the split has {total:,} row{'s' * (total != 1)}."
    if reading.bad.rows:
        first = reading.bad.rows[0]
        return f"{reading.bad.count} rows were skipped; the first: {first.where}: {first.reason}"
    return "The slice is empty." if reading.source.split.sliced else "Is it the right file or split?"


def _sampled(reading: Reading, sample_rows: int) -> Any:
    import datasets
    import pyarrow as pa

    limit = reading.source.split.leading_rows()
    wanted = sample_rows if limit is None else min(sample_rows, limit)
    rows = list(itertools.islice(reading.rows(), wanted))
    if not rows:
        raise DataError(f"{reading.source.label}: no usable row", hint=_why_none(reading))
    return datasets.Dataset(pa.Table.from_batches([row_cache.record_batch(rows)]))


def _streamed(reading: Reading) -> Any:
    import datasets

    split = reading.source.split
    limit = split.leading_rows()
    if split.sliced and limit is None:
        raise DataError(
            f"{reading.source.label}: a stream can only be cut as {split.name}[:n]", hint="Turn off data.streaming."
        )
    features = datasets.Features.from_arrow_schema(row_cache.schema())
    stream = datasets.IterableDataset.from_generator(reading.rows, features=features)
    return stream if limit is None else stream.take(limit)
