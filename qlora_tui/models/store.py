"""The models in the hub cache: what is there, how large, and its removal."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qlora_tui.config.model import ModelSpec
from qlora_tui.errors import NotFoundError, StorageError, UsageError, nearest
from qlora_tui.models.hub import is_complete
from qlora_tui.models.location import local_folder

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo


@dataclass(frozen=True)
class StoredModel:
    id: str
    path: Path
    size_bytes: int
    """On disk; files that revisions share count once."""

    revisions: tuple[str, ...]
    """Commits, the newest first."""

    complete: bool
    """Whether one of the revisions can be loaded without the hub."""

    last_used: float
    """Unix time, s."""


def stored_models() -> list[StoredModel]:
    """Every model in the hub cache, by name."""
    cache = _scan()
    found = []
    for repo in cache.repos if cache else ():
        if repo.repo_type != "model":
            continue
        newest = sorted(repo.revisions, key=lambda revision: revision.last_modified, reverse=True)
        commits = tuple(revision.commit_hash for revision in newest)
        complete = any(
            is_complete(ModelSpec(id=repo.repo_id, revision=commit, allow_pickle=True)) for commit in commits
        )
        found.append(
            StoredModel(repo.repo_id, repo.repo_path, repo.size_on_disk, commits, complete, repo.last_accessed)
        )
    return sorted(found, key=lambda model: model.id.lower())


def find(model_id: str) -> StoredModel:
    """Raises NotFoundError for a model that is not in the hub cache, UsageError for a folder or the bundled one."""
    models = {model.id: model for model in stored_models()}
    if model_id in models:
        return models[model_id]
    folder = local_folder(ModelSpec(id=model_id))
    if folder is not None:
        raise UsageError(f"{model_id} is not in the hub cache", hint=f"It is the folder {folder}; it is left alone.")
    hint = nearest(model_id, list(models)) if models else "The hub cache holds no models."
    raise NotFoundError(f"no model {model_id} in the hub cache", hint=hint)


def remove(model: StoredModel) -> int:
    """Delete all revisions of a model and return the freed bytes. Raises StorageError."""
    cache = _scan()
    if cache is None:
        return 0
    plan = cache.delete_revisions(*model.revisions)
    plan.execute()
    if model.path.exists():
        raise StorageError(f"{model.path} cannot be deleted", hint="Check its permissions.")
    return plan.expected_freed_size


def _scan() -> "HFCacheInfo | None":
    """None before anything was downloaded."""
    from huggingface_hub import CacheNotFound, scan_cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        return scan_cache_dir(HF_HUB_CACHE)
    except CacheNotFound:
        return None
