"""Fetching a hub model into the hub cache. Whether it may be fetched is asked before."""

from collections.abc import Callable
from pathlib import Path

from qlora_tui.data.downloads import check_room, counting_bar
from qlora_tui.models.hub import MissingFiles, hub_errors

Arrived = Callable[[int], None]
"""Told how many bytes have arrived since the start, all files together."""

_NO_ROOM = "Free some space, or set HF_HOME to another disk."


def download(missing: MissingFiles, on_progress: Arrived | None = None) -> Path:
    """Fetch the missing files and return the folder of the model.

    Complete files are kept when a download is interrupted, and the next download continues with the others; within a
    file the hub library continues after a lost connection. Raises ModelError, or StorageError when the disk is full.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    check_room(Path(HF_HUB_CACHE), missing.total_bytes, hint=_NO_ROOM)
    done_bytes = 0

    def told(arrived_bytes: float | None) -> None:
        nonlocal done_bytes
        done_bytes += int(arrived_bytes or 0)
        if on_progress is not None:
            on_progress(done_bytes)

    bar = counting_bar(told)
    folder = Path(HF_HUB_CACHE)
    for name in missing.sizes_bytes:
        with hub_errors(missing.repo_id):
            # By branch, not by commit: only then does the cache know what the branch is when the hub is off.
            path = hf_hub_download(missing.repo_id, name, revision=missing.revision, tqdm_class=bar)
        folder = Path(path).parents[name.count("/")]
    return folder
