"""Runs side by side: how their configurations differ, how they trained, and which evaluations differ beyond noise."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from qlora_tui.config.differences import differences
from qlora_tui.config.run import RunConfig
from qlora_tui.evaluation.measured import Measured, measured
from qlora_tui.evaluation.paired import Difference, difference
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.runs.jobs import Job

_LOWER_IS_BETTER = ("loss", "perplexity", "nats")


@dataclass(frozen=True)
class MetricRow:
    """One metric of one evaluation: the value of each run that has it, and how pairs of them differ."""

    evaluation: str
    metric: str
    values: dict[str, float]
    """By run name, and "NAME (base)" for a run's base model."""

    differences: list[dict[str, Any]]
    """Of each pair that answered the same questions: from, to, questions, difference, low, high, beyond_noise."""


@dataclass(frozen=True)
class RunsComparison:
    names: list[str]
    settings: dict[str, list[Any]]
    """Settings that are not the same everywhere: dotted key to one value a run."""

    facts: dict[str, list[Any]]
    """How each run went: one value a run, None where it is not known. Seconds and bytes by their names."""

    curves: dict[str, dict[str, list[tuple[float, float]]]]
    """By run: "loss" and "eval_loss" as (step, loss)."""

    evaluations: list[MetricRow]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(jobs: Sequence[Job], *, samples: int = 10_000) -> RunsComparison:
    """Compare runs in the given order. Raises DataError for a damaged result, ConfigError for a damaged run.toml."""
    names = [job.run.name for job in jobs]
    per_run = [_facts(job) for job in jobs]
    return RunsComparison(
        names,
        _different_settings([job.run.load_config() for job in jobs]),
        {
            key: [facts.get(key) for facts in per_run]
            for key in dict.fromkeys(key for facts in per_run for key in facts)
        },
        {job.run.name: curves(job) for job in jobs},
        _evaluations(jobs, samples),
    )


def _different_settings(configs: Sequence[RunConfig]) -> dict[str, list[Any]]:
    """As JSON values."""
    from pydantic_core import to_jsonable_python

    return {key: [to_jsonable_python(value) for value in values] for key, values in differences(configs).items()}


def _facts(job: Job) -> dict[str, Any]:
    state = job.state
    finished, best, last_eval = state.finished, state.best_eval, state.evals.last
    estimate = read_plan(job.run).get("estimate")
    return {
        "status": job.status,
        "steps": state.step_number,
        "train_loss": state.steps.last.loss if state.steps.last else None,
        "eval_loss": last_eval.loss if last_eval else None,
        "best_eval_loss": best.loss if best else None,
        "best_eval_step": best.step if best else None,
        **{f"final_{name}": value for name, value in (last_eval.metrics if last_eval else {}).items()},
        "train_seconds": finished.train_seconds if finished else None,
        "tokens_per_s": state.steps.last.tokens_per_s if state.steps.last else None,
        "trainable_parameters": state.model.trainable_parameters if state.model else None,
        "estimated_bytes": estimate.get("need_bytes") if isinstance(estimate, dict) else None,
        "peak_bytes": state.peak_bytes or None,
        "adapter_bytes": finished.adapter_bytes if finished else None,
    }


def curves(job: Job) -> dict[str, list[tuple[float, float]]]:
    """The run's training and evaluation loss as (step, loss), without steps that had none."""
    return {
        "loss": [(point.step, point.loss) for point in job.state.steps.points() if point.loss is not None],
        "eval_loss": [(point.step, point.loss) for point in job.state.evals.points() if point.loss is not None],
    }


def _evaluations(jobs: Sequence[Job], samples: int) -> list[MetricRow]:
    of_metric: dict[tuple[str, str], dict[str, Measured]] = {}
    for job in jobs:
        for found in measured(job.run):
            label = job.run.name if found.side == "adapter" else f"{job.run.name} (base)"
            for metric in found.metrics:
                of_metric.setdefault((found.evaluation, metric), {})[label] = found
    rows = []
    for (evaluation, metric), by_label in of_metric.items():
        pairs = []
        for one, other in combinations(by_label, 2):
            first, second = by_label[one].marks.get(metric), by_label[other].marks.get(metric)
            found_difference = difference(first, second, samples=samples) if first and second else None
            if found_difference is not None:
                pairs.append(_described(one, other, found_difference, metric))
        values = {label: found.metrics[metric] for label, found in by_label.items()}
        rows.append(MetricRow(evaluation, metric, values, pairs))
    return rows


def _described(one: str, other: str, found: Difference, metric: str) -> dict[str, Any]:
    """A difference, and whose it is: "better" names the side that is better beyond noise, or None."""
    lower = any(word in metric for word in _LOWER_IS_BETTER)
    better = (other if (found.difference > 0) != lower else one) if found.beyond_noise else None
    return {"from": one, "to": other, **asdict(found), "beyond_noise": found.beyond_noise, "better": better}
