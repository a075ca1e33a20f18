"""transformers' config of a model: from keys, from this machine, or from the shipped catalogue."""

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig

from qlora_tui.config.model import ModelSpec
from qlora_tui.errors import ModelError
from qlora_tui.models import catalogue
from qlora_tui.models.hub import snapshot
from qlora_tui.models.location import local_folder

_ROPE = ("rope_parameters", "rope_scaling")
"""How positions are encoded changes no size but by its share of a head; the catalogue does not hold all of it."""

_SHARE = "partial_rotary_factor"


_TEXT = "text_config"
"""Key of the language model's config in a multimodal model."""


def from_keys(keys: Mapping[str, Any]) -> Any:
    """Return the config with the keys of a config.json. Raises ValueError, TypeError or KeyError for invalid keys."""
    return AutoConfig.for_model(**_sizes(keys))


def _sizes(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that change the size of a tensor."""
    sizes = {name: value for name, value in keys.items() if name not in _ROPE}
    for table in map(keys.get, _ROPE):
        if isinstance(table, Mapping) and _SHARE in table:
            sizes[_SHARE] = table[_SHARE]
    if isinstance(keys.get(_TEXT), Mapping):
        sizes[_TEXT] = _sizes(keys[_TEXT])
    return sizes


def of_model(spec: ModelSpec, given: Mapping[str, Any] | None = None) -> Any:
    """The config of a model, `given` if there is one. Raises ModelError."""
    folder = None if given else local_folder(spec) or snapshot(spec)
    known = None if folder or given else catalogue.find(spec.id)
    keys = given or (known.config if known else None)
    try:
        if keys:
            return from_keys(keys)
        return AutoConfig.from_pretrained(folder or spec.id, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"the config of {spec.id} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}",
            hint="Name a model on this machine, or one that `qlora-tui models list` knows.",
        ) from error
