"""A connection lost while rows are read from the hub."""

import io
from collections.abc import Callable
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qlora_tui.data.files import DataFile
from qlora_tui.data.hub import _RemoteOpener
from qlora_tui.data.readers import raw_rows
from qlora_tui.errors import DataError

ROWS = [{"prompt": f"{n} " * 40, "completion": str(n)} for n in range(20_000)]


def _jsonl() -> bytes:
    return b"".join(b'{"prompt": "p", "completion": "%d"}\n' % n for n in range(20_000))


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=1000, compression="none")
    return bytes(sink.getvalue().to_pybytes())


class _Lost(io.BytesIO):
    """Gives the first reads, then the connection is gone."""

    def read(self, size: int | None = -1) -> bytes:
        self.left = getattr(self, "left", 3) - 1
        if self.left < 0:
            raise httpx2.ReadTimeout("The read operation timed out")
        return super().read(size)

    def readinto(self, buffer: Any) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


@pytest.mark.parametrize(("name", "content"), [("rows.jsonl", _jsonl), ("rows.parquet", _parquet)])
def test_a_connection_lost_on_the_way_is_one_clear_error(
    name: str, content: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    class FileSystem:
        def open(self, path: str, mode: str) -> io.BytesIO:
            return _Lost(content())

    monkeypatch.setattr("huggingface_hub.HfFileSystem", FileSystem)
    file = DataFile(name, _RemoteOpener(f"datasets/some/rows@main/{name}", "some/rows"), len(content()))
    rows = raw_rows([file])
    with pytest.raises(DataError, match=r"some/rows cannot be reached at .*: The read operation timed out"):
        list(rows)
