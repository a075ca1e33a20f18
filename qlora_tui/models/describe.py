"""What is known of a model, by the best source at hand."""

from dataclasses import replace

from qlora_tui.config.model import ModelSpec
from qlora_tui.data.downloads import offline
from qlora_tui.errors import ModelError
from qlora_tui.models import catalogue, places
from qlora_tui.models.assemble import assemble
from qlora_tui.models.facts import ModelFacts
from qlora_tui.models.hub import GatedModelError, HubUnreachableError, MissingModelError, snapshot
from qlora_tui.models.location import local_folder, public_id


def describe(id_or_path: str, revision: str | None = None, *, network: bool = True) -> ModelFacts:
    """Dimensions, weights and terms of a model: "starter", a local folder, or a hub id.

    A hub model that is complete in the hub cache is not asked for on the hub. A well-known one that the hub does not
    give away (gated, no connection, `network` false, HF_HUB_OFFLINE) comes from the shipped catalogue, with a note.
    Raises ModelError for what does not exist, with the nearest well-known id, or cannot be a base model.
    """
    spec = ModelSpec(id=id_or_path, revision=revision)
    folder = local_folder(spec)
    if folder is not None:
        return assemble(places.from_folder(folder, spec))
    cached = places.from_cache(spec)
    if cached is not None and cached.tensors is not None:
        return assemble(cached)
    try:
        if offline() or not network:
            raise HubUnreachableError(
                f"model {spec.id} is not complete on this machine and the hub is not asked",
                hint="Unset HF_HUB_OFFLINE, copy the model into the hub cache, or give a local folder.",
            )
        return assemble(places.from_hub(spec))
    except (GatedModelError, HubUnreachableError) as error:
        if cached is not None:
            return assemble(cached)
        return _from_catalogue(spec, error)
    except MissingModelError as error:
        raise _with_nearest(spec, error) from error


def _from_catalogue(spec: ModelSpec, error: ModelError) -> ModelFacts:
    known = catalogue.find(spec.id)
    if known is None:
        raise _with_nearest(spec, error) from error
    facts = assemble(known)
    hint = error.hint if isinstance(error, GatedModelError) else ""
    return replace(facts, notes=(*facts.notes, f"The hub was not asked: {error.message}. {hint}".strip()))


def _with_nearest(spec: ModelSpec, error: ModelError) -> ModelError:
    """The error with a hint at the well-known model that may have been meant."""
    near = None if isinstance(error, GatedModelError) else catalogue.near(spec.id)
    return error if near is None else ModelError(error.message, hint=f"Did you mean {near}? {error.hint}".strip())


def licence(spec: ModelSpec) -> str | None:
    """Return the licence of a model from its local card, else from the built-in catalogue; None if unknown."""
    folder = local_folder(spec) or snapshot(spec)
    on_card = places.card_licence(folder / "README.md") if folder is not None else None
    known = catalogue.find(public_id(spec))
    return on_card or (known.licence if known is not None else None)
