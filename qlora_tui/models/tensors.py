"""Names, shapes and dtypes of stored tensors, from the headers of safetensors files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from qlora_tui.errors import ModelError
from qlora_tui.regular_files import UnsuitableFileError, check

_TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_BUFFERS = ("inv_freq", "position_ids", ".attn.bias", ".attention.bias", "masked_bias", "e_score_correction_bias")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    shape: tuple[int, ...]
    dtype: str
    """By torch's name, "bfloat16"."""

    @property
    def elements(self) -> int:
        return prod(self.shape)


Tensors = Mapping[str, StoredTensor]


def stored(shape: list[int], dtype: str) -> StoredTensor:
    """A tensor by what a safetensors header says of it."""
    return StoredTensor(tuple(shape), _TORCH_NAMES.get(dtype, dtype.lower()))


def pattern(name: str) -> str:
    """A tensor's name with `*` for every number in its path."""
    return _NUMBER.sub("*", name)


def is_buffer(name: str) -> bool:
    """Whether a stored tensor is a constant that transformers computes itself."""
    return name.endswith(_BUFFERS)


def read_headers(file: Path) -> dict[str, StoredTensor]:
    """Tensors of one local file. Raises ModelError when it is cut off or no safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        check(file)
        with safe_open(str(file), framework="np") as content:
            slices = ((name, content.get_slice(name)) for name in content.keys())  # noqa: SIM118
            return {name: stored(part.get_shape(), part.get_dtype()) for name, part in slices}
    except UnsuitableFileError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}", hint="Download or copy it again.") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is damaged: {error}", hint="Download or copy it again.") from error
