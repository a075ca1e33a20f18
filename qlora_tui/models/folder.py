"""Local model folders: whether one can be loaded at all, judged by its files before any weight is read."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qlora_tui import regular_files
from qlora_tui.config.model import ModelSpec
from qlora_tui.errors import ModelError
from qlora_tui.models import untrainable
from qlora_tui.models.location import local_folder
from qlora_tui.models.tensors import Tensors, read_headers
from qlora_tui.regular_files import read_bytes

PICKLED = "pytorch_model"
"""Prefixes of the names of pickled weights; other files, such as training_args.bin, are not read."""
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
"""What transformers 5.23 looks for, in this order; other safetensors beside them are not read."""
_HINT = "Give the folder with config.json and safetensors."


def location(spec: ModelSpec) -> str:
    """What `from_pretrained` is given: the starter's folder, a checked local folder, or a hub id."""
    path = local_folder(spec)
    if path is None:
        return spec.id
    check_folder(path, spec)
    return str(path)


def check_folder(path: Path, spec: ModelSpec) -> None:
    """Refuse a folder that is no loadable model, saying why. Raises ModelError."""
    config = read_config(path)
    check_config(config, path)
    untrainable.refuse(config, path)
    check_files(path)
    check_weights(path, spec)


def check_files(path: Path) -> None:
    """Check for files that would block or exhaust the library that opens them. Raises ModelError."""
    with unreadable(path):
        regular_files.check_folder(path)


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a folder. Raises ModelError for anything that is no folder of a base model."""
    if not path.exists():
        raise ModelError(f"model folder {path} does not exist", hint="Check model.id, or give a hub id (owner/name).")
    if path.is_file():
        kind = "a GGUF file" if path.suffix == ".gguf" else "a file"
        raise ModelError(f"{path} is {kind}, not a model folder", hint=_HINT)
    with unreadable(path):
        names = [file.name for file in path.iterdir()]
        content = read_bytes(path / "config.json") if "config.json" in names else None
    if content is None:
        raise no_config(names, str(path))
    return parse_config(content, str(path / "config.json"))


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Convert an OSError about a file of a model, which may have just been removed, into a ModelError."""
    try:
        yield
    except OSError as error:
        where, reason = error.filename or path, error.strerror or error
        hint = "Check that the model's folder is complete, and its permissions."
        raise ModelError(f"{where} cannot be read: {reason}", hint=hint) from error


def no_config(names: list[str], origin: str) -> ModelError:
    """Why a model without config.json cannot be used."""
    if "adapter_config.json" in names:
        return ModelError(f"{origin} holds an adapter, not a base model", hint="Give the base model it was trained on.")
    if any(name.endswith(".gguf") for name in names):
        return ModelError(
            f"{origin} holds GGUF files, which cannot be fine-tuned",
            hint="Give the original model, the one with config.json and safetensors.",
        )
    return ModelError(f"{origin} has no config.json", hint="Give a transformers model.")


def parse_config(content: bytes, origin: str) -> dict[str, Any]:
    """config.json as an object. Raises ModelError for anything else."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{origin} cannot be read: {error}", hint="Download the model again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{origin} is not a JSON object", hint="Download the model again.")
    return config


def check_config(config: dict[str, Any], origin: object) -> None:
    """Refuse a config.json that names no architecture or an unsuitable one. Raises ModelError."""
    architectures = config.get("architectures")
    named = isinstance(architectures, list) and architectures and isinstance(architectures[0], str)
    model_type = config.get("model_type")
    if not named or not model_type or not isinstance(model_type, str):
        missing = "model_type" if named else "architectures"
        raise ModelError(
            f"config.json of {origin} names no {missing}", hint="Add it, as transformers' save_pretrained writes it."
        )
    heads, kv_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(kv_heads, int) and kv_heads > 0 and heads % kv_heads:
        raise ModelError(
            f"config.json of {origin}: num_attention_heads {heads} does not divide by num_key_value_heads {kv_heads}",
            hint="Compare it with the config.json of the original model, or download the model again.",
        )
    refuse_quantized(config, origin)


def refuse_quantized(config: Mapping[str, Any], origin: object) -> None:
    """Raises ModelError when the weights are stored quantized (GPTQ, AWQ, fp8, MXFP4, bitsandbytes)."""
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelError(
            f"{origin} cannot be a base: it is stored quantized already ({method or 'unknown method'})",
            hint="Use the original 16-bit model; it is quantized while it loads.",
        )


def check_weights(path: Path, spec: ModelSpec) -> None:
    """Refuse missing, damaged, incomplete or pickled weights. Raises ModelError."""
    files = weight_files(path)
    if not files:
        pickles = [file.name for file in pickled_weights(path)]
        if not pickles:
            raise ModelError(f"{path} has no weights", hint="Expected model.safetensors or sharded safetensors.")
        if not spec.allow_pickle:
            raise ModelError(
                f"{path} has its weights only as pickle ({pickles[0]}), which is read only on request",
                hint="Convert them to safetensors, or set model.allow_pickle = true. Only tensors are read from them.",
            )
    for file in files:
        read_headers(file)


def pickled_weights(path: Path) -> list[Path]:
    """Return the pickled weights that transformers finds in a folder, sorted. Raises ModelError."""
    with unreadable(path):
        return sorted(file for file in path.iterdir() if file.name.startswith(PICKLED) and file.suffix == ".bin")


def stored_tensors(path: Path) -> Tensors:
    """Every tensor in the safetensors of a folder. Raises ModelError for damaged or incomplete ones."""
    return {name: tensor for file in weight_files(path) for name, tensor in read_headers(file).items()}


def weight_files(path: Path) -> list[Path]:
    """The safetensors that loading reads; empty without any. Raises ModelError when shards are missing."""
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    index = path / WEIGHTS_INDEX
    if not index.is_file():
        return []
    with unreadable(path):
        names = sorted(parse_index(read_bytes(index), str(index)))
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise ModelError(
            f"{path} lacks {len(missing)} of {len(names)} weight files, first {missing[0]}",
            hint="Finish the download.",
        )
    return [path / name for name in names]


def parse_index(content: bytes, origin: str) -> set[str]:
    """Names of the shards in a safetensors index. Raises ModelError when it is none."""
    try:
        shards = set(json.loads(content)["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(f"{origin} cannot be read: {error}", hint="Download the model again.") from error
    if not shards or not all(isinstance(name, str) and Path(name).name == name for name in shards):
        raise ModelError(f"{origin} names no weight files beside it", hint="Download the model again.")
    return shards
