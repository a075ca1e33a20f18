"""`runs`: list, show and compare runs."""

from typing import TYPE_CHECKING, Any

from qlora_tui.cli import compare, runs_bin
from qlora_tui.cli.command import Noun
from qlora_tui.cli.options import Json, Run
from qlora_tui.terminal import narrate
from qlora_tui.units import disk, memory

if TYPE_CHECKING:
    from qlora_tui.runs.jobs import Job
    from qlora_tui.runs.store import RunFolder

app = Noun("List, show, compare, delete and restore runs.")
compare.register(app)
runs_bin.register(app)


@app.command("list")
def list_runs(as_json: Json = False) -> None:
    """List all runs, newest first."""
    from qlora_tui import paths
    from qlora_tui.cli.output import write_json, write_table
    from qlora_tui.runs import deleted, store

    deleted.purge()
    rows = [_listed(run) for run in store.all_runs()]
    if as_json:
        write_json({"runs": rows})
    elif rows:
        columns = ["name", "status", "step", "loss", "model", "data", "last event"]
        write_table(columns, [_row(summary) for summary in rows])
    else:
        narrate(f"no runs yet in {paths.runs()}; `qlora-tui train starter` makes one")
    for name in store.unusable_names():
        narrate(f"warning: {paths.runs() / name} is not listed: its name is not a legal run name. Rename the folder.")


@app.command()
def show(name: Run, as_json: Json = False) -> None:
    """Show status, losses, memory, checkpoints and warnings of a run."""
    from qlora_tui.cli.output import write_facts, write_json
    from qlora_tui.runs import extension, jobs, store
    from qlora_tui.runs.summary import full

    job = jobs.look(store.find(name))
    if as_json:
        write_json({**full(job), "config": extension.current_config(job.run, job.state).model_dump(mode="json")})
    else:
        write_facts(_facts(job))


def _listed(run: "RunFolder") -> dict[str, Any]:
    """A run in the list, whether its log can be read or not."""
    from qlora_tui.errors import StorageError
    from qlora_tui.runs import jobs
    from qlora_tui.runs.state import RunState
    from qlora_tui.runs.summary import brief

    try:
        job = jobs.look(run)
        if silence := job.silence:
            narrate(f"{run.name} is {silence}. {silence.advice}")
        listed = brief(job)
        for sentence in listed["damage"]:
            narrate(f"{run.name}: {sentence}")
        return listed
    except StorageError as error:
        narrate(f"{run.name} is unreadable: {error.message}")
        return {**brief(jobs.Job(run, RunState(), alive=False)), "status": "unreadable", "damage": []}


def _row(summary: dict[str, Any]) -> list[str]:
    from qlora_tui.cli.output import moment

    loss = summary["smoothed_loss"]
    return [
        summary["name"],
        "not responding" if summary["not_responding_since_s"] else summary["status"],
        _steps(summary["step"], summary["total_steps"]),
        "" if loss is None else f"{loss:.4g}",
        str(summary["model"] or ""),
        str(summary["data"] or ""),
        moment(summary["last_event_s"]),
    ]


def _steps(done: int, total: int | None) -> str:
    return f"{done}" if total is None else f"{done}/{total}"


def _facts(job: "Job") -> dict[str, str]:
    """The facts that are known, in reading order."""
    from qlora_tui.cli.output import moment
    from qlora_tui.runs import damage, extension, narration, store
    from qlora_tui.runs.summary import brief

    state, summary = job.state, brief(job)
    rows = narration.line(state.dataset) if state.dataset else None
    silence = job.silence
    facts = {
        "name": job.run.name,
        "status": job.status
        + (f" ({state.stage.stage})" if job.alive and state.stage else "")
        + (f", {silence}" if silence else ""),
        "what to do": silence.advice if silence else "",
        "failure": _failure(job),
        "model": narration.line(state.model) if state.model else summary["model"],
        "data": ", ".join(str(part) for part in (summary["data"], rows) if part),
        "progress": narration.step(state, running=job.alive),
        "evaluation": narration.line(state.evals.last) if state.evals.last else "",
        "best": narration.line(state.best_eval) if state.best_eval else "",
        "peak memory": memory(state.peak_bytes) if state.peak_bytes else "",
        "checkpoints": ", ".join(str(item.step) for item in state.checkpoints),
        "training loss": narration.losses(state),
        "changed": ", ".join(f"{key} = {value}" for key, value in extension.changed_settings(state).items()),
        "damage": "\n".join(damage.found(job.run, state, by_content=True)),
        "warnings": "\n".join(dict.fromkeys(item.message for item in state.warnings)),
        "adapter": str(job.run.adapter) if job.run.adapter.is_dir() else "",
        "folder": f"{job.run.path} ({disk(store.size_bytes(job.run))})",
        "created": moment(summary["created_s"]),
        "last event": moment(summary["last_event_s"]),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _failure(job: "Job") -> str:
    """Return why the run ended early and how to resume it; empty for a run that did not fail."""
    from qlora_tui.cli.outcome import crash, how_to_resume

    if failed := job.state.failed:
        return f"{failed.message}\n{failed.hint}".rstrip()
    if job.status == "crashed":
        return f"{crash(job.run, job.state)}\n{how_to_resume(job.run)}"
    return ""
