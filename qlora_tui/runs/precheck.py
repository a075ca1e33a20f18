"""Cheap checks of a run before any download, which would otherwise fail after downloading gigabytes."""

import importlib.util
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from qlora_tui import hardware, paths
from qlora_tui.config.data import SourceSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.data.downloads import Download, check_room
from qlora_tui.errors import EnvironmentProblem, ModelError, QloraError, StorageError
from qlora_tui.units import disk

_READ_ROWS = 20
_OPTIMIZER_BYTES = 8
"""Optimizer state per trained weight in a checkpoint: two float32 moments."""


def check_trackers(names: Iterable[str]) -> None:
    """Raise EnvironmentProblem for a tracker that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise EnvironmentProblem(
                f"training.trackers names {name}, which is not installed",
                hint=f"Install it with `pip install {name}`, or remove it from training.trackers.",
            )


def check_module_names(config: RunConfig) -> None:
    """Refuse names in the adapter's settings that match no module of the model, if its architecture is known here.

    Nothing is asked on the hub. Raises ConfigError.
    """
    from qlora_tui.memory.module_names import of_facts, refuse_misnamed
    from qlora_tui.models import describe

    try:
        modules = of_facts(describe(config.model.id, config.model.revision, network=False))
    except ModelError:
        return
    if modules is not None:
        refuse_misnamed(config, modules)


def check(config: RunConfig, downloads: Sequence[Download]) -> None:
    """Refuse a run that cannot train after its downloads.

    Raises DataError or NotFoundError for local rows that cannot be read, StorageError when the downloads or the
    checkpoints do not fit on the disk.
    """
    for spec in _local_sources(config):
        _read_some(spec)
    _check_room(downloads)
    _check_checkpoints(config)


def _local_sources(config: RunConfig) -> list[SourceSpec]:
    from qlora_tui.data.sources import is_on_hub

    named = [config.data, *config.data.mix, config.data.eval_spec]
    return [spec for spec in named if spec is not None and not is_on_hub(spec.source)]


def _read_some(spec: SourceSpec) -> None:
    """Detect the format and read the first rows. Bad rows are left to the run."""
    from qlora_tui.data.load import read_rows

    for _ in islice(read_rows(spec, skip_bad_rows=True, streaming=True).rows, _READ_ROWS):
        pass


def _check_room(downloads: Sequence[Download]) -> None:
    for destination in {download.destination for download in downloads}:
        sizes = [each.size_bytes for each in downloads if each.destination == destination]
        known_bytes = sum(number for number in sizes if number is not None)
        check_room(destination, known_bytes, hint="Free some space, or set HF_HOME to another disk.")


def _check_checkpoints(config: RunConfig) -> None:
    from qlora_tui.memory import device
    from qlora_tui.memory.estimate import estimate
    from qlora_tui.models import describe

    try:
        facts = describe(config.model.id, config.model.revision, network=False)
        trainable = estimate(config, facts, device.host(hardware.snapshot())).trainable_parameters
    except QloraError:  # too little is known without the hub's files: the worker checks once the model is loaded
        return
    item_bytes = 2 if config.model.dtype in ("bfloat16", "float16") else 4
    check_disk(paths.runs(), trainable, trainable * item_bytes, config.training.keep_checkpoints)


def check_disk(
    folder: Path, trainable: int, trainable_bytes: int, keep_checkpoints: int, *, there_bytes: int = 0
) -> None:
    """Raise StorageError when the checkpoints to be kept, one more and the adapter do not fit on the disk of `folder`.

    `there_bytes`: size of existing checkpoints.
    """
    checkpoint_bytes = trainable_bytes + trainable * _OPTIMIZER_BYTES
    need_bytes = checkpoint_bytes * (keep_checkpoints + 1) + trainable_bytes - there_bytes
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = hardware.free_disk_bytes(existing)
    if free_bytes < need_bytes:
        raise StorageError(
            f"{folder} has {disk(free_bytes)} free, but the checkpoints need up to {disk(need_bytes)}",
            hint="Free some space, lower training.keep_checkpoints, or set QLORA_TUI_RUNS to another disk.",
        )
