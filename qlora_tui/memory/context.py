"""What a process takes before it trains: the CUDA context that `--probe` measured, and the imported libraries.

Both are kept for later estimates on this machine: the context by the name of the card, the imports by the versions of
the libraries. Every worker measures its own imports.
"""

import importlib.util
import json
from functools import cache
from pathlib import Path

from qlora_tui import atomic, paths
from qlora_tui.regular_files import read_text
from qlora_tui.runs.versions import library_versions

IMPORTED_BYTES = 494 << 20
"""Resident memory once the training stack is imported, with the CPU build of PyTorch (torch 2.13, transformers 5.23,
trl 1.16, Linux)."""

CUDA_BUILD_BYTES = 375 << 20
"""So much more with a CUDA build of PyTorch, whose libraries are mapped without a GPU, too (torch 2.14)."""

_SAME = 0.05
"""Measurements of the same imports differ by less than this share."""


def measured_bytes(card: str) -> int | None:
    """The CUDA context on cards of that name, None when it was never measured here."""
    return _measured(_cuda_file(), card)


def remember(card: str, size_bytes: int) -> None:
    """Keep a measurement of the CUDA context. Raises StorageError."""
    _remember(_cuda_file(), card, size_bytes)


def imported_bytes() -> tuple[int, bool]:
    """Resident memory of a process that has imported the installed training stack, and whether it was measured here.

    Without a measurement it is what the installed kind of PyTorch build takes.
    """
    measured = _measured(_imports_file(), _installed())
    if measured is not None:
        return measured, True
    return IMPORTED_BYTES + CUDA_BUILD_BYTES * has_cuda_build(), False


def remember_imports(size_bytes: int) -> None:
    """Keep what this process takes after its imports, unless about the same is known. Raises StorageError."""
    known = _measured(_imports_file(), _installed())
    if known is None or abs(size_bytes - known) > _SAME * known:
        _remember(_imports_file(), _installed(), size_bytes)


@cache
def has_cuda_build() -> bool:
    """Whether the installed PyTorch is a CUDA build, judged by its libraries: it is not imported."""
    found = importlib.util.find_spec("torch")
    folders = (found.submodule_search_locations if found is not None else None) or []
    return any(Path(folder, "lib", "libtorch_cuda.so").exists() for folder in folders)


@cache
def _installed() -> str:
    build = "CUDA" if has_cuda_build() else "CPU"
    return ", ".join([f"{name} {version}" for name, version in library_versions().items()] + [f"{build} build"])


def _measured(file: Path, key: str) -> int | None:
    found = _known(file).get(key)
    return found if isinstance(found, int) and found > 0 else None


def _remember(file: Path, key: str, size_bytes: int) -> None:
    atomic.make_folder(file.parent)
    atomic.write_json(file, {**_known(file), key: size_bytes})


def _known(file: Path) -> dict[str, object]:
    try:
        found = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _cuda_file() -> Path:
    return paths.data() / "cuda-context.json"


def _imports_file() -> Path:
    return paths.data() / "imports.json"
