"""Tokens, hashes and red flags of rows on disk, found by what decides them: a second start tokenizes nothing."""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qlora_tui import paths
from qlora_tui.atomic import fsync_folder, fsync_tree, make_folder, storage_errors, write_bytes, write_json
from qlora_tui.data import red_flags
from qlora_tui.data.batches import rows_at_a_time
from qlora_tui.data.row_encoder import RowEncoder
from qlora_tui.data.sweeping import sweep
from qlora_tui.data.tally import Tally
from qlora_tui.regular_files import read_bytes


def folder() -> Path:
    """Where tokenized rows lie."""
    return paths.cache() / "tokens"


def tokenized(key: str, rows: Any, encoder: RowEncoder) -> tuple[Any, Tally]:
    """The dataset of `input_ids`, `labels` and `length` for `key`, and its tally; `rows` are read only if they are new.

    Both files are made durable and renamed into place when finished, the tally last: without it the rows are written
    again. Raises StorageError when the disk is full or read-only, and what the encoder raises; both leave nothing
    behind.
    """
    arrow, counts = folder() / f"{key}.arrow", folder() / f"{key}.json"
    tally = _stored_tally(counts, rows)
    dataset = None if tally is None else _stored_rows(arrow)
    if tally is not None and dataset is not None:
        encoder.on_rows(tally.rows)
        return dataset, tally
    _make_folder()
    # A folder of its own: `datasets` leaves its unfinished file behind when the disk is full.
    with storage_errors(folder()), tempfile.TemporaryDirectory(prefix=".", dir=folder()) as unfinished:
        made = Path(unfinished) / arrow.name
        _map(rows, encoder, key, made)
        fsync_tree(made.parent)
        made.rename(arrow)
        fsync_folder(folder())
    write_json(counts, encoder.tally.to_json())
    return _rows_of(arrow), encoder.tally


def counted(key: str, rows: Any, encoder: RowEncoder) -> Tally:
    """The tally that `tokenized` gives: its tokens are several times the size of the rows, its counts next to nothing.

    Raises StorageError when the counts cannot be written, and what the encoder raises.
    """
    tally = known_tally(key, rows)
    if tally is not None:
        encoder.on_rows(tally.rows)
        return tally
    for batch in rows.iter(batch_size=rows_at_a_time(rows)):
        encoder(batch)
    _make_folder()
    write_json(folder() / f"{key}.counts", encoder.tally.to_json())
    return encoder.tally


def known_tally(key: str, rows: Any) -> Tally | None:
    """The tally of `key` when its `rows` were tokenized or counted before."""
    return _stored_tally(folder() / f"{key}.json", rows) or _stored_tally(folder() / f"{key}.counts", rows)


def _make_folder() -> None:
    with storage_errors(folder()):
        make_folder(folder())
        # Hidden names are of writers at work or killed.
        sweep(folder(), lambda entry: entry.name.startswith("."))


def _stored_tally(counts: Path, rows: Any) -> Tally | None:
    try:
        tally = Tally.from_json(json.loads(read_bytes(counts)))
        tally.locate(rows.select_columns(["origin"])["origin"])
        counts.touch()
    except (OSError, LookupError, ValueError, TypeError, AttributeError):
        return None
    return tally


def _rows_of(arrow: Path) -> Any:
    import datasets

    return datasets.Dataset.from_file(str(arrow))


def _stored_rows(arrow: Path) -> Any | None:
    import pyarrow as pa

    try:
        dataset = _rows_of(arrow)
        arrow.touch()
    except (OSError, ValueError, pa.ArrowException):
        return None
    return dataset


def stored_hashes(key: str, rows: int, fresh: Callable[[], Any]) -> Any:
    """The hashes of a source's rows, from the cache when `key`, its fingerprint, proves its content."""
    import numpy as np

    path = folder() / f"{key}.hashes"
    if ":" in key:
        return fresh()
    try:
        hashes = np.fromfile(path, dtype=np.uint64)
        path.touch()
    except OSError:
        hashes = np.empty(0, dtype=np.uint64)
    if len(hashes) != rows:
        hashes = fresh()
        with storage_errors(folder()):
            make_folder(folder())
        write_bytes(path, hashes.tobytes())
    return hashes


def stored_flags(sources: list[str], fresh: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The red flags of the rows of sources with these fingerprints, from the cache when they were looked for before."""
    key = hashlib.blake2b(json.dumps([red_flags.VERSION, *sources]).encode(), digest_size=16).hexdigest()
    path = folder() / f"{key}.flags"
    try:
        flags: list[dict[str, Any]] = json.loads(read_bytes(path))
        path.touch()
    except (OSError, ValueError):
        flags = fresh()
        _make_folder()
        write_json(path, flags)
    return flags


def features() -> Any:
    """Columns of tokenized rows. 32 bits hold any token id and -100, and halve the file."""
    import datasets

    ids = datasets.List(datasets.Value("int32"))
    return datasets.Features({"input_ids": ids, "labels": ids, "length": datasets.Value("int32")})


def _map(rows: Any, encoder: RowEncoder, key: str, arrow: Path) -> None:
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        rows.map(
            encoder,
            batched=True,
            batch_size=rows_at_a_time(rows),
            remove_columns=rows.column_names,
            features=features(),
            cache_file_name=str(arrow),
            load_from_cache_file=False,
            new_fingerprint=key,
        )
    finally:
        if shown:
            datasets.enable_progress_bars()
