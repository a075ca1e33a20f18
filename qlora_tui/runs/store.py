"""A run is a folder: where its files are, how it is created whole, and which names are legal."""

import errno
import os
import re
import shutil
import tempfile
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlora_tui import atomic, paths
from qlora_tui.config import toml_file
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError, NotFoundError, RunConflictError, StorageError, UsageError, nearest
from qlora_tui.regular_files import UnsuitableFileError, read_bytes
from qlora_tui.runs import checksums

LONGEST_NAME = 80
"""Maximum number of characters in the name of a run."""

_RUN_COMMENT = "The frozen configuration of this run."
_GRAVE = ".removing-"


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
    def heartbeat(self) -> Path:
        """Names the current worker, which touches it while it makes progress."""
        return self.path / "heartbeat"

    @property
    def reserve(self) -> Path:
        """Room for the last event on a full disk: there while a worker lives."""
        return self.path / ".reserve"

    @property
    def stdio(self) -> Path:
        return self.path / "stdio.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Metrics of a finished run, with the names of qlora.py."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """The finished run's answers to evaluation rows."""
        return self.path / "predictions.jsonl"

    @property
    def pissa_initial(self) -> Path:
        """What a PiSSA adapter started from, once that is decided."""
        return self.path / "pissa-initial"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def chats(self) -> Path:
        return self.path / "chats"

    def load_config(self) -> RunConfig:
        """The frozen configuration. Raises ConfigError when run.toml was damaged and plan.json has no copy of it."""
        try:
            self.check_config()
        except (checksums.DamagedError, UnsuitableFileError) as error:
            if (copy := self._config_copy()) is not None:
                return copy
            raise ConfigError(
                f"{self.config} is damaged: {checksums.reason(error)}",
                hint="Restore it from a backup. If you edited it yourself, remove the checksum in its last line.",
            ) from error
        except OSError:
            pass  # reported by `load`
        return toml_file.load(self.config)

    def check_config(self) -> None:
        """Raise DamagedError when run.toml is not as it was written; UnsuitableFileError, OSError.

        Cut off at the end of a line it is another configuration, which only the copy in plan.json can tell.
        """
        content = read_bytes(self.config)
        if not checksums.check_text(content) and (copy := self._config_copy()) is not None:
            checksums.check_whole(content, _written(RunConfig.model_validate(copy.model_dump(exclude_defaults=True))))

    def _config_copy(self) -> RunConfig | None:
        """Return the copy of the configuration in plan.json; None if it is damaged or missing."""
        with suppress(OSError, ValueError, KeyError):
            return RunConfig.model_validate(checksums.read_json(self.plan)["config"])
        return None


def _written(config: RunConfig) -> str:
    """The lines of run.toml that hold `config`."""
    return toml_file.to_toml(config, comment=_RUN_COMMENT)


def check_name(name: str) -> str:
    """`name` if it is a legal run name. Raises UsageError."""
    if not paths.is_name(name, LONGEST_NAME):
        raise UsageError(
            f"{name!r} is not a legal run name",
            hint=f"Use up to {LONGEST_NAME} letters, digits, dots, dashes and underscores, starting with a letter or "
            "digit.",
        )
    return name


def check_free(name: str) -> None:
    """Raise UsageError for an illegal name, RunConflictError for one that is taken."""
    check_name(name)
    if os.path.lexists(paths.runs() / name):
        raise _taken(name)


def _taken(name: str) -> RunConflictError:
    return RunConflictError(
        f"a run named {name!r} exists already",
        hint="Choose another --name, or move that run to the bin first with --replace.",
    )


def free_name(stem: str) -> str:
    """The first of `stem-1`, `stem-2`, ... that no run has."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:60] or "run"
    root = paths.runs()
    number = 1
    while os.path.lexists(root / f"{clean}-{number}"):
        number += 1
    return f"{clean}-{number}"


def create(name: str, config: RunConfig, plan: dict[str, Any]) -> RunFolder:
    """Make the folder of a new run, complete or not at all.

    Raises UsageError for an illegal name, RunConflictError when the name is taken, StorageError when the runs folder
    cannot be written.
    """
    check_name(name)
    root = paths.runs()
    atomic.make_folder(root)
    with atomic.storage_errors(root):
        draft = Path(tempfile.mkdtemp(prefix=".creating-", dir=root))
    try:
        text = checksums.with_checksum(_written(config))
        atomic.write_text(draft / "run.toml", text)
        checksums.write_json(draft / "plan.json", {**plan, "config": config.model_dump(mode="json")})
        target = root / name
        with atomic.storage_errors(target):
            _rename(draft, target)
            atomic.fsync_folder(root)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return RunFolder(target)


def _rename(draft: Path, target: Path) -> None:
    """Give a new run its name, unless something else got it first. Raises RunConflictError, OSError."""
    try:
        draft.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise _taken(target.name) from error


def find(name: str) -> RunFolder:
    """The run with this name, however its accents are encoded. Raises UsageError, NotFoundError with the nearest."""
    check_name(name)
    folder = RunFolder(paths.runs() / name)
    if not folder.config.exists():
        wanted = unicodedata.normalize("NFC", name)
        for run in () if name.isascii() else all_runs():
            if unicodedata.normalize("NFC", run.name) == wanted:
                return run
        known = [run.name for run in all_runs()]
        hint = nearest(name, known) if known else "There are no runs yet; `qlora-tui train starter` makes one."
        raise NotFoundError(f"no run named {name!r} in {paths.runs()}", hint=hint)
    return folder


def all_runs() -> list[RunFolder]:
    """Every run, newest first."""
    return [run for run in _folders() if paths.is_name(run.name, LONGEST_NAME)]


def unusable_names() -> list[str]:
    """Return the names of run folders that were renamed to an illegal name, newest first."""
    return [run.name for run in _folders() if not paths.is_name(run.name, LONGEST_NAME)]


def _folders() -> list[RunFolder]:
    """Return the folders with a configuration, newest first. Hidden folders are drafts and the bin."""
    root = paths.runs()
    if not root.is_dir():
        return []
    made_s: dict[RunFolder, float] = {}
    for path in root.iterdir():
        run = RunFolder(path)
        with suppress(OSError):  # no run, or one that is removed in this moment
            if not path.name.startswith("."):
                made_s[run] = run.config.stat().st_mtime
    return sorted(made_s, key=lambda run: made_s[run], reverse=True)


def remove(run: RunFolder) -> None:
    """Delete a run's folder: renamed out of sight first, so it is never half there. Raises StorageError."""
    with atomic.storage_errors(run.path):
        grave = Path(tempfile.mkdtemp(prefix=_GRAVE, dir=run.path.parent))
        run.path.rename(grave / run.name)
    for left in run.path.parent.glob(f"{_GRAVE}*"):  # this one, and what an interrupted removal has left
        shutil.rmtree(left, ignore_errors=True)
    if grave.exists():
        raise StorageError(f"could not delete all of {grave}", hint="Check the folder's permissions.")


def size_bytes(run: RunFolder) -> int:
    """Bytes on disk of everything in the run's folder, to which a worker may be adding and from which deleting."""
    total = 0
    for path in run.path.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
