"""The bundled starter: a small pretrained model, its instruction data, and the builder of both (`build`)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_HERE = Path(__file__).parent

MODEL_DIR: Final = _HERE / "model"
TRAIN_DATA: Final = _HERE / "data" / "train.jsonl"
HELDOUT_DATA: Final = _HERE / "data" / "heldout.jsonl"
