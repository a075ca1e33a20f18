"""Labels that the user sets on a run: its name and tags."""

import json
import re

from qlora_tui import atomic
from qlora_tui.errors import RunConflictError, UsageError
from qlora_tui.regular_files import read_text
from qlora_tui.runs import jobs, queue, store
from qlora_tui.runs.store import RunFolder

FILE = "tags.json"
_TAG = re.compile(r"[\w.+-]{1,40}")


def tags(run: RunFolder) -> tuple[str, ...]:
    """The run's tags; a file that is none has none."""
    try:
        found = json.loads(read_text(run.path / FILE))
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(tag for tag in found if isinstance(tag, str)) if isinstance(found, list) else ()


def set_tags(run: RunFolder, wanted: list[str]) -> None:
    """Replace the run's tags. Raises UsageError naming a tag that is not one word, StorageError."""
    for tag in wanted:
        if not _TAG.fullmatch(tag):
            raise UsageError(f"{tag!r} is not a tag", hint="Use letters, digits, dots, dashes, plus and underscores.")
    atomic.write_json(run.path / FILE, list(dict.fromkeys(wanted)))


def rename(run: RunFolder, name: str) -> RunFolder:
    """Give the run another name, which is that of its folder and of its place in the queue.

    Raises UsageError for an illegal name, RunConflictError when it is taken or the run is alive, StorageError.
    """
    store.check_name(name)
    target = run.path.with_name(name)
    with jobs.hold(run), queue.renaming(run.name, name):
        if target.exists():
            raise RunConflictError(f"a run named {name!r} exists already", hint="Choose another name.")
        with atomic.storage_errors(target):
            run.path.rename(target)
            atomic.fsync_folder(target.parent)
    return RunFolder(target)
