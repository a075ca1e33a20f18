"""From a SourceSpec to files by split: known sets, local files and folders, saved datasets, hub datasets."""

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from qlora_tui import paths
from qlora_tui.config.data import SourceSpec
from qlora_tui.config.model import STARTER
from qlora_tui.data.downloads import Consent, Progress
from qlora_tui.data.files import READABLE, DataFile, has_data_suffix, local_file
from qlora_tui.data.registry import KNOWN, resolved
from qlora_tui.data.splits import Purpose, SplitChoice, choose, split_of, unused_note
from qlora_tui.errors import DataError, NotFoundError, nearest
from qlora_tui.regular_files import read_bytes
from qlora_tui.starter import HELDOUT_DATA, TRAIN_DATA

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_NOT_DATA = {"dataset_infos.json", "dataset_info.json", "state.json", "config.json", "package.json"}
_MAX_FILES = 10_000


@dataclass(frozen=True)
class Source:
    """The files to read, in order."""

    spec: SourceSpec
    """What was asked for, with the mapping of a known set filled in."""

    label: str
    """What messages call the source."""

    files: list[DataFile]
    split: SplitChoice
    commit: str | None = None
    """Hub commit the files belong to; None for local files."""

    notes: list[str] = field(default_factory=list)


def find_source(
    spec: SourceSpec, purpose: Purpose, *, streaming: bool, consent: Consent, on_progress: Progress | None
) -> Source:
    """Find the files of `spec`; hub files are downloaded, unless streamed, once `consent` allows it.

    Raises NotFoundError for a path that does not exist, DataError for an unknown split or config, an empty folder,
    or a hub set that cannot be had.
    """
    if spec.source == STARTER:
        splits = {"train": [local_file(TRAIN_DATA)], "eval": [local_file(HELDOUT_DATA)]}
        return _local(spec, splits, purpose)
    known = KNOWN.get(spec.source)
    path = paths.existing(spec.source) if known is None else None
    if path is not None:
        return _local(spec, _splits_at(path, spec.source), purpose)
    if not is_on_hub(spec.source):
        raise _not_found(spec.source, paths.expanded(spec.source))
    from qlora_tui.data.hub import hub_files

    wanted = spec if known is None else resolved(spec, known)
    found = hub_files(
        wanted,
        purpose,
        data_file=known.data_file if known else None,
        streaming=streaming,
        consent=consent,
        on_progress=on_progress,
    )
    notes = [known.note] if known is not None and known.note else []
    return Source(wanted, spec.source, found.files, found.split, found.commit, [*notes, *found.notes])


def is_on_hub(source: str) -> bool:
    """Whether a source is a hub dataset: a known set, or an id that is not a local path."""
    return hub_id(source) is not None


def hub_id(source: str) -> str | None:
    """The hub dataset that a source is read from; None for the bundled set and for what is a path on this machine."""
    if source == STARTER or source in KNOWN:
        return KNOWN[source].hub_id if source in KNOWN else None
    on_hub = paths.existing(source) is None and _HUB_ID.fullmatch(source) and not has_data_suffix(source)
    return source if on_hub else None


def _local(spec: SourceSpec, splits: dict[str, list[DataFile]], purpose: Purpose) -> Source:
    for name, value in (("revision", spec.revision), ("config", spec.config)):
        if value is not None:
            raise DataError(f"{spec.source} is local, it has no {name} {value!r}", hint=f"Remove data.{name}.")
    only = len(splits) == 1 and spec.split is None
    choice = SplitChoice(next(iter(splits))) if only else choose(spec.split, list(splits), purpose, spec.source)
    return Source(spec, spec.source, splits[choice.name], choice, notes=unused_note(spec.split, choice, list(splits)))


def _splits_at(path: Path, source: str) -> dict[str, list[DataFile]]:
    if path.is_file():
        return {split_of(path.name) or "train": [local_file(path)]}
    if path.is_dir():
        return _folder_splits(path)
    raise DataError(f"{source} is neither a file nor a folder")


def _folder_splits(folder: Path) -> dict[str, list[DataFile]]:
    if (folder / "dataset_dict.json").is_file():
        names = _saved_json(folder / "dataset_dict.json").get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) and (folder / name).is_dir() for name in names):
            raise DataError(f"{folder}: dataset_dict.json does not name the split folders that are there")
        return {name: _saved_files(folder / name, f"{name}/") for name in names}
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return {"train": _saved_files(folder, "")}
    splits: dict[str, list[DataFile]] = {}
    for path in _data_paths(folder):
        name = path.relative_to(folder).as_posix()
        with suppress(FileNotFoundError):  # removed since the folder was listed
            splits.setdefault(split_of(name) or "train", []).append(local_file(path, name))
    if not splits:
        raise DataError(f"{folder} holds no data files", hint=f"Readable: {READABLE}.")
    return splits


def _data_paths(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            hidden = name.startswith((".", "_")) or name in _NOT_DATA or name.lower().startswith(("readme", "license"))
            path = Path(parent, name)
            if not hidden and has_data_suffix(name) and path.is_file():
                found.append(path)
        if len(found) > _MAX_FILES:
            raise DataError(f"{folder} holds more than {_MAX_FILES} data files", hint="Is it the right folder?")
    return found


def _saved_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: is not what a saved dataset writes")
    return content


def _saved_files(folder: Path, prefix: str) -> list[DataFile]:
    """Arrow files of a dataset written by `save_to_disk`, in order."""
    listed = _saved_json(folder / "state.json").get("_data_files") if (folder / "state.json").is_file() else None
    if not isinstance(listed, list):
        raise DataError(f"{folder}: state.json of the saved dataset is missing or damaged")
    files = []
    for entry in listed:
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise DataError(f"{folder}: the saved dataset lacks its file {name!r}")
        files.append(local_file(folder / name, prefix + name, "arrow"))
    return files


def _not_found(source: str, path: Path) -> NotFoundError:
    looks_like_path = os.sep in source or has_data_suffix(source)
    if looks_like_path:
        siblings = [str(path.with_name(name)) for name in _names_in(path.parent)]
        hint = nearest(source, siblings) if siblings else "Known: nothing"
        if paths.existing(str(path.parent)) is None:
            hint = f"There is no folder {path.parent} either."
        return NotFoundError(
            f"no file or folder {source}", hint=hint if "Known" not in hint else f"Looked in {path.parent.absolute()}."
        )
    known = nearest(source, [STARTER, *KNOWN])
    return NotFoundError(
        f"no data source {source!r}",
        hint=f"{known} A hub dataset is written owner/name; `qlora-tui data list` shows the known sets.",
    )


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())[:1000]
    except (OSError, ValueError):
        return []
