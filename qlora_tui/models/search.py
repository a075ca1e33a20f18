"""Search for models on the hub."""

import json
from dataclasses import dataclass
from typing import Any

from qlora_tui.data.downloads import offline
from qlora_tui.models.families import find
from qlora_tui.models.hub import HubUnreachableError, ask

_PROPERTIES = ["config", "downloads", "gated", "likes", "safetensors", "tags"]


@dataclass(frozen=True)
class Match:
    id: str
    parameters: int | None
    downloads: int
    likes: int
    gated: bool
    licence: str | None
    model_type: str | None
    has_entry: bool
    """Whether its weights are known in closed form."""


def search(text: str, *, limit: int = 20) -> list[Match]:
    """Text generation models whose name contains `text`, the most downloaded first. Raises ModelError."""
    from huggingface_hub.constants import ENDPOINT

    if offline():
        raise HubUnreachableError("the hub cannot be searched: it is off", hint="Unset HF_HUB_OFFLINE.")
    query: dict[str, str | int | list[str]] = {
        "search": text,
        "pipeline_tag": "text-generation",
        "sort": "downloads",
        "limit": limit,
        "expand": _PROPERTIES,
    }
    try:
        answer = ask(f"{ENDPOINT}/api/models", text, **query)
        return [_match(model) for model in json.loads(answer)]
    except HubUnreachableError as error:
        reason = error.message.removeprefix(f"model {text} ")
        raise HubUnreachableError(f"the hub cannot be searched: it {reason}", hint="Check the connection.") from error
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise HubUnreachableError(
            f"the hub cannot be searched: {ENDPOINT} does not answer like a hub",
            hint="Check HF_ENDPOINT and the connection: a proxy or a login page may be answering instead of the hub.",
        ) from error


def _match(model: dict[str, Any]) -> Match:
    model_type = (model.get("config") or {}).get("model_type")
    named = (tag.removeprefix("license:") for tag in model.get("tags") or [] if tag.startswith("license:"))
    return Match(
        id=_typed(model["id"], str),
        parameters=_typed((model.get("safetensors") or {}).get("total"), int | None),
        downloads=_typed(model.get("downloads") or 0, int),
        likes=_typed(model.get("likes") or 0, int),
        gated=bool(model.get("gated")),
        licence=next(named, None),
        model_type=model_type,
        has_entry=model_type is not None and find(model_type) is not None,
    )


def _typed(value: Any, kind: Any) -> Any:
    """`value`. Raises TypeError when it is not of that type."""
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind}, got {value!r}")
    return value
