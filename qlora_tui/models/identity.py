"""Which weights a model's name stands for on this machine: a folder may hold others tomorrow."""

import hashlib
from pathlib import Path

from qlora_tui.config.model import ModelSpec
from qlora_tui.models.folder import pickled_weights, unreadable, weight_files
from qlora_tui.models.location import local_folder
from qlora_tui.regular_files import open_to_read

_WHOLE_BYTES = 16 << 20
"""Files up to this size are read whole."""

_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10


def weights_fingerprint(spec: ModelSpec) -> str | None:
    """Return a hash of a local model's weights, independent of its path; None for hub models or without weights.

    Of each file name, size and content: all of a small one, of a large one the head, where safetensors keeps names and
    shapes, the end and evenly spaced samples: training or merging changes all of them, and 4 MiB are quick to read.

    Raises ModelError when shards are missing or cannot be read.
    """
    folder = local_folder(spec)
    if folder is None or not folder.is_dir():
        return None
    files = weight_files(folder) or pickled_weights(folder)
    digest = hashlib.blake2b(digest_size=16)
    with unreadable(folder):
        for file in files:
            _add(digest, file)
    return digest.hexdigest() if files else None


def _add(digest: "hashlib.blake2b", file: Path) -> None:
    size_bytes = file.stat().st_size
    digest.update(f"{file.name}\0{size_bytes}\0".encode())
    with open_to_read(file) as content:
        if size_bytes <= _WHOLE_BYTES:
            digest.update(content.read())
            return
        for number in range(_SAMPLES):
            content.seek((size_bytes - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(content.read(_SAMPLE_BYTES))
