"""Whether a model is the bundled one, a local folder or on the hub."""

import re
from pathlib import Path

from qlora_tui import paths
from qlora_tui.config.model import STARTER, ModelSpec

_CACHED = re.compile(r"/models--(.+?)--(.+?)/snapshots/[^/]+/?$")


def local_folder(spec: ModelSpec) -> Path | None:
    """The folder the model is loaded from, which need not exist; None for a model on the hub."""
    if spec.id == STARTER:
        from qlora_tui.starter import MODEL_DIR

        return MODEL_DIR
    written_as_path = spec.id.startswith((".", "/", "~")) or spec.id.count("/") > 1
    return paths.expanded(spec.id) if written_as_path else paths.existing(spec.id)


def public_id(spec: ModelSpec) -> str:
    """The model's name without a local path: "starter", a hub id, or the name of the folder.

    A folder of the hub cache is named by its hub id.
    """
    folder = local_folder(spec)
    if folder is None or spec.id == STARTER:
        return spec.id
    cached = _CACHED.search(folder.absolute().as_posix())
    return f"{cached[1]}/{cached[2]}" if cached else folder.absolute().name or "model"
