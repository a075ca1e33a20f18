"""Which files of a hub dataset make up each split, asked from the hub and remembered for offline use."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qlora_tui import paths
from qlora_tui.atomic import make_folder, write_json
from qlora_tui.config.data import SourceSpec
from qlora_tui.data.downloads import offline
from qlora_tui.data.hub_errors import DATASETS, hub_errors
from qlora_tui.data.hub_repository import repository
from qlora_tui.data.registry import is_converted
from qlora_tui.errors import DataError, nearest
from qlora_tui.regular_files import read_bytes

DEFAULT_REVISION = "main"
"""Branch of a set whose revision is not given."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class PlannedFile:
    path: str
    """Inside the repository."""

    size_bytes: int | None


@dataclass(frozen=True)
class Plan:
    commit: str
    config: str
    splits: dict[str, list[PlannedFile]]
    notes: list[str] = field(default_factory=list)


def make_plan(spec: SourceSpec, data_file: str | None) -> Plan:
    """The plan of one config, from the hub, or when offline from what is known of it on this machine.

    A commit never changes, so the hub is not asked about one that is known here. Raises DataError when the
    set does not exist, needs remote code or has no such config.
    """
    known = _remembered(spec, data_file) if offline() or _COMMIT.fullmatch(spec.revision or "") else None
    if known is not None:
        return known
    if offline():
        return _from_snapshot(spec, data_file)
    plan = _from_hub(spec, data_file)
    _remember(spec, data_file, plan)
    _remember(spec.model_copy(update={"revision": plan.commit}), data_file, plan)
    return plan


def _from_hub(spec: SourceSpec, data_file: str | None) -> Plan:
    from datasets.load import HubDatasetModuleFactory

    about = repository(spec.source, spec.revision, DATASETS)
    names = list(about.sizes_bytes)
    if data_file is None:
        _refuse_script(spec, names)
    folder = _converted_folder(spec, names)
    factory = HubDatasetModuleFactory(spec.source, about.commit, data_dir=folder, data_files=data_file)
    config, found = _layout(spec, factory, folder)
    prefix = f"hf://datasets/{spec.source}@{about.commit}/"
    return _plan(spec, about.commit, config, found, prefix, about.sizes_bytes)


def _from_snapshot(spec: SourceSpec, data_file: str | None) -> Plan:
    """The plan of what lies in the hub cache; a set that was downloaded by other means."""
    from datasets.load import LocalDatasetModuleFactory
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = Path(
            snapshot_download(spec.source, repo_type="dataset", revision=spec.revision, local_files_only=True)
        )
    except (LocalEntryNotFoundError, OSError) as error:
        raise _nothing_here(spec) from error
    sizes = _sizes_bytes(snapshot)
    folder = _converted_folder(spec, list(sizes))
    factory = LocalDatasetModuleFactory(str(snapshot), data_dir=folder, data_files=data_file)
    config, found = _layout(spec, factory, folder)
    prefix = _prefix(found, snapshot)
    plan = _plan(spec, snapshot.name, config, found, prefix, sizes)
    note = "offline: read from the hub cache as it is; whether it is complete could not be checked"
    return Plan(plan.commit, plan.config, plan.splits, [*plan.notes, note])


def _prefix(found: dict[str, list[str]], snapshot: Path) -> str:
    """What stands before the repository path in local file names, which may have links resolved."""
    names = [name for files in found.values() for name in files]
    return f"{snapshot}/" if all(name.startswith(f"{snapshot}/") for name in names) else f"{snapshot.resolve()}/"


def _nothing_here(spec: SourceSpec) -> DataError:
    return DataError(
        f"dataset {spec.source} is not on this machine and the hub is off (HF_HUB_OFFLINE)",
        hint="Unset HF_HUB_OFFLINE to download it, or use a local file.",
    )


def _refuse_script(spec: SourceSpec, names: list[str]) -> None:
    script = spec.source.rpartition("/")[2] + ".py"
    if script in names:
        raise DataError(
            f"dataset {spec.source} is a Python script ({script}), which is never run",
            hint='Use the hub\'s converted copy with data.revision = "refs/convert/parquet" (and data.config), or'
            " convert the set once by other means and give the file.",
        )


def _sizes_bytes(folder: Path) -> dict[str, int | None]:
    """Sizes of the files below a folder, by relative name. Files removed meanwhile and broken links are left out."""
    found: dict[str, int | None] = {}
    for path in folder.rglob("*"):
        with suppress(OSError):
            found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found


def _converted_folder(spec: SourceSpec, names: list[str]) -> str | None:
    """The folder of the config on the hub's branch of converted copies, where each config has one."""
    if not is_converted(spec):
        return None
    folders = sorted({name.partition("/")[0] for name in names if "/" in name})
    if spec.config is None and len(folders) == 1:
        return folders[0]
    if spec.config not in folders:
        problem = "has several configs" if spec.config is None else f"has no config {spec.config!r}; its configs"
        raise DataError(f"dataset {spec.source} {problem}: {', '.join(folders)}", hint="Choose one with data.config.")
    return spec.config


def _layout(spec: SourceSpec, factory: Any, folder: str | None) -> tuple[str, dict[str, list[str]]]:
    """Name of the config that is meant, and its file names by split."""
    from datasets import DownloadConfig
    from datasets.data_files import DataFilesPatternsDict, EmptyDatasetError

    try:
        with hub_errors(spec.source):
            module = factory.get_module()
            parameters = module.builder_configs_parameters
            configs = parameters.builder_configs
            config = configs[0] if folder else _config(spec, configs, parameters.default_config_name)
            files = config.data_files
            if isinstance(files, DataFilesPatternsDict):
                base = module.builder_kwargs["base_path"]
                base = f"{base}/{config.data_dir}" if config.data_dir else base
                files = files.resolve(base, DownloadConfig())
    except (EmptyDatasetError, FileNotFoundError, ValueError) as error:
        raise DataError(
            f"dataset {spec.source}: no data files are found in it: {str(error).splitlines()[0]}",
            hint="Unset HF_HUB_OFFLINE: not all of it is on this machine."
            if offline()
            else "Does it hold text? Sets of images or sound are not read.",
        ) from error
    return folder or str(config.name), {
        str(split): [str(name) for name in names] for split, names in (files or {}).items()
    }


def _config(spec: SourceSpec, configs: list[Any], default: str | None) -> Any:
    by_name = {str(config.name): config for config in configs}
    if spec.config is not None:
        if spec.config not in by_name:
            raise DataError(
                f"dataset {spec.source} has no config {spec.config!r}; its configs: {', '.join(by_name)}",
                hint=nearest(spec.config, list(by_name)),
            )
        return by_name[spec.config]
    if default in by_name:
        return by_name[default]
    if len(configs) > 1:
        first = next(iter(by_name))
        raise DataError(
            f"dataset {spec.source} has several configs: {', '.join(by_name)}",
            hint=f'Choose one: data.config = "{first}".',
        )
    return configs[0]


def _plan(
    spec: SourceSpec,
    commit: str,
    config: str,
    found: dict[str, list[str]],
    prefix: str,
    sizes: Mapping[str, int | None],
) -> Plan:
    splits: dict[str, list[PlannedFile]] = {}
    for split, names in found.items():
        for name in names:
            if not name.startswith(prefix) or "::" in name:
                raise DataError(f"dataset {spec.source}: file {name} lies inside an archive", hint="Unpack it first.")
            path = name.removeprefix(prefix)
            splits.setdefault(split, []).append(PlannedFile(path, sizes.get(path)))
    if not splits:
        raise DataError(f"dataset {spec.source}: no data files are found in it")
    return Plan(commit, config, splits)


def _memory(spec: SourceSpec, data_file: str | None) -> Path:
    key = json.dumps([spec.source, spec.revision or DEFAULT_REVISION, spec.config, data_file])
    return paths.cache() / "hub" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _remember(spec: SourceSpec, data_file: str | None, plan: Plan) -> None:
    path = _memory(spec, data_file)
    make_folder(path.parent)
    write_json(path, asdict(plan))


def _remembered(spec: SourceSpec, data_file: str | None) -> Plan | None:
    try:
        stored = json.loads(read_bytes(_memory(spec, data_file)))
        splits = {split: [PlannedFile(**file) for file in files] for split, files in stored["splits"].items()}
        return Plan(stored["commit"], stored["config"], splits, stored["notes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
