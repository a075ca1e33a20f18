"""Whether a model is the bundled one, a local folder or on the hub."""

from pathlib import Path

from qlora_tui import paths
from qlora_tui.config.model import STARTER, ModelSpec


def local_folder(spec: ModelSpec) -> Path | None:
    """The folder the model is loaded from, which need not exist; None for a model on the hub."""
    if spec.id == STARTER:
        from qlora_tui.starter import MODEL_DIR

        return MODEL_DIR
    written_as_path = spec.id.startswith((".", "/", "~")) or spec.id.count("/") > 1
    return paths.expanded(spec.id) if written_as_path else paths.existing(spec.id)
