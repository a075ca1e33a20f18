"""The models one can choose from: bundled, on this machine, well known, found on the hub; each as one line of facts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qlora_tui import paths
from qlora_tui.config.model import STARTER
from qlora_tui.errors import QloraError
from qlora_tui.models.facts import DTYPE_BYTES, ModelFacts

if TYPE_CHECKING:
    from qlora_tui.models.search import Match
    from qlora_tui.models.store import StoredModel

Where = Literal["bundled", "folder", "cached", "partly cached", "hub"]

_SHOWN_FOLDERS = 50


@dataclass(frozen=True)
class Choice:
    """One model that can be chosen. What is not known is None."""

    id: str
    where: Where
    parameters: int | None = None
    model_type: str | None = None
    licence: str | None = None
    gated: bool = False
    stored_bytes: int = 0
    """What is on this machine already."""

    download_bytes: int | None = None
    """What a download would fetch, None when that is not known; 0 for what is here. Counted from the shapes for
    well-known models, see `exact`."""

    exact: bool = False
    """Whether `download_bytes` is what the hub says."""

    facts: ModelFacts | None = None
    problem: str = ""
    """Why it cannot be a base model."""


def local_choices() -> list[Choice]:
    """The bundled model, what is in the hub cache, and every well-known model. Blocks for a moment; contacts no hub."""
    from qlora_tui.models import catalogue, describe
    from qlora_tui.models.store import stored_models

    stored = {model.id: model for model in stored_models()}
    found = [of_facts(describe(STARTER))]
    found += [_stored(model) for model in sorted(stored.values(), key=lambda model: not model.complete)]
    for model_id in catalogue.ids():
        if model_id not in stored:
            found.append(of_facts(describe(model_id, network=False)))
    return found


def folder_choices(text: str) -> list[Choice]:
    """Model folders at, in and beginning like the path `text`."""
    path = paths.existing(text)
    candidates = [path] if path is not None else []
    candidates += paths.beginning_like(text)
    models = [each for each in candidates if paths.existing(str(each / "config.json")) is not None]
    return [_folder(each) for each in models[:_SHOWN_FOLDERS]]


def hub_choice(match: Match) -> Choice:
    """What a search tells of a model."""
    return Choice(match.id, "hub", match.parameters, match.model_type, match.licence, match.gated, download_bytes=None)


def of_facts(facts: ModelFacts, *, stored_bytes: int = 0) -> Choice:
    """The line of a described model."""
    here: dict[str, Where] = {"bundled": "bundled", "folder": "folder", "cache": "cached"}
    where = here.get(facts.origin, "hub")
    if where == "cached" and facts.checkpoint_bytes is None:
        where = "partly cached"
    if where in ("bundled", "folder", "cached"):
        stored_bytes, download, exact = stored_bytes or facts.checkpoint_bytes or 0, 0, True
    else:
        exact = facts.download_bytes is not None
        download = facts.download_bytes if facts.download_bytes is not None else _counted_bytes(facts)
    return Choice(
        id=facts.id,
        where=where,
        parameters=facts.parameters,
        model_type=facts.model_type,
        licence=facts.licence,
        gated=facts.gated,
        stored_bytes=stored_bytes,
        download_bytes=download,
        exact=exact,
        facts=facts,
    )


def _counted_bytes(facts: ModelFacts) -> int:
    return sum(
        group.count * (prod(group.shape) + group.bias_elements) * DTYPE_BYTES.get(group.dtype, 2)
        for group in facts.modules
    )


def _stored(model: StoredModel) -> Choice:
    from qlora_tui.models import describe

    try:
        choice = of_facts(describe(model.id, network=False), stored_bytes=model.size_bytes)
    except QloraError as error:
        return Choice(model.id, "partly cached", stored_bytes=model.size_bytes, problem=error.message)
    if model.complete:
        return choice
    return replace(choice, where="partly cached", stored_bytes=model.size_bytes, exact=False)


def _folder(path: Path) -> Choice:
    from qlora_tui.models import describe

    try:
        return of_facts(describe(str(path)))
    except QloraError as error:
        return Choice(str(path), "folder", problem=error.message)
