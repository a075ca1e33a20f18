"""Runs side by side: how their configurations differ, how they trained, and which evaluations differ beyond noise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from qlora_tui.config.differences import differences
from qlora_tui.config.run import RunConfig
from qlora_tui.evaluation.measured import Measured, measured
from qlora_tui.evaluation.paired import Difference, difference
from qlora_tui.evaluation.results import file_of
from qlora_tui.memory.stored_estimate import StoredEstimate
from qlora_tui.runs import store
from qlora_tui.runs.extension import current_config
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.runs.jobs import Job
from qlora_tui.runs.store import RunFolder
from qlora_tui.units import clock, disk, memory

BASE_SUFFIX = " (base)"
"""Follows the name of a run where a value belongs to its base model."""

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


def values_table(rows: Sequence[MetricRow]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and cells: one row per metric, one column per model, None for a missing value."""
    labels = list(dict.fromkeys(label for row in rows for label in row.values))
    cells = [[row.evaluation, row.metric, *(row.values.get(label) for label in labels)] for row in rows]
    return ["evaluation", "metric", *labels], cells


def differences_table(rows: Sequence[MetricRow]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and cells: one row for each pair that answered the same questions."""
    cells = [
        [
            row.evaluation, row.metric, f"{found['to']} - {found['from']}", found["difference"],
            f"{number(found['low'])} to {number(found['high'])}", found["questions"],
            f"{found['better']} is better" if found["better"] else "within noise",
        ]
        for row in rows
        for found in row.differences
    ]  # fmt: skip
    return ["evaluation", "metric", "compared", "difference", "95% interval", "questions", "result"], cells


def number(value: float) -> str:
    """Whole and large numbers with thousands apart, others with four digits."""
    if math.isfinite(value) and (value == int(value) or abs(value) >= 1e4):
        return f"{value:,.0f}"
    return f"{value:.4g}"


FACTS = {
    "status": "status",
    "steps": "optimizer steps",
    "train_loss": "training loss, mean of all steps",
    "smoothed_train_loss": "training loss, smoothed at the end",
    "eval_loss": "evaluation loss, last",
    "best_eval_loss": "evaluation loss, lowest",
    "best_eval_step": "step of the lowest evaluation loss",
    "train_seconds": "training time",
    "mean_tokens_per_s": "tokens/s, mean of all steps",
    "trainable_parameters": "trainable parameters",
    "estimated_bytes": "estimated peak memory",
    "peak_bytes": "measured peak memory",
    "adapter_bytes": "adapter size",
}
"""Label of each fact of a run, in display order. Those beginning with `final_` are metrics of the last evaluation."""


def fact_label(key: str) -> str:
    """Return the label of a fact."""
    metric = key.removeprefix("final_").replace("_", " ")
    return FACTS.get(key, f"{metric}, last evaluation")


def fact(key: str, value: Any) -> str:
    """Format a fact of a run by the unit in its name: bytes as sizes, seconds as a clock; "-" for none."""

    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return disk(value) if key == "adapter_bytes" else memory(value)
    if key.endswith("_seconds"):
        return clock(value)
    if key.endswith("_per_s") and value >= 100:
        return f"{value:,.0f}"
    return number(value) if isinstance(value, int | float) else str(value)


def facts_table(facts: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    """Return one row per fact that any of the runs has: its label, then the value for each run."""
    return [
        [fact_label(key), *(fact(key, value) for value in values)]
        for key, values in facts.items()
        if any(value is not None for value in values)
    ]


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
    """Compare runs in the given order.

    Raises DataError for a damaged result, ConfigError for a damaged run.toml.
    """
    return RunsComparison(
        [job.run.name for job in jobs],
        _different_settings([current_config(job.run, job.state) for job in jobs]),
        facts(jobs),
        {job.run.name: curves(job) for job in jobs},
        evaluations([job.run for job in jobs], samples=samples),
    )


def _different_settings(configs: Sequence[RunConfig]) -> dict[str, list[Any]]:
    """As JSON values."""
    from pydantic_core import to_jsonable_python

    return {key: [to_jsonable_python(value) for value in values] for key, values in differences(configs).items()}


def facts(jobs: Sequence[Job]) -> dict[str, list[Any]]:
    """Return the results of each run for RunsComparison. Each figure is of the whole run, never of its last step."""
    per_run = [_facts(job) for job in jobs]
    keys = dict.fromkeys(key for found in per_run for key in found)
    return {key: [found.get(key) for found in per_run] for key in keys}


def _facts(job: Job) -> dict[str, Any]:
    state = job.state
    finished, best, last_eval = state.finished, state.best_eval, state.evals.last
    estimate = StoredEstimate.of(read_plan(job.run))
    return {
        "status": job.status,
        "steps": state.step_number,
        "train_loss": state.mean_loss,
        "smoothed_train_loss": state.smoothed_loss,
        "eval_loss": last_eval.loss if last_eval else None,
        "best_eval_loss": best.loss if best else None,
        "best_eval_step": best.step if best else None,
        **{f"final_{name}": value for name, value in (last_eval.metrics if last_eval else {}).items()},
        "train_seconds": state.train_seconds,
        "mean_tokens_per_s": state.mean_tokens_per_s,
        "trainable_parameters": state.model.trainable_parameters if state.model else None,
        "estimated_bytes": estimate.full_bytes if estimate is not None else None,
        "peak_bytes": state.peak_bytes or None,
        "adapter_bytes": finished.adapter_bytes if finished else None,
    }


def curves(job: Job) -> dict[str, list[tuple[float, float]]]:
    """The run's training and evaluation loss as (step, loss), without steps that had none."""
    return {
        "loss": [(point.step, point.loss) for point in job.state.steps.points() if point.loss is not None],
        "eval_loss": [(point.step, point.loss) for point in job.state.evals.points() if point.loss is not None],
    }


def with_last_run(run: RunFolder, evaluation: str) -> list[MetricRow]:
    """One evaluation of a run beside its base and the other run that had it last, with the differences from this run.

    Raises DataError for a damaged result.
    """
    others = [other for other in store.all_runs() if other != run and file_of(other, evaluation).is_file()]
    last = max(others, key=lambda other: file_of(other, evaluation).stat().st_mtime, default=None)
    rows = evaluations([run] if last is None else [last, run])
    return [
        replace(row, differences=[one for one in row.differences if run.name in (one["from"], one["to"])])
        for row in rows
        if row.evaluation == evaluation
    ]


def evaluations(runs: Sequence[RunFolder], *, samples: int = 10_000) -> list[MetricRow]:
    """Every metric that any of the runs has, with the differences that can be told."""
    of_metric: dict[tuple[str, str], dict[str, Measured]] = {}
    for run in runs:
        for found in measured(run):
            label = run.name if found.side == "adapter" else run.name + BASE_SUFFIX
            for metric in found.metrics:
                if not metric.endswith("_tokens"):  # counts, which are no better or worse
                    of_metric.setdefault((found.evaluation, metric), {})[label] = found
    rows = []
    for (evaluation, metric), by_label in of_metric.items():
        pairs = []
        for one, other in _worth_comparing(list(by_label)):
            first, second = by_label[one].marks.get(metric), by_label[other].marks.get(metric)
            found_difference = difference(first, second, samples=samples) if first and second else None
            if found_difference is not None:
                pairs.append(described(one, other, found_difference, metric))
        values = {label: found.metrics[metric] for label, found in by_label.items()}
        rows.append(MetricRow(evaluation, metric, values, pairs))
    return rows


def _worth_comparing(labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every two runs, and from each run's own base to the run."""
    runs = [label for label in labels if not label.endswith(BASE_SUFFIX)]
    yield from combinations(runs, 2)
    yield from ((run + BASE_SUFFIX, run) for run in runs if run + BASE_SUFFIX in labels)


def described(one: str, other: str, found: Difference, metric: str) -> dict[str, Any]:
    """Return a difference for `MetricRow.differences`. "better" is the side that is better beyond noise, or None."""
    lower = any(word in metric for word in _LOWER_IS_BETTER)
    better = (other if (found.difference > 0) != lower else one) if found.beyond_noise else None
    return {"from": one, "to": other, **asdict(found), "beyond_noise": found.beyond_noise, "better": better}
