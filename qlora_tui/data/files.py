"""A data file: how it is opened, decompressed and hashed, and what its first bytes say it is."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from qlora_tui.errors import DataError
from qlora_tui.regular_files import open_unbuffered

Kind = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "xlsx", "text"]

HEAD_BYTES = 1 << 16
_SUFFIX_KINDS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".xlsx": "xlsx",
    ".txt": "text",
    ".md": "text",
}
_COMPRESSION_SUFFIXES = {".gz", ".zst", ".zstd"}
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_UNREADABLE_MAGIC = {
    b"PK\x03\x04": ("a zip archive", "Unpack it and give the folder."),
    b"BZh": ("bzip2 compressed", "Unpack it with bunzip2; .gz and .zst are read as they are."),
    b"\xfd7zXZ": ("xz compressed", "Unpack it with unxz; .gz and .zst are read as they are."),
    b"\x80\x04\x95": ("a pickle", "Pickles can run code and are never read; save the rows as jsonl or parquet."),
    b"SQLite format 3": ("an SQLite database", "Export the table to csv."),
    b"%PDF": ("a PDF", "Extract its text first."),
}
READABLE = "jsonl, json, csv, tsv, parquet, arrow, xlsx, txt (all but xlsx also as .gz or .zst)"


@dataclass(frozen=True)
class DataFile:
    """One file of a source, local or remote."""

    name: str
    """What messages call it: the path inside the source."""

    open_raw: Callable[[], BinaryIO]
    size_bytes: int | None

    kind: Kind | None = None
    """Fixed kind; empty: found from the content."""

    path: Path | None = None
    """Where it lies on this machine; None when it is remote."""


@dataclass(frozen=True)
class OpenFile:
    """A file being read. `position_bytes` counts compressed bytes, so it compares with the file's size."""

    stream: BinaryIO
    raw: BinaryIO
    head: bytes
    """The first bytes after decompression, at most HEAD_BYTES."""

    def position_bytes(self) -> int:
        return self.raw.tell() if not self.raw.closed else 0


def local_file(path: Path, name: str | None = None, kind: Kind | None = None) -> DataFile:
    """The DataFile of a path on this machine."""
    return DataFile(name or path.name, _Opener(path), path.stat().st_size, kind, path)


@dataclass(frozen=True)
class _Opener:
    path: Path

    def __call__(self) -> BinaryIO:
        return cast(BinaryIO, open_unbuffered(self.path))


def has_data_suffix(name: str) -> bool:
    """Whether a file name ends like something the readers know."""
    return _suffix_kind(name) is not None


@contextlib.contextmanager
def opened(file: DataFile) -> Iterator[OpenFile]:
    """Open and decompress `file`.

    Raises DataError when it cannot be opened, is a known unreadable kind, or its compression is damaged.
    """
    with read_errors(file.name):
        raw = file.open_raw()
        with raw:
            magic = raw.read(16)
            raw.seek(0)
            if _suffix_kind(file.name) != "xlsx":  # a zip archive that is read
                _refuse_unreadable(file.name, magic)
            with _decompressed(raw, magic) as stream:
                head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
                yield OpenFile(cast(BinaryIO, stream), raw, head)


@contextlib.contextmanager
def _decompressed(raw: BinaryIO, magic: bytes) -> Iterator["io.BufferedReader[Any]"]:
    unpacked: Any = raw
    if magic.startswith(_GZIP_MAGIC):
        import gzip

        unpacked = gzip.GzipFile(fileobj=raw)
    elif magic.startswith(_ZSTD_MAGIC):
        import zstandard

        unpacked = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=False)
    stream = io.BufferedReader(unpacked, HEAD_BYTES)
    try:
        yield stream
    finally:
        stream.close()


@contextlib.contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turn what reading and decompressing can raise into a DataError that names the file."""
    import gzip
    import zlib

    import zstandard

    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise DataError(f"{name}: the compressed file is damaged or cut short: {error}") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error


def _refuse_unreadable(name: str, magic: bytes) -> None:
    for prefix, (what, remedy) in _UNREADABLE_MAGIC.items():
        if magic.startswith(prefix):
            raise DataError(f"{name}: this is {what}, not rows", hint=remedy)


def kind_of(file: DataFile, head: bytes) -> Kind:
    """What `file` holds, from its first bytes and, where these leave it open, its suffix.

    Raises DataError when neither tells.
    """
    if file.kind is not None:
        return file.kind
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    suffix_kind = _suffix_kind(file.name)
    if suffix_kind == "xlsx" and head.startswith(b"PK\x03\x04"):
        return "xlsx"
    if suffix_kind in {"parquet", "arrow", "xlsx"}:
        raise DataError(f"{file.name}: is not a {suffix_kind} file", hint="Its first bytes say something else.")
    if suffix_kind in {"csv", "tsv"}:
        return suffix_kind
    return _text_kind(file.name, head, suffix_kind)


def _text_kind(name: str, head: bytes, suffix_kind: Kind | None) -> Kind:
    start = head.decode("utf-8", "ignore").replace("\x00", "").lstrip("\ufeff\ufffe \t\r\n")
    if suffix_kind in {"jsonl", "json"}:
        if start.startswith("["):
            return "json" if not re.match(r"\[[^\n]*\]\s*\n\s*\[", start) else "jsonl"
        if start.startswith("{") and suffix_kind == "json":
            return "jsonl" if re.match(r"\{[^\n]*\n\s*\{[^\n]*\"", start) else "json"
        if re.match(r'\{[ \t\r]*\n\s*"', start):
            return "json"  # objects over several lines, whatever the suffix says
        return suffix_kind
    if re.match(r'\{\s*"[^\n]*\}\s*\n\s*\{\s*"', start):
        return "jsonl"
    if suffix_kind == "text":
        return "text"
    if re.match(r'\{\s*"[^\n]*\}\s*$', start):
        return "jsonl"
    if re.match(r'\[\s*\{\s*"', start):
        return "json"
    raise DataError(f"{name}: cannot tell what kind of file this is", hint=f"Rename it to one of: {READABLE}.")


def _suffix_kind(name: str) -> Kind | None:
    path = Path(name.lower())
    if path.suffix in _COMPRESSION_SUFFIXES:
        path = path.with_suffix("")
    return _SUFFIX_KINDS.get(path.suffix)
