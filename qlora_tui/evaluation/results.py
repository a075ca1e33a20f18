"""Results of evaluations in a run's folder: RUN/eval/NAME.json."""

import json
from pathlib import Path
from typing import Any

from qlora_tui import atomic
from qlora_tui.errors import DataError, UsageError
from qlora_tui.regular_files import read_bytes
from qlora_tui.runs.store import RunFolder, check_name

RESULT_VERSION = 1


def file_of(run: RunFolder, name: str) -> Path:
    """Where the result called `name` lies. Raises UsageError for an illegal name."""
    if name in ("events", "stdio"):
        raise UsageError(f"{name!r} cannot be the name of an evaluation", hint="Choose another with --name.")
    return run.path / "eval" / f"{check_name(name)}.json"


def write(run: RunFolder, name: str, result: dict[str, Any]) -> Path:
    """Write a result, complete or not at all, and return its path."""
    path = file_of(run, name)
    atomic.write_json(path, {"version": RESULT_VERSION, **result})
    return path


def read_all(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Every result of a run by name. Raises DataError naming a file that is damaged."""
    found = {}
    for path in sorted((run.path / "eval").glob("*.json")):
        try:
            result = json.loads(read_bytes(path))
        except FileNotFoundError:  # deleted a moment ago
            continue
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}", hint="Check its permissions.") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not JSON: {error}", hint="Remove it and evaluate again.") from error
        if isinstance(result, dict):
            found[path.stem] = result
    return found
