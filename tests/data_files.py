"""Local data files that the data tests write, and how they are loaded."""

import json
from pathlib import Path
from typing import Any

from qlora_tui.config.data import SourceSpec
from qlora_tui.data.load import Loaded, load_source, to_example

ROWS: list[dict[str, Any]] = [{"prompt": f"p{n}", "completion": f"é{n}"} for n in range(10)]
ANSWERS = [row["completion"] for row in ROWS]
GOOD = '{"prompt": "a", "completion": "b"}\n'
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def load(path: Path, **options: Any) -> Loaded:
    split = options.pop("split", None)
    return load_source(SourceSpec(source=str(path), split=split), **options)


def answers(loaded: Loaded) -> list[str]:
    return [to_example(row).turns[-1]["content"] for row in loaded.dataset]


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
