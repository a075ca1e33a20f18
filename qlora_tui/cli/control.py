"""`stop`, `save`, `cancel` and `resume`: what a person tells a run from any shell."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.cli.options import AcceptChangedData, Detach, Json, JsonEvents, ReplanOnOom, Run, Yes
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.runs.follow import Follower
    from qlora_tui.runs.store import RunFolder

_PATIENCE_S = 15.0


def register(app: typer.Typer) -> None:
    for command in (stop, save, cancel, resume):
        app.command()(command)


def stop(name: Run, as_json: Json = False) -> None:
    """Save a checkpoint, stop the run, and wait until it has ended."""
    from qlora_tui.cli.foreground import batches
    from qlora_tui.runs import store
    from qlora_tui.runs.requests import Request

    run = store.find(name)
    follower = _caught_up(run)
    request = Request(run, "stop_and_save")
    narrate(f"asked {run.name} to stop; it writes a checkpoint first")
    patient = True
    for _ in batches(follower):
        if not request.heard(follower.state) and patient and request.waited_s > _PATIENCE_S:
            narrate(f"no answer yet; qlora-tui cancel {run.name} ends it without a checkpoint")
            patient = False
    _say_end(follower, as_json)


def save(name: Run, as_json: Json = False) -> None:
    """Save a checkpoint now. The run continues."""
    from qlora_tui.cli.foreground import batches
    from qlora_tui.errors import RunConflictError
    from qlora_tui.runs import events, store
    from qlora_tui.runs.requests import Request

    run = store.find(name)
    follower = _caught_up(run)
    request = Request(run, "save_now")
    heard = False
    for batch in batches(follower):
        for event in batch:
            if heard and isinstance(event, events.Checkpoint):
                _answer(as_json, f"{event.folder} is written", run=run.name, checkpoint_step=event.step)
                return
            heard = heard or request.heard(follower.state)
        heard = heard or request.heard(follower.state)
    raise RunConflictError(f"{run.name} ended before it wrote a checkpoint: it is {follower.status}")


def cancel(name: Run, yes: Yes = False, as_json: Json = False) -> None:
    """Cancel a run without saving a checkpoint."""
    from qlora_tui.cli.consent import confirmed
    from qlora_tui.runs import jobs, store

    run = store.find(name)
    if jobs.is_alive(run):
        confirmed(f"Cancel {run.name}? Steps since its last checkpoint are lost.", yes=yes)
    jobs.cancel(run, narrate)
    _say_end(_caught_up(run), as_json)


def resume(
    name: Run,
    detach: Detach = False,
    as_json: JsonEvents = False,
    replan_on_oom: ReplanOnOom = False,
    accept_changed_data: AcceptChangedData = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="New value of training.epochs or training.max_steps, to train a run longer.",
        ),
    ] = None,
    yes: Yes = False,
) -> None:
    """Resume a run from its latest complete checkpoint.

    Without a checkpoint, it starts from the beginning. To train a finished run longer, use --set training.epochs=N
    or --set training.max_steps=N.
    """
    from qlora_tui.cli.consent import allow_downloads
    from qlora_tui.cli.train import launch
    from qlora_tui.errors import RunConflictError
    from qlora_tui.runs import extension, store

    run = store.find(name)
    follower = _caught_up(run)
    status = follower.status
    if status == "finished" and not settings:
        hint = f"Chat with it: `qlora-tui chat {run.name}`, or train it longer with --set training.epochs=N."
        raise RunConflictError(f"{run.name} has finished", hint=hint)
    if status in ("running", "starting"):
        raise RunConflictError(f"{run.name} is {status}", hint=f"Watch it: `qlora-tui watch {run.name}`.")
    if settings:
        extended = extension.plan(run, follower.state, settings)
        steps = "" if extended.total_steps is None else f" to {extended.total_steps:,} steps"
        narrate(f"extending {run.name}{steps}. {extended.consequence}")
    allow_download = allow_downloads(run.load_config(), yes=yes)
    launch(
        run,
        detach=detach,
        as_json=as_json,
        allow_download=allow_download,
        replan_on_oom=replan_on_oom,
        accept_changed_data=accept_changed_data,
        settings=settings or (),
    )


def _caught_up(run: "RunFolder") -> "Follower":
    from qlora_tui.runs.follow import Follower

    follower = Follower(run)
    follower.catch_up()
    return follower


def _say_end(follower: "Follower", as_json: bool) -> None:
    """Describe how the run ended and how to continue it."""
    from qlora_tui.cli.outcome import how_to_resume

    run, state = follower.run, follower.state
    stopped = state.stopped
    checkpoint_step = stopped.checkpoint_step if stopped else None
    sentence = f"{run.name} is {follower.status} at step {state.step_number}"
    if follower.status != "finished":
        sentence += f"; {how_to_resume(run)}"
    _answer(
        as_json,
        sentence,
        run=run.name,
        status=follower.status,
        step=state.step_number,
        checkpoint_step=checkpoint_step,
    )


def _answer(as_json: bool, sentence: str, **facts: Any) -> None:
    from qlora_tui.cli.output import write_json

    if as_json:
        write_json(facts)
    else:
        narrate(sentence)
