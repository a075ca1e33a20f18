"""What a download is, and who says yes to it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlora_tui.errors import DataError, StorageError
from qlora_tui.units import disk


@dataclass(frozen=True)
class Download:
    what: str
    """Such as "dataset tatsu-lab/alpaca at 1a2b3c4 (1 file)"."""

    size_bytes: int | None
    """None: the server does not say."""

    destination: Path


Consent = Callable[[Download], bool]
"""Asked before anything is downloaded."""

Progress = Callable[[str, int, int | None], None]
"""Told (stage, done, total or None) while something takes long; in bytes where a file is read."""


def ask(download: Download, consent: Consent) -> None:
    """Raises DataError that names size and destination unless `consent` says yes."""
    if consent(download):
        return
    raise DataError(
        f"{download.what} is not on this machine: {disk(download.size_bytes)} would be downloaded"
        f" to {download.destination}",
        hint="Allow the download with --yes.",
    )


def offline() -> bool:
    """Whether the hub must not be asked, by the rule of huggingface_hub 2.4."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.strip().upper() in {"1", "ON", "YES", "TRUE"}


def check_room(destination: Path, total_bytes: int | None, *, hint: str) -> None:
    """Raise StorageError if the disk of `destination` has less than `total_bytes` free. None: unknown, not checked."""
    existing = next((folder for folder in (destination, *destination.parents) if folder.is_dir()), None)
    if existing is None or total_bytes is None:
        return
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < total_bytes:
        raise StorageError(
            f"no room for the download: {disk(total_bytes)} needed, {disk(free_bytes)} free in {existing}", hint=hint
        )


def counting_bar(told: Callable[[float | None], None]) -> Any:
    """A progress bar for the hub library that draws nothing and reports every piece, in bytes."""
    from huggingface_hub.utils.tqdm import tqdm

    class Told(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            told(n)
            return None

    return Told
