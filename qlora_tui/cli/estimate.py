"""`qlora-tui estimate`: what a run will need in memory, whether it fits, and what would make it fit."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.command import MODE_OPTIONS
from qlora_tui.cli.options import Json, Settings
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig
    from qlora_tui.memory.device import Device
    from qlora_tui.memory.estimate import Verdict
    from qlora_tui.models.facts import ModelFacts

_STRATEGIES = ("ddp", "fsdp", "layer-split")


Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[PRESET|FILE|MODEL]",
        autocompletion=completion.estimates,
        help="A preset, a .toml file, a hub id or a model's folder.",
    ),
]
Gpu = Annotated[
    str, typer.Option("--gpu", help='"auto", "cpu", a size such as 24GB or 2x24GB, or the index of a GPU here.')
]
Strategy = Annotated[
    str | None,
    typer.Option("--strategy", metavar="|".join(_STRATEGIES), help="How another trainer splits the model across GPUs."),
]
Longest = Annotated[int | None, typer.Option("--longest", min=2, help="Longest row of the data in tokens, if known.")]
Fit = Annotated[
    str | None,
    typer.Option(
        "--fit", rich_help_panel=MODE_OPTIONS, metavar="batch|length|rank", help="Find the largest value that fits."
    ),
]
Table = Annotated[
    bool,
    typer.Option(
        "--table",
        rich_help_panel=MODE_OPTIONS,
        help="Show what fits on common GPU sizes (takes a few seconds per size).",
    ),
]
Explain = Annotated[
    bool, typer.Option("--explain", rich_help_panel=MODE_OPTIONS, help="Show every formula with its values.")
]
Simulate = Annotated[
    bool,
    typer.Option(
        "--simulate",
        rich_help_panel=MODE_OPTIONS,
        help="Dry-run one step of the installed libraries without weights (takes seconds).",
    ),
]
Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        rich_help_panel=MODE_OPTIONS,
        help="Run two real training steps on this machine and measure peak memory.",
    ),
]
History = Annotated[
    bool,
    typer.Option(
        "--history", rich_help_panel=MODE_OPTIONS, help="Compare estimates with measured peaks of finished runs."
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(estimate)


def estimate(
    target: Target = None,
    gpu: Gpu = "auto",
    strategy: Strategy = None,
    settings: Settings = None,
    longest: Longest = None,
    fit: Fit = None,
    table: Table = False,
    explain: Explain = False,
    simulate: Simulate = False,
    probe: Probe = False,
    history: History = False,
    as_json: Json = False,
) -> None:
    """Estimate the memory and time of a run, and whether it fits.

    The result also has the steps and tokens. Downloads a few kilobytes at most. Exit codes: 0 fits (also with
    optimizer paging), 13 may just fit, 6 does not fit, 9 the model cannot be trained.
    """
    from qlora_tui.cli import estimate_measure, estimate_view

    _refuse_two(fit=fit is not None, table=table, explain=explain, simulate=simulate, probe=probe, history=history)
    if history:
        estimate_measure.show_history(as_json=as_json)
        return
    # What can be refused without the hub is.
    config = _config(target, settings or [])
    device = _device(gpu, strategy, config)
    _refuse_quantity(fit)
    facts = _facts(config)
    if simulate:
        estimate_measure.simulate(config, facts, device, longest, as_json=as_json)
    elif probe:
        estimate_measure.probe(config, facts, device, longest, as_json=as_json)
    elif table:
        estimate_view.write_table(config, facts, longest, as_json=as_json)
    elif fit is not None:
        _leave(estimate_view.write_fit(config, facts, device, fit, longest, as_json=as_json))
    else:
        _leave(
            estimate_view.write(config, facts, device, longest, here=_is_here(gpu), explain=explain, as_json=as_json)
        )


def _refuse_two(**wanted: bool) -> None:
    from qlora_tui.errors import UsageError

    named = [f"--{name}" for name, chosen in wanted.items() if chosen]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)}: one at a time", hint=f"Leave out {named[-1]}.")


def _refuse_quantity(fit: str | None) -> None:
    from qlora_tui.errors import UsageError
    from qlora_tui.memory.largest import QUANTITIES

    if fit is not None and fit not in QUANTITIES:
        raise UsageError(f"--fit {fit}: unknown", hint=f"One of {', '.join(QUANTITIES)}.")


def _config(target: str | None, settings: list[str]) -> "RunConfig":
    from qlora_tui.cli.configuration import configured
    from qlora_tui.errors import UsageError

    if target is None:
        raise UsageError("nothing to estimate was named", hint="Try `qlora-tui estimate llama-3.1-8b --gpu 24GB`.")
    preset, file, model = _split(target)
    quoted = [] if model is None else [f"model.id={_quoted(model)}"]
    return configured(preset, file, [*quoted, *settings])


def _facts(config: "RunConfig") -> "ModelFacts":
    from qlora_tui.models import describe, untrainable

    facts = describe(config.model.id, config.model.revision)
    for note in facts.notes:
        narrate(f"note: {note}")
    named = {"architectures": [facts.architecture], "model_type": facts.model_type}
    untrainable.refuse({**named, "is_encoder_decoder": facts.encoder_decoder}, f"model {facts.id}")
    return facts


def _split(target: str) -> tuple[str | None, Any, str | None]:
    """(preset, file, model): exactly one is given. Raises NotFoundError with the nearest model or preset."""
    from qlora_tui import paths
    from qlora_tui.config.presets import find, presets
    from qlora_tui.errors import NotFoundError
    from qlora_tui.models import catalogue

    if target.endswith(".toml"):
        return None, paths.expanded(target), None
    if target in {preset.name for preset in presets()}:
        return target, None, None
    if "/" in target or "\\" in target or paths.existing(target) or catalogue.find(target):
        return None, None, target
    near = catalogue.near(target)
    if near and near.lower().endswith(f"/{target.lower()}"):
        raise NotFoundError(f"no preset or model {target}", hint=f"Did you mean {near}?")
    return find(target).name, None, None


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)


def _device(gpu: str, strategy: str | None, config: "RunConfig") -> "Device":
    from dataclasses import replace

    from qlora_tui import hardware
    from qlora_tui.errors import UsageError
    from qlora_tui.memory import device

    if strategy not in (None, *_STRATEGIES):
        raise UsageError(f"--strategy {strategy}: unknown", hint=f"One of {', '.join(_STRATEGIES)}.")
    machine = hardware.snapshot()
    found = device.automatic(machine, config.model.device) if gpu == "auto" else device.parse(gpu, machine)
    if gpu == "auto" and found.kind == "cpu" and config.model.device == "auto":
        narrate("note: no NVIDIA GPU found, so the estimate is of RAM; add --gpu 24GB to estimate a GPU")
    if strategy is None:
        return found
    if found.count == 1:
        raise UsageError(f"--strategy {strategy} is about several cards", hint="Name them: --gpu 2x24GB.")
    return replace(found, strategy=strategy.replace("-", " "))  # type: ignore[arg-type]


def _is_here(gpu: str) -> bool:
    """Return whether `--gpu` names a device of this machine: "auto", "cpu" or the index of a GPU."""
    return gpu.strip().lower() in ("auto", "cpu") or gpu.strip().isdecimal()


def _leave(verdict: "Verdict") -> None:
    """Exit as the verdict says."""
    from qlora_tui.errors import DoesNotFitError, ExitCode

    if verdict.answer == "does not fit":
        raise DoesNotFitError(f"does not fit: {verdict.reason}", hint=verdict.hint)
    if verdict.answer == "tight":
        narrate(f"warning: tight: {verdict.reason}")
        raise typer.Exit(ExitCode.TIGHT)
