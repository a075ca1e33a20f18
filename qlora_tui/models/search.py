"""Search for models on the hub."""

from dataclasses import dataclass

from qlora_tui.models.families import find
from qlora_tui.models.hub import HubUnreachableError, hub_errors

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
    from huggingface_hub import HfApi

    try:
        with hub_errors(text):
            models = HfApi().list_models(
                search=text,
                pipeline_tag="text-generation",
                sort="downloads",
                limit=limit,
                expand=_PROPERTIES,  # type: ignore[arg-type]
            )
            return [_match(model) for model in models]
    except HubUnreachableError as error:
        reason = error.message.removeprefix(f"model {text}").lstrip(": ")
        raise HubUnreachableError(f"the hub cannot be searched: {reason}", hint="Check the connection.") from error


def _match(model: object) -> Match:
    config = getattr(model, "config", None) or {}
    stored = getattr(model, "safetensors", None)
    model_type = config.get("model_type")
    tags = getattr(model, "tags", None) or []
    return Match(
        id=str(model.id),  # type: ignore[attr-defined]
        parameters=stored.total if stored else None,
        downloads=getattr(model, "downloads", None) or 0,
        likes=getattr(model, "likes", None) or 0,
        gated=bool(getattr(model, "gated", False)),
        licence=next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None),
        model_type=model_type,
        has_entry=model_type is not None and find(model_type) is not None,
    )
