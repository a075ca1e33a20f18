"""`qlora-tui models`: search the hub, show what is known of a model, list, fetch and remove models."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.command import Noun
from qlora_tui.cli.options import Json, Yes
from qlora_tui.terminal import narrate, rewrite_line
from qlora_tui.units import disk

if TYPE_CHECKING:
    from pathlib import Path

    from qlora_tui.models.download import Arrived
    from qlora_tui.models.facts import ModelFacts

app = Noun("Search, describe, list, download and remove base models.")

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", autocompletion=completion.models, help='"starter", a folder, or a hub id (owner/name).'
    ),
]
HubModel = Annotated[
    str, typer.Argument(metavar="MODEL", autocompletion=completion.models, help="A hub id (owner/name).")
]
Revision = Annotated[str | None, typer.Option("--revision", help="Hub branch, tag or commit.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100, help="Maximum number of matches.")]
Known = Annotated[bool, typer.Option("--known", help="List the models of the built-in catalogue.")]
Modules = Annotated[bool, typer.Option("--modules", help="Also list the weights by group.")]


@app.command()
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Part of a model's name.")],
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Search the hub for text generation models."""
    from dataclasses import asdict

    from qlora_tui.cli.output import write_json, write_table
    from qlora_tui.models.search import search as search_hub

    matches = search_hub(text, limit=limit)
    if as_json:
        write_json({"models": [asdict(match) for match in matches]})
    elif matches:
        columns = ["id", "parameters", "type", "licence", "gated", "downloads"]
        rows = [
            [
                match.id,
                _billions(match.parameters),
                match.model_type or "?",
                match.licence or "?",
                "gated" if match.gated else "open",
                f"{match.downloads:,}",
            ]
            for match in matches
        ]
        write_table(columns, rows)
    else:
        narrate(f"no text generation model on the hub has {text!r} in its name")


@app.command()
def info(model: Model, revision: Revision = None, modules: Modules = False, as_json: Json = False) -> None:
    """Describe a model without loading it.

    For a hub model, a few kilobytes are downloaded.
    """
    from qlora_tui.cli.output import write_facts, write_json, write_line, write_table
    from qlora_tui.models import describe

    facts = describe(model, revision)
    if as_json:
        write_json(_as_json(facts))
        return
    write_facts(_shown(facts))
    if modules:
        columns = ["modules", "kind", "shape", "count", "bias", "4-bit"]
        write_line()
        write_table(columns, [_module_row(group) for group in facts.modules])
    for note in facts.notes:
        narrate(f"note: {note}")


@app.command("list")
def list_models(known: Known = False, as_json: Json = False) -> None:
    """List the models in the hub cache, or the built-in catalogue."""
    if known:
        _list_known(as_json)
        return
    from qlora_tui.cli.output import write_json, write_table
    from qlora_tui.models.store import stored_models

    models = stored_models()
    if as_json:
        write_json(
            {
                "models": [
                    {
                        "id": model.id,
                        "path": str(model.path),
                        "size_bytes": model.size_bytes,
                        "revisions": list(model.revisions),
                        "complete": model.complete,
                        "last_used": model.last_used,
                    }
                    for model in models
                ]
            }
        )
    elif models:
        rows = [
            [model.id, disk(model.size_bytes), "complete" if model.complete else "incomplete", model.revisions[0][:12]]
            for model in models
        ]
        write_table(["id", "size", "state", "newest revision"], rows)
    else:
        narrate("no models in the hub cache; the bundled one is called starter")


def _list_known(as_json: bool) -> None:
    from qlora_tui.cli.output import write_json, write_table
    from qlora_tui.models import catalogue

    counts = {model_id: catalogue.published_parameters(model_id) for model_id in catalogue.ids()}
    if as_json:
        write_json({"models": [{"id": model_id, "parameters": count} for model_id, count in counts.items()]})
    else:
        write_table(["id", "parameters"], [[model_id, _billions(count)] for model_id, count in counts.items()])


@app.command()
def download(
    model: HubModel,
    revision: Revision = None,
    pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Allow weights stored as pickle, a format that can contain code.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Download a model into the hub cache.

    Writes the folder of the model to stdout.
    """
    from qlora_tui.cli.consent import confirmed
    from qlora_tui.config.model import ModelSpec
    from qlora_tui.errors import UsageError
    from qlora_tui.models.download import download as fetch
    from qlora_tui.models.hub import missing_files, snapshot
    from qlora_tui.models.location import local_folder

    spec = ModelSpec(id=model, revision=revision, allow_pickle=pickle)
    if local_folder(spec) is not None:
        raise UsageError(f"{model} is on this machine already", hint="Give a hub id such as Qwen/Qwen3-0.6B.")
    missing = missing_files(spec)
    if missing is None:
        narrate(f"{model} is complete in the hub cache")
        _write_folder(model, snapshot(spec), as_json=as_json)
        return
    narrate(f"{model} at {missing.commit[:12]}: {len(missing.sizes_bytes)} files, {disk(missing.total_bytes)}")
    confirmed("Download this?", yes=yes)
    folder = fetch(missing, _progress(missing.total_bytes))
    _write_folder(model, folder, as_json=as_json)


def _write_folder(model: str, folder: "Path | None", *, as_json: bool) -> None:
    from qlora_tui.cli.output import write_json, write_line

    if as_json:
        write_json({"model": model, "folder": str(folder)})
    else:
        write_line(str(folder))


@app.command()
def rm(model: HubModel, yes: Yes = False, as_json: Json = False) -> None:
    """Delete all revisions of a model from the hub cache."""
    from qlora_tui.cli.consent import confirmed
    from qlora_tui.cli.output import write_json
    from qlora_tui.models import store

    found = store.find(model)
    confirmed(f"Delete {found.path} with {disk(found.size_bytes)}?", yes=yes)
    freed_bytes = store.remove(found)
    if as_json:
        write_json({"deleted": found.id, "freed_bytes": freed_bytes})
    narrate(f"{found.id} deleted, {disk(freed_bytes)} freed")


def _progress(total_bytes: int | None) -> "Arrived":
    """Narrates a download: one line that is rewritten on a terminal, else a line every tenth part."""

    live = sys.stderr.isatty()
    told = -1

    def arrived(done_bytes: int) -> None:
        nonlocal told
        percent = 100 * done_bytes // total_bytes if total_bytes else 0
        step = percent if live else percent // 10
        if step == told:
            return
        told = step
        line = f"{disk(done_bytes)} of {disk(total_bytes)} ({percent} %)"
        if live:
            rewrite_line(line, last=percent >= 100)
        else:
            narrate(line)

    return arrived


def _billions(parameters: int | None) -> str:
    if parameters is None:
        return "?"
    for unit, divisor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= divisor:
            return f"{parameters / divisor:.2f} {unit}"
    return str(parameters)


def _as_json(facts: "ModelFacts") -> dict[str, Any]:
    from dataclasses import asdict

    derived = {"parameters": facts.parameters, "parameters_by_class": facts.parameters_by_class}
    return {**asdict(facts), **derived, "dtypes_by_class": facts.dtypes_by_class}


def _module_row(group: Any) -> list[str]:
    shape = " x ".join(map(str, group.shape))
    bias = str(group.bias_elements) if group.bias_elements else "-"
    return [group.name, group.kind, shape, str(group.count), bias, "yes" if group.quantized else "no"]


def _shown(facts: "ModelFacts") -> dict[str, str]:

    rows = {
        "model": facts.id,
        "found in": facts.origin + (f", revision {facts.revision}" if facts.revision else ""),
        "architecture": f"{facts.architecture} ({facts.model_type})",
        "parameters": _parameters(facts),
        "layers": f"{facts.layers} of width {facts.hidden_size:,}",
        "attention": _attention(facts),
        "mlp": f"{facts.mlp_kind}, width {facts.mlp_width:,}",
        "experts": _experts(facts),
        "vocabulary": f"{facts.vocab_size:,} tokens, head {'tied' if facts.tied else 'of its own'}",
        "context": _context(facts),
        "weights": f"{facts.dtype}, {disk(facts.checkpoint_bytes)}",
        "download": disk(facts.download_bytes) if facts.download_bytes is not None else "",
        "licence": (facts.licence or "not stated") + (", gated" if facts.gated else ""),
    }
    return {name: value for name, value in rows.items() if value}


def _parameters(facts: "ModelFacts") -> str:
    dtypes = facts.dtypes_by_class
    lines = [f"{facts.parameters:,} ({_billions(facts.parameters)})"]
    for name, count in facts.parameters_by_class.items():
        lines.append(f"{name:10} {count:>18,}  {', '.join(dtypes[name])}")
    return "\n".join(lines)


def _attention(facts: "ModelFacts") -> str:
    latent = facts.latent_attention
    if latent is not None:
        return f"latent, {facts.heads} heads, key-value rank {latent.kv_rank}, query rank {latent.q_rank or 'full'}"
    return f"{facts.heads} heads of {facts.head_dim}, {facts.kv_heads} key-value heads" if facts.heads else ""


def _experts(facts: "ModelFacts") -> str:
    moe = facts.moe
    if moe is None:
        return ""
    shared = f", shared width {moe.shared_mlp_width:,}" if moe.shared_mlp_width else ""
    return (
        f"{moe.experts} of width {moe.expert_mlp_width:,}, {moe.experts_per_token} per token{shared},"
        f" in {moe.moe_layers} layers"
    )


def _context(facts: "ModelFacts") -> str:
    parts = [f"{facts.context_tokens:,} tokens" if facts.context_tokens else "not stated"]
    if facts.rope_scaling:
        parts.append(f"rope scaling {facts.rope_scaling}")
    if facts.sliding_window_tokens:
        parts.append(f"window of {facts.sliding_window_tokens:,} tokens in {facts.sliding_layers} layers")
    return ", ".join(parts)
