"""Whether a model can be loaded at all, judged by its files before any weight is read."""

import json
from pathlib import Path
from typing import Any

from qlora_tui.config.model import STARTER, ModelSpec
from qlora_tui.errors import ModelError
from qlora_tui.starter import MODEL_DIR

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_FOREIGN_QUANTIZATION = "it is stored quantized already"


def location(spec: ModelSpec) -> str:
    """What `from_pretrained` is given: the starter's folder, a local folder, or a hub id."""
    if spec.id == STARTER:
        return str(MODEL_DIR)
    path = Path(spec.id).expanduser()
    looks_local = spec.id.startswith((".", "/", "~")) or path.exists() or spec.id.count("/") > 1
    if looks_local:
        check_folder(path, spec)
        return str(path)
    return spec.id


def check_folder(path: Path, spec: ModelSpec) -> None:
    """Refuse a folder that is no loadable model, saying why. Raises ModelError."""
    if not path.exists():
        raise ModelError(f"model folder {path} does not exist", hint="Check model.id, or give a hub id (owner/name).")
    if path.is_file():
        kind = "a GGUF file" if path.suffix == ".gguf" else "a file"
        raise ModelError(
            f"{path} is {kind}, not a model folder", hint="Give the folder with config.json and safetensors."
        )
    if (path / "adapter_config.json").exists() and not (path / "config.json").exists():
        raise ModelError(f"{path} holds an adapter, not a base model", hint="Give the base model it was trained on.")
    check_config(_read_config(path), path)
    check_weights(path, spec)


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} has no config.json", hint="Give the folder of a transformers model.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}", hint="Download the model again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} is not a JSON object", hint="Download the model again.")
    return config


def check_config(config: dict[str, Any], origin: object) -> None:
    """Refuse a config.json that names no architecture or an unsuitable one. Raises ModelError."""
    if not config.get("architectures") or not config.get("model_type"):
        missing = "architectures" if not config.get("architectures") else "model_type"
        raise ModelError(
            f"config.json of {origin} names no {missing}", hint="Add it, as transformers' save_pretrained writes it."
        )
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown method")
        raise ModelError(
            f"{origin} cannot be a base: {_FOREIGN_QUANTIZATION} ({method})",
            hint="Use the original 16-bit model; it is quantized while it loads.",
        )


def check_weights(path: Path, spec: ModelSpec) -> None:
    """Refuse missing, incomplete or pickled weights. Raises ModelError."""
    if any(path.glob(_WEIGHTS[1])):
        _check_shards(path)
        return
    found = list(path.glob(_WEIGHTS[0]))
    if not found:
        pickles = [file.name for pattern in _PICKLES for file in path.glob(pattern)]
        if pickles and not spec.allow_pickle:
            raise ModelError(
                f"{path} has its weights only as pickle ({pickles[0]}), which can run code when loaded",
                hint="Convert them to safetensors, or trust them with model.allow_pickle = true.",
            )
        if not pickles:
            raise ModelError(f"{path} has no weights", hint="Expected model.safetensors or sharded safetensors.")
    for file in found:
        check_safetensors(file)


def _check_shards(path: Path) -> None:
    for index in path.glob(_WEIGHTS[1]):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{index} cannot be read: {error}", hint="Download the model again.") from error
        missing = sorted(shard for shard in shards if not (path / shard).is_file())
        if missing:
            raise ModelError(
                f"{path} lacks {len(missing)} of {len(shards)} weight files, first {missing[0]}",
                hint="Finish the download.",
            )
        for shard in shards:
            check_safetensors(path / shard)


def check_safetensors(file: Path) -> None:
    """Refuse a safetensors file that is cut off or no such file at all. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is damaged: {error}", hint="Download or copy it again.") from error
