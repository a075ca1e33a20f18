"""Shapes of well-known models, shipped with the program: what makes an estimate possible without a network.

shapes/catalogue.json holds, one model a line, the keys of config.json that decide the weights and how many parameters
the model is published to have: what is loaded, a tied head counted once, a vision tower that is not loaded left out.
"""

import json
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from qlora_tui.models.assemble import Source

_FILE = Path(__file__).parent / "shapes" / "catalogue.json"


def find(model_id: str) -> Source | None:
    """The entry of a hub id, whatever its case; None for an unknown one."""
    entry = _entries().get(model_id.lower())
    return None if entry is None else _source(*entry)


def ids() -> list[str]:
    """Hub ids of all entries."""
    return [model_id for model_id, _ in _entries().values()]


def near(model_id: str) -> str | None:
    """The hub id most like `model_id`, which may be without its owner; None when none is."""
    names = {known.rpartition("/")[2].lower(): known for known in reversed(ids())}
    names |= {known.lower(): known for known in ids()}
    close = get_close_matches(model_id.lower(), names, n=1, cutoff=0.8)
    return names[close[0]] if close else None


def published_parameters(model_id: str) -> int:
    """How many parameters the model is known to have, a tied head counted once."""
    return int(_entries()[model_id.lower()][1]["parameters"])


@cache
def _entries() -> dict[str, tuple[str, dict[str, Any]]]:
    models = json.loads(_FILE.read_text(encoding="utf-8"))
    return {model_id.lower(): (model_id, entry) for entry in models for model_id in entry["ids"]}


def _source(model_id: str, entry: dict[str, Any]) -> Source:
    return Source(
        id=model_id,
        origin="catalogue",
        config=entry["config"],
        tensors=None,
        licence=entry.get("licence"),
        gated=entry.get("gated", False),
        notes=tuple(entry.get("notes", ())),
    )
