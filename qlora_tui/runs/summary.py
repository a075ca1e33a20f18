"""What there is to say about a run in a list and on its own, as JSON values. Times in seconds since the epoch."""

from contextlib import suppress
from typing import Any

from qlora_tui.errors import QloraError
from qlora_tui.runs import damage, store
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.runs.jobs import Job
from qlora_tui.runs.store import RunFolder


def brief(job: Job) -> dict[str, Any]:
    """One line of a list of runs."""
    state, plan = job.state, _plan(job.run)
    created_s = plan.get("created_s")
    return {
        "name": job.run.name,
        "status": job.status,
        "not_responding_since_s": job.silence.since_s if job.silence else None,
        "damage": damage.found(job.run, state),
        "step": state.step_number,
        "total_steps": state.plan.total_steps if state.plan else None,
        "loss": state.steps.last.loss if state.steps.last else None,
        "smoothed_loss": state.smoothed_loss,
        "mean_loss": state.mean_loss,
        "eval_loss": state.evals.last.loss if state.evals.last else None,
        "model": plan.get("model"),
        "data": plan.get("data"),
        "created_s": created_s if isinstance(created_s, int | float) else None,
        "last_event_s": state.last_event_s or None,
    }


def _plan(run: RunFolder) -> dict[str, Any]:
    """plan.json, with model and data from run.toml where it is damaged."""
    plan = read_plan(run)
    if plan.get("model") is None:
        with suppress(QloraError):
            config = run.load_config()
            return {**plan, "model": config.model.id, "data": config.data.source}
    return plan


def full(job: Job) -> dict[str, Any]:
    """Everything but the curves, which are in the events."""
    run, state = job.run, job.state
    return {
        **brief(job),
        "folder": str(run.path),
        "size_bytes": store.size_bytes(run),
        "attempt": state.attempt,
        "pid": state.pid if job.alive else None,
        "stage": state.stage.stage if state.stage else None,
        "peak_bytes": state.peak_bytes or None,
        "model_loaded": _facts(state.model),
        "dataset": _facts(state.dataset),
        "best_eval": _facts(state.best_eval),
        "resolved": [_facts(item) for item in state.resolved],
        "checkpoints": [_facts(item) for item in state.checkpoints],
        "warnings": [item.message for item in state.warnings],
        "samples": [_facts(item) for item in state.samples[-10:]],
        "replanned": state.replanned,
        "extended": state.extended,
        "stopped": _facts(state.stopped),
        "failed": _facts(state.failed),
        "finished": _facts(state.finished),
        "adapter": str(run.adapter) if run.adapter.is_dir() else None,
        "plan": read_plan(run),
    }


def _facts(event: Any) -> dict[str, Any] | None:
    """The fields of an event without its envelope."""
    return None if event is None else event.model_dump(mode="json", exclude={"v", "seq", "kind"})
