"""Repository information from the hub, validated: a proxy or a login page may answer instead of the hub."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qlora_tui.data.hub_errors import Repositories, hub_errors
from qlora_tui.errors import QloraError

_MALFORMED = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""Exceptions from an answer that is not JSON or not of the expected form."""


@dataclass(frozen=True, slots=True)
class Repository:
    commit: str
    sizes_bytes: Mapping[str, int | None]
    """Size of each file, by name; None if the hub does not report it."""

    gated: bool
    config: Mapping[str, Any]
    """The part of config.json that the hub shows; empty for datasets."""

    licence: str | None


def repository(repo_id: str, revision: str | None, kind: Repositories) -> Repository:
    """Query the hub about a model or dataset. Raises the errors of `kind`, also for invalid answers."""
    from huggingface_hub import HfApi

    with well_formed(repo_id, kind), hub_errors(repo_id, kind):
        ask = HfApi().dataset_info if kind.pages else HfApi().model_info
        info: Any = ask(repo_id, revision=revision, files_metadata=True)
        config = getattr(info, "config", None) or {}
        return Repository(
            commit=_text(info.sha),
            sizes_bytes={_text(each.rfilename): _size(each.size) for each in info.siblings or []},
            gated=bool(info.gated),
            config={**config},
            licence=_licence(info),
        )


@contextlib.contextmanager
def well_formed(about: str, kind: Repositories) -> Iterator[None]:
    """Convert exceptions from a malformed answer into `kind.unreachable`."""
    from huggingface_hub.constants import ENDPOINT

    try:
        yield
    except QloraError:
        raise
    except _MALFORMED as error:
        raise kind.unreachable(
            f"{kind.noun} {about}: {ENDPOINT} does not answer like a hub",
            hint="Check HF_ENDPOINT and the connection: a proxy or a login page may be answering instead of the hub.",
        ) from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _size(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or not 0 <= value < 1 << 60):
        raise ValueError(f"expected a size in bytes, got {value!r}")
    return value


def _licence(info: Any) -> str | None:
    card = info.card_data
    named = (card.get("license_name") or card.get("license")) if card else None
    if named:
        return str(named)
    tags = (tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:"))
    return next(tags, None)
