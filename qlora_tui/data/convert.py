"""Any source as clean jsonl: `{"messages": [{"role", "content"}, ...]}`, or `{"text"}` for text without turns."""

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qlora_tui.atomic import replacing
from qlora_tui.config.data import Format, SourceSpec
from qlora_tui.data.bad_rows import BadRow
from qlora_tui.data.detect import Detection
from qlora_tui.data.downloads import Consent, Progress
from qlora_tui.data.load import read_rows, to_example
from qlora_tui.data.registry import KNOWN
from qlora_tui.data.rows import Example, Turn

_WITH_TURNS: dict[Format, Format] = {"guanaco": "guanaco-turns", "hh-rlhf": "preference"}
"""Formats that keep a conversation as one text, and the one that reads the same rows as turns."""


class Writable(Protocol):
    def write(self, text: str, /) -> object: ...


@dataclass(frozen=True)
class Converted:
    rows: int
    bad_row_count: int
    bad_rows: list[BadRow]
    detection: Detection
    warnings: list[str]
    """Which rows or columns were left out, and why."""


def convert(
    spec: SourceSpec,
    out: Path | Writable,
    *,
    skip_bad_rows: bool = False,
    consent: Consent = lambda download: False,
    on_progress: Progress | None = None,
) -> Converted:
    """Write the rows of `spec` to `out`, one JSON object a line; a file is replaced whole or not at all.

    Where the format is left to detection, conversations kept as one text are split into turns.

    Raises what `load_source` raises, and StorageError when the file cannot be written.
    """
    wanted = split_into_turns(spec, consent, on_progress)
    reading = read_rows(wanted, skip_bad_rows=skip_bad_rows, consent=consent, on_progress=on_progress)
    written = 0
    with _opened(out) as stream:
        for row in reading.rows:
            stream.write(json.dumps(_line(to_example(row)), ensure_ascii=False) + "\n")
            written += 1
    warnings = [*reading.warnings, *reading.bad.left_out_reasons()]
    return Converted(written, reading.bad.count, reading.bad.rows, reading.detection, warnings)


def split_into_turns(spec: SourceSpec, consent: Consent, on_progress: Progress | None = None) -> SourceSpec:
    """`spec` with the format that splits its texts into turns, where detection finds one that keeps them whole."""
    if spec.format != "auto":
        return spec
    known = KNOWN.get(spec.source)
    found = known.format if known else read_rows(spec, consent=consent, on_progress=on_progress).detection.format
    return spec.model_copy(update={"format": _WITH_TURNS[found]}) if found in _WITH_TURNS else spec


def _line(example: Example) -> dict[str, Any]:
    if example.text is not None:
        return {"text": example.text}
    line: dict[str, Any] = {"messages": [_message(turn) for turn in example.turns]}
    return line | {"tools": list(example.tools)} if example.tools else line


def whole_content(turn: Turn) -> str:
    """What is said in a turn, with what it is about below."""
    context = turn.get("context")
    return f"{turn['content']}\n\n{context}" if context else turn["content"]


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn["role"], "content": whole_content(turn)}
    if "name" in turn:
        message["name"] = turn["name"]
    for key in ("tool_calls", "tool_call_id", "reasoning_content"):
        if key in turn:
            message[key] = turn[key]
    if turn.get("untrained"):
        message["train"] = False
    return message


@contextlib.contextmanager
def _opened(out: Path | Writable) -> Iterator[Writable]:
    """`out` for writing; a path is written beside itself first and renamed once whole."""
    if not isinstance(out, Path):
        yield out
        return
    with replacing(out, private=False) as file:
        stream = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        try:
            yield stream
        finally:
            stream.detach()
