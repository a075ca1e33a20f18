"""Stored results of `eval quant` per model: quantization error of the weights."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlora_tui import atomic, paths
from qlora_tui.config.model import ModelSpec
from qlora_tui.errors import ModelError
from qlora_tui.models.identity import weights_fingerprint
from qlora_tui.models.location import local_folder
from qlora_tui.regular_files import read_bytes

_VERSION = 1
_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class QuantizationErrors:
    """Quantization errors of a model by scheme name, as in `eval quant`."""

    relative_errors: Mapping[str, float]
    """|W - W'|^2 / |W|^2, the mean of all quantized layers."""

    perplexities: Mapping[str, float]
    """Perplexity on the given text; empty without one."""

    exact_perplexity: float | None


def write(model_id: str, study: Mapping[str, Any]) -> Path:
    """Store the result for a model. Returns the path. Raises StorageError, ModelError."""
    spec = ModelSpec(id=model_id)
    path = file_of(spec)
    schemes = [{name: one[name] for name in ("scheme", "relative_error", "perplexity")} for one in study["schemes"]]
    content = {
        "version": _VERSION,
        "model": _name(spec),
        "weights": weights_fingerprint(spec),
        "perplexity": study["perplexity"],
        "schemes": schemes,
    }
    with atomic.storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(path, content)
    return path


def read(model_id: str) -> QuantizationErrors | None:
    """Return the stored result for a model; None if there is none, or if the weights have changed since."""
    spec = ModelSpec(id=model_id)
    try:
        found = json.loads(read_bytes(file_of(spec), _LARGEST_BYTES))
        if found["version"] != _VERSION or found["weights"] != weights_fingerprint(spec):
            return None
        schemes = {str(one["scheme"]): one for one in found["schemes"]}
        return QuantizationErrors(
            {name: float(one["relative_error"]) for name, one in schemes.items()},
            {name: float(one["perplexity"]) for name, one in schemes.items() if one["perplexity"] is not None},
            None if found["perplexity"] is None else float(found["perplexity"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ModelError):
        return None


def file_of(spec: ModelSpec) -> Path:
    """Return the path of the result for a model."""
    digest = hashlib.sha256(_name(spec).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return paths.data() / "quantization" / f"{digest}.json"


def _name(spec: ModelSpec) -> str:
    """Return a name that is the same for every spelling of a folder's path."""
    folder = local_folder(spec)
    return spec.id if folder is None else str(folder.absolute())
