"""Where a model is looked for: the bundled folder, a local one, the hub cache, the hub."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qlora_tui.config.model import STARTER, ModelSpec
from qlora_tui.data.hub_repository import well_formed
from qlora_tui.errors import ModelError
from qlora_tui.models.assemble import Source
from qlora_tui.models.facts import Origin
from qlora_tui.models.folder import (
    WEIGHTS,
    WEIGHTS_INDEX,
    check_config,
    parse_config,
    parse_index,
    pickled_weights,
    read_config,
    stored_tensors,
    unreadable,
    weight_files,
)
from qlora_tui.models.hub import MODELS, about, content, hub_errors, snapshot, wanted_files
from qlora_tui.models.tensors import Tensors, stored

_CONNECTIONS = 8


def from_folder(path: Path, spec: ModelSpec) -> Source:
    """A local folder or the bundled model. Raises ModelError for anything that is no base model."""
    config = read_config(path)
    check_config(config, path)
    origin: Origin = "bundled" if spec.id == STARTER else "folder"
    return _from_files(path, config, spec.id, origin)


def from_cache(spec: ModelSpec) -> Source | None:
    """A model of which config.json is in the hub cache. Its tensors are None while weights are missing."""
    folder = snapshot(spec)
    if folder is None:
        return None
    config = read_config(folder)
    check_config(config, spec.id)
    try:
        weight_files(folder)
    except ModelError:
        return Source(spec.id, "cache", config, None, folder.name)
    return _from_files(folder, config, spec.id, "cache", folder.name)


def _from_files(path: Path, config: dict[str, Any], name: str, origin: Origin, revision: str | None = None) -> Source:
    files = weight_files(path)
    pickled = [] if files else pickled_weights(path)
    with unreadable(path):
        checkpoint_bytes = sum(file.stat().st_size for file in files or pickled)
    return Source(
        id=name,
        origin=origin,
        config=config,
        tensors=stored_tensors(path) if files else None,
        revision=revision,
        checkpoint_bytes=checkpoint_bytes or None,
        licence=card_licence(path / "README.md"),
        notes=_weights_note(bool(files), bool(pickled)),
    )


def from_hub(spec: ModelSpec) -> Source:
    """A model on the hub, by its config.json and the headers of its weights: some kilobytes, nothing stored.

    Raises ModelError when it does not exist, is gated, is no base model, or the hub cannot be reached.
    """
    found = about(spec)
    sizes = {name: size or 0 for name, size in found.sizes_bytes.items()}
    wanted = wanted_files(list(sizes), spec.model_copy(update={"allow_pickle": True}))
    commit = found.commit
    config = parse_config(content(spec.id, "config.json", commit), f"config.json of {spec.id}")
    check_config(config, spec.id)
    weights = _remote_weights(spec.id, list(sizes), commit)
    pickled = [name for name in wanted if name.endswith(".bin")]
    if not weights and not pickled:
        raise ModelError(f"model {spec.id} has no weights that can be loaded", hint="Give a transformers model.")
    return Source(
        id=spec.id,
        origin="hub",
        config=config,
        tensors=_remote_tensors(spec.id, weights, commit) if weights else None,
        revision=commit,
        checkpoint_bytes=sum(sizes[name] for name in weights or pickled),
        download_bytes=sum(sizes[name] for name in wanted),
        licence=found.licence,
        gated=found.gated,
        notes=_weights_note(bool(weights), bool(pickled)),
    )


def _remote_weights(repo_id: str, names: list[str], commit: str) -> list[str]:
    if WEIGHTS in names:
        return [WEIGHTS]
    if WEIGHTS_INDEX in names:
        shards = sorted(parse_index(content(repo_id, WEIGHTS_INDEX, commit), f"{WEIGHTS_INDEX} of {repo_id}"))
        missing = [name for name in shards if name not in names]
        if missing:
            raise ModelError(
                f"model {repo_id} lacks {len(missing)} of {len(shards)} weight files, first {missing[0]}",
                hint="Its upload is incomplete: choose another revision or another copy of the model.",
            )
        return shards
    return []


def _remote_tensors(repo_id: str, files: list[str], commit: str) -> Tensors:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import SafetensorsParsingError

    def header(name: str) -> dict[str, Any]:
        with well_formed(repo_id, MODELS), hub_errors(repo_id):
            try:
                return dict(HfApi().parse_safetensors_file_metadata(repo_id, name, revision=commit).tensors)
            except SafetensorsParsingError as error:
                raise ModelError(f"{name} of {repo_id} is damaged: {error}", hint="Choose another revision.") from error

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        headers = list(pool.map(header, files))
    return {name: stored(info.shape, info.dtype) for tensors in headers for name, info in tensors.items()}


def _weights_note(safetensors: bool, pickled: bool) -> tuple[str, ...]:
    if safetensors:
        return ()
    if not pickled:
        return ("The folder has no weights, so the model cannot be trained.",)
    return ("The weights are stored as pickle: loading them needs model.allow_pickle = true.",)


def card_licence(card: Path) -> str | None:
    """Return the licence in a model card's metadata; None without a readable card."""
    if not card.is_file():
        return None
    from huggingface_hub import metadata_load

    try:
        card_data = metadata_load(card) or {}
    except (OSError, ValueError):
        return None
    named = card_data.get("license_name") or card_data.get("license")
    return named if isinstance(named, str) else None
