"""What of a hub model is missing on this machine, and what the hub says when it cannot be had."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from qlora_tui.config.model import ModelSpec
from qlora_tui.data.downloads import Download, offline
from qlora_tui.data.hub_errors import Repositories
from qlora_tui.data.hub_errors import hub_errors as translated
from qlora_tui.data.hub_repository import Repository, repository
from qlora_tui.errors import ModelError
from qlora_tui.models import untrainable
from qlora_tui.models.folder import PICKLED, WEIGHTS, WEIGHTS_INDEX, no_config, refuse_quantized
from qlora_tui.models.location import local_folder
from qlora_tui.regular_files import read_text


class GatedModelError(ModelError):
    """The model exists, but its owner lets in only those who accepted its conditions."""


class MissingModelError(ModelError):
    """The hub has no such model, or does not show it."""


class HubUnreachableError(ModelError):
    """The hub cannot be asked: no connection, or it is switched off."""


MODELS = Repositories(
    noun="model",
    pages="",
    error=ModelError,
    missing=MissingModelError,
    gated=GatedModelError,
    unreachable=HubUnreachableError,
    no_id="is neither a folder nor a hub id",
    without_network="a model that is complete in the hub cache needs none.",
)

_TEXT_FILES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_PICKLES_INDEX = "pytorch_model.bin.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class MissingFiles:
    """Files of a hub model that loading reads and that are not on this machine."""

    repo_id: str
    revision: str | None
    """As it was asked for; None for the default branch."""

    commit: str
    sizes_bytes: Mapping[str, int | None]
    """By name; None where the hub does not say."""

    @property
    def total_bytes(self) -> int | None:
        sizes = list(self.sizes_bytes.values())
        return None if None in sizes else sum(size for size in sizes if size is not None)


def missing_download(spec: ModelSpec) -> Download | None:
    """What would have to be downloaded before the model can be loaded; None for a local or complete one.

    Raises as `missing_files`.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    missing = missing_files(spec)
    if missing is None:
        return None
    plural = "file" if len(missing.sizes_bytes) == 1 else "files"
    what = f"model {spec.id} at {missing.commit[:12]} ({len(missing.sizes_bytes)} {plural})"
    return Download(what, missing.total_bytes, Path(HF_HUB_CACHE))


def missing_files(spec: ModelSpec) -> MissingFiles | None:
    """The files that a download would fetch; None for a local or complete model.

    A model that is complete in the hub cache is not asked for on the hub. Raises ModelError when the model does not
    exist, is gated, is no base model, cannot be reached, or is missing while the hub is off.
    """
    if local_folder(spec) is not None or is_complete(spec):
        return None
    if offline():
        raise HubUnreachableError(
            f"model {spec.id} is not complete on this machine and the hub is off (HF_HUB_OFFLINE)",
            hint="Unset HF_HUB_OFFLINE, copy the model into the hub cache, or give a local folder.",
        )
    found = about(spec)
    sizes = found.sizes_bytes
    wanted = wanted_files(list(sizes), spec)
    refuse_quantized(found.config, spec.id)
    untrainable.refuse(found.config, f"model {spec.id}")
    if found.gated:
        _check_access(spec.id, found.commit)
    missing = {name: sizes[name] for name in wanted if _cached(spec, name, found.commit) is None}
    return MissingFiles(spec.id, spec.revision, found.commit, missing) if missing else None


def about(spec: ModelSpec) -> Repository:
    """Query the hub about a model. Raises ModelError."""
    return repository(spec.id, spec.revision, MODELS)


def _check_access(repo_id: str, commit: str) -> None:
    """Ask for one file of a gated model: its description is public, its files are not. Raises ModelError."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with hub_errors(repo_id):
        get_hf_file_metadata(hf_hub_url(repo_id, "config.json", revision=commit))


def content(repo_id: str, name: str, commit: str) -> bytes:
    """A small file of a hub model, not stored here. Raises ModelError."""
    from huggingface_hub import hf_hub_url

    return ask(hf_hub_url(repo_id, name, revision=commit), repo_id)


def ask(address: str, about: str, **parameters: str | int | list[str]) -> bytes:
    """Send one request to the hub, without retries. Raises ModelError about `about`, also for a lost connection."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    with hub_errors(about):
        response = get_session().get(address, params=parameters, headers=build_hf_headers())
        hf_raise_for_status(response)
        return bytes(response.content)


def wanted_files(names: list[str], spec: ModelSpec) -> list[str]:
    """The files of a repository that loading reads. Raises ModelError when it is no model that can be loaded."""
    if "config.json" not in names:
        raise no_config(names, f"model {spec.id}")
    weights = [name for name in names if name.startswith("model") and name.endswith(".safetensors")]
    if WEIGHTS in weights:
        weights = [WEIGHTS]
    index = WEIGHTS_INDEX if weights else _PICKLES_INDEX
    if not weights:
        weights = [name for name in names if name.startswith(PICKLED) and name.endswith(".bin")]
        if weights and not spec.allow_pickle:
            raise ModelError(
                f"model {spec.id} has its weights only as pickle ({weights[0]}), which is read only on request",
                hint="Choose a model with safetensors, or --set model.allow_pickle=true: only tensors are read.",
            )
    if not weights:
        raise ModelError(f"model {spec.id} has no weights that can be loaded", hint="Give a transformers model.")
    kinds = (*_TEXT_FILES, ".py") if spec.trust_remote_code else _TEXT_FILES
    others = [name for name in names if "/" not in name and name.endswith(kinds)]
    other_indexes = {name for name in others if name.endswith(".index.json") and name != index}
    return [*weights, *(name for name in others if name not in other_indexes)]


def is_complete(spec: ModelSpec) -> bool:
    """Whether configuration, tokenizer and all weights are in the hub cache."""
    if _cached(spec, "config.json") is None or all(_cached(spec, name) is None for name in _TOKENIZERS):
        return False
    if _is_whole(spec, WEIGHTS, WEIGHTS_INDEX):
        return True
    return spec.allow_pickle and _is_whole(spec, f"{PICKLED}.bin", _PICKLES_INDEX)


def _is_whole(spec: ModelSpec, single: str, index_name: str) -> bool:
    """Whether weights are in the hub cache as one file, or as all the shards of an index."""
    if _cached(spec, single) is not None:
        return True
    index = _cached(spec, index_name)
    if index is None:
        return False
    try:
        shards = set(json.loads(read_text(index))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False
    return all(isinstance(shard, str) and _cached(spec, shard) is not None for shard in shards)


def snapshot(spec: ModelSpec) -> Path | None:
    """The folder of a model in the hub cache, complete or not; None without its config.json."""
    config = _cached(spec, "config.json")
    return config.parent if config is not None else None


def _cached(spec: ModelSpec, name: str, commit: str | None = None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    with hub_errors(spec.id):
        found = try_to_load_from_cache(spec.id, name, revision=commit or spec.revision)
    return Path(found) if isinstance(found, str) else None


def hub_errors(repo_id: str) -> AbstractContextManager[None]:
    """Turn the errors of huggingface_hub and the network into a ModelError about `repo_id`."""
    return translated(repo_id, MODELS)
