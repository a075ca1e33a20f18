"""A run is a folder: where its files are, how it is created whole, and which names are legal."""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlora_tui import atomic, paths
from qlora_tui.config import toml_file
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import NotFoundError, RunConflictError, StorageError, UsageError, nearest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_RUN_COMMENT = "The frozen configuration of this run."


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside one run's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "run.toml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def control(self) -> Path:
        return self.path / "control.jsonl"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def stdio(self) -> Path:
        return self.path / "stdio.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def chats(self) -> Path:
        return self.path / "chats"

    def load_config(self) -> RunConfig:
        """The frozen configuration. Raises ConfigError when run.toml was damaged."""
        return toml_file.load(self.config)


def check_name(name: str) -> str:
    """`name` if it is a legal run name. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a legal run name",
            hint="Use up to 80 letters, digits, dots, dashes and underscores, starting with a letter or digit.",
        )
    return name


def free_name(stem: str) -> str:
    """The first of `stem-1`, `stem-2`, ... that no run has."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:60] or "run"
    root = paths.runs()
    number = 1
    while (root / f"{clean}-{number}").exists():
        number += 1
    return f"{clean}-{number}"


def create(name: str, config: RunConfig, plan: dict[str, Any]) -> RunFolder:
    """Make the folder of a new run, complete or not at all.

    Raises UsageError for an illegal name, RunConflictError when the name is taken, StorageError when the runs folder
    cannot be written.
    """
    check_name(name)
    root = paths.runs()
    with atomic.storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".creating-", dir=root))
    try:
        draft.chmod(0o755)
        atomic.write_text(draft / "run.toml", toml_file.to_toml(config, comment=_RUN_COMMENT))
        atomic.write_json(draft / "plan.json", plan)
        target = root / name
        if target.exists():
            raise RunConflictError(
                f"a run named {name!r} exists already", hint=f"Choose another --name, or `qlora-tui runs rm {name}`."
            )
        with atomic.storage_errors(target):
            draft.rename(target)
            atomic.fsync_folder(root)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return RunFolder(target)


def find(name: str) -> RunFolder:
    """The run with this name. Raises NotFoundError naming the nearest run."""
    check_name(name)
    folder = RunFolder(paths.runs() / name)
    if not folder.config.is_file():
        known = [run.name for run in all_runs()]
        hint = nearest(name, known) if known else "There are no runs yet; `qlora-tui train starter` makes one."
        raise NotFoundError(f"no run named {name!r} in {paths.runs()}", hint=hint)
    return folder


def all_runs() -> list[RunFolder]:
    """Every run, newest first."""
    root = paths.runs()
    if not root.is_dir():
        return []
    found = [RunFolder(path) for path in root.iterdir() if not path.name.startswith(".")]
    found = [run for run in found if run.config.is_file()]
    return sorted(found, key=lambda run: run.config.stat().st_mtime, reverse=True)


def remove(run: RunFolder) -> None:
    """Delete a run's folder: renamed out of sight first, so it is never half there. Raises StorageError."""
    grave = run.path.with_name(f".removing-{run.name}")
    with atomic.storage_errors(run.path):
        run.path.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)
    if grave.exists():
        raise StorageError(f"could not delete all of {grave}", hint="Check the folder's permissions.")


def size_bytes(run: RunFolder) -> int:
    """Bytes on disk of everything in the run's folder."""
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
