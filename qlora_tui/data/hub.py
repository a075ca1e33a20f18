"""Hub datasets: which files are asked for, the question before a download, and the download itself."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from qlora_tui.config.data import SourceSpec
from qlora_tui.data.downloads import Consent, Download, Progress, ask, check_room, counting_bar, offline
from qlora_tui.data.files import READABLE, DataFile, has_data_suffix, local_file
from qlora_tui.data.hub_errors import hub_errors
from qlora_tui.data.hub_plan import DEFAULT_REVISION, Plan, PlannedFile, make_plan
from qlora_tui.data.splits import Purpose, SplitChoice, choose, unused_note
from qlora_tui.errors import DataError
from qlora_tui.units import disk

_NO_ROOM = "Free some space, set HF_HOME to another disk, or stream the data (data.streaming = true)."


@dataclass(frozen=True)
class HubFiles:
    files: list[DataFile]
    split: SplitChoice
    commit: str
    notes: list[str]


def hub_files(
    spec: SourceSpec,
    purpose: Purpose,
    *,
    data_file: str | None,
    streaming: bool,
    consent: Consent,
    on_progress: Progress | None,
) -> HubFiles:
    """Files of a hub dataset's split, on this machine or, when `streaming`, opened on the hub as they are read.

    Raises DataError for a set that does not exist, is gated, needs remote code, has no such config or split, may not
    be downloaded, or is not on this machine when offline; StorageError when the disk has no room.
    """
    plan = make_plan(spec, data_file)
    choice = choose(spec.split, list(plan.splits), purpose, f"{spec.source}, config {plan.config}")
    wanted = plan.splits[choice.name]
    unreadable = [file.path for file in wanted if not has_data_suffix(file.path)]
    if unreadable:
        raise DataError(f"{spec.source}: {unreadable[0]} is not of a kind that is read", hint=f"Readable: {READABLE}.")
    here = {file.path: _cached(spec.source, plan.commit, file.path) for file in wanted}
    missing = [file for file in wanted if here[file.path] is None]
    if missing:
        _agree(spec.source, plan, missing, consent, streaming)
    if missing and not streaming:
        here.update(_download(spec, plan.commit, missing, on_progress))
    files = [_data_file(spec.source, plan.commit, file, here[file.path]) for file in wanted]
    notes = [*plan.notes, *unused_note(spec.split, choice, list(plan.splits))]
    return HubFiles(files, choice, plan.commit, notes)


def _data_file(repo_id: str, commit: str, file: PlannedFile, local: Path | None) -> DataFile:
    if local is not None:
        return local_file(local, file.path)
    return DataFile(file.path, _RemoteOpener(f"datasets/{repo_id}@{commit}/{file.path}", repo_id), file.size_bytes)


@dataclass(frozen=True)
class _RemoteOpener:
    path: str
    repo_id: str

    def __call__(self) -> BinaryIO:
        from huggingface_hub import HfFileSystem

        with hub_errors(self.repo_id):
            return cast(BinaryIO, _RemoteFile(HfFileSystem().open(self.path, "rb"), self.repo_id))


class _RemoteFile(io.RawIOBase):
    """Open a file on the hub. A lost connection raises the same error as a failed one."""

    def __init__(self, file: Any, repo_id: str) -> None:
        self._file, self._repo_id = file, repo_id

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any, /) -> int:
        with hub_errors(self._repo_id):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def _cached(repo_id: str, commit: str, path: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo_id, path, revision=commit, repo_type="dataset")
    return Path(found) if isinstance(found, str) else None


def _agree(repo_id: str, plan: Plan, missing: list[PlannedFile], consent: Consent, streaming: bool) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    sizes = [file.size_bytes for file in missing]
    total = None if None in sizes else sum(number for number in sizes if number is not None)
    names = ", ".join(file.path for file in missing[:3]) + (", ..." if len(missing) > 3 else "")
    if offline():
        raise DataError(
            f"{repo_id} is not complete on this machine and the hub is off (HF_HUB_OFFLINE): missing {names}"
            f" ({disk(total)})",
            hint="Unset HF_HUB_OFFLINE, or copy the files into the hub cache.",
        )
    destination = Path(HF_HUB_CACHE)
    plural = "file" if len(missing) == 1 else "files"
    how = ", read as it comes" if streaming else ""
    what = f"dataset {repo_id} at {plan.commit[:12]} ({len(missing)} {plural}: {names}{how})"
    ask(Download(what, total, destination), consent)
    if not streaming:
        check_room(destination, total, hint=_NO_ROOM)


def _download(
    spec: SourceSpec, commit: str, missing: list[PlannedFile], on_progress: Progress | None
) -> dict[str, Path | None]:
    sizes = [file.size_bytes for file in missing]
    total = None if None in sizes else sum(number for number in sizes if number is not None)
    done_bytes = 0

    def told(arrived: float | None) -> None:
        nonlocal done_bytes
        done_bytes += int(arrived or 0)
        if on_progress is not None:
            on_progress("downloading", done_bytes, total)

    bar = counting_bar(told)
    fetched: dict[str, Path | None] = {}
    for file in missing:
        with hub_errors(spec.source):
            fetched[file.path] = _fetch(spec, commit, file.path, bar)
    return fetched


def _fetch(spec: SourceSpec, commit: str, path: str, bar: Any) -> Path:
    from huggingface_hub import hf_hub_download

    # By branch, not by commit: only then does the cache know what the branch is when the hub is off.
    branch = spec.revision or DEFAULT_REVISION
    fetched = Path(hf_hub_download(spec.source, path, repo_type="dataset", revision=branch, tqdm_class=bar))
    if commit in fetched.parts:
        return fetched
    # The branch has moved since the plan was made.
    return Path(hf_hub_download(spec.source, path, repo_type="dataset", revision=commit, tqdm_class=bar))
