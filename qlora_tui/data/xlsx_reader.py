"""Read the first sheet of an Excel workbook; its first row contains the column names."""

import datetime
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from qlora_tui.data.bad_rows import BadRow
from qlora_tui.data.files import OpenFile
from qlora_tui.data.json_reader import RawRow
from qlora_tui.errors import DataError, EnvironmentProblem
from qlora_tui.units import disk

_MAX_UNPACKED_BYTES = 512 << 20
"""All texts of a workbook are in memory at once, several times as large."""

_MAX_LINES = 1 << 20
"""Of a sheet in Excel. A line may name its own number, and all before it count."""

_DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, SyntaxError, OverflowError, EOFError,
    RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile and openpyxl raise: RuntimeError for an encrypted or otherwise compressed one."""


def xlsx_rows(file: OpenFile, name: str) -> Iterator[RawRow | BadRow]:
    """Rows of the first sheet; empty lines are passed over.

    Raises DataError for a damaged workbook or an unusable header, EnvironmentProblem without openpyxl.
    """
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise EnvironmentProblem(
            f"{name}: reading Excel workbooks needs openpyxl",
            hint="pip install 'qlora-tui[xlsx]', or save the file as CSV.",
        ) from None
    try:
        _refuse_bomb(file, name)
        book = load_workbook(file.stream, read_only=True, data_only=True)
        lines = enumerate(book.worksheets[0].iter_rows(values_only=True), 1)
        _, first = next(lines, (1, ()))
        header = _header(first, name)
        for number, cells in lines:
            if number > _MAX_LINES:
                raise ValueError(f"more than {_MAX_LINES:,} lines")
            row = dict(zip(header, map(_value, cells[: len(header)]), strict=False))
            if any(value not in (None, "") for value in row.values()):
                yield f"{name}:{number}", row
    except _DAMAGE as error:
        raise DataError(
            f"{name}: damaged workbook: {str(error).partition(chr(10))[0] or type(error).__name__}",
            hint="Save the file again, or save it as CSV.",
        ) from error


def _refuse_bomb(file: OpenFile, name: str) -> None:
    with zipfile.ZipFile(file.stream) as archive:
        unpacked_bytes = sum(part.file_size for part in archive.infolist())
    file.stream.seek(0)
    if unpacked_bytes > _MAX_UNPACKED_BYTES:
        raise DataError(f"{name}: unpacks to {disk(unpacked_bytes)}", hint="Save the file as CSV.")


def _header(cells: tuple[Any, ...], name: str) -> list[str]:
    header = ["" if cell is None else str(cell).strip() for cell in cells]
    while header and not header[-1]:
        header.pop()
    if not header:
        raise DataError(f"{name}:1: the first row of the first sheet has no column names")
    repeated = [column for column, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"{name}:1: column {repeated[0]!r} appears twice in the header", hint="Rename one of them.")
    return header


def _value(cell: Any) -> Any:
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    return cell if isinstance(cell, str | int | float | bool | None) else str(cell)
