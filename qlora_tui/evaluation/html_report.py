"""One or more runs as a single HTML page that opens offline: no script, no address, every foreign text escaped."""

import json
import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from qlora_tui import __version__
from qlora_tui.config.toml_file import to_toml
from qlora_tui.evaluation.comparison import MetricRow, RunsComparison
from qlora_tui.evaluation.svg import chart
from qlora_tui.runs.jobs import Job
from qlora_tui.terminal import printable

_SAMPLES = 12
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; padding: .6rem; background: #8881; white-space: pre-wrap; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
svg .grid { stroke: #8884; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(jobs: Sequence[Job], comparison: RunsComparison) -> str:
    """The page. Raises ConfigError when a run.toml was damaged."""
    title = ", ".join(comparison.names)
    curves = comparison.curves
    sections = [
        f"<h1>{_text(title)}</h1>",
        f"<p>Made by qlora-tui {_text(__version__)} on {time.strftime('%Y-%m-%d %H:%M')}.</p>",
        _section("Training", _facts(comparison)),
        _section("Training loss", chart({name: curves[name]["loss"] for name in curves}, "step", "training loss")),
        _section("Evaluation loss", chart({name: curves[name]["eval_loss"] for name in curves}, "step", "loss")),
        _section("Memory, estimated and measured", _memory(jobs)),
        _section("Evaluation", _evaluations(comparison.evaluations)),
        _section("Different settings", _settings(comparison)),
        *(_run(job) for job in jobs),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>\n" + "\n".join(filter(None, sections))
    ) + "\n</body></html>\n"


def _text(value: Any) -> str:
    return escape(printable(str(value)))


def _section(title: str, content: str) -> str:
    return f"<h2>{_text(title)}</h2>\n{content}" if content else ""


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    if not body:
        return ""
    return "<table><tr>" + "".join(f"<th>{_text(name)}</th>" for name in head) + f"</tr>{body}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return "<td>-</td>"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number">{number(value)}</td>'
    return f"<td>{_text(value)}</td>"


def number(value: float) -> str:
    """Whole numbers with thousands apart, others with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _facts(comparison: RunsComparison) -> str:
    rows = [[key.replace("_", " "), *values] for key, values in comparison.facts.items() if any(_known(values))]
    return _table(["", *comparison.names], rows)


def _known(values: Iterable[Any]) -> list[bool]:
    return [value is not None for value in values]


def _settings(comparison: RunsComparison) -> str:
    rows = [
        [key, *(json.dumps(value, ensure_ascii=False) for value in values)]
        for key, values in comparison.settings.items()
    ]
    return _table(["setting", *comparison.names], rows)


def _memory(jobs: Sequence[Job]) -> str:
    from qlora_tui.runs.fingerprint import read_plan

    rows = []
    for job in jobs:
        estimate = read_plan(job.run).get("estimate")
        terms = estimate.get("terms") if isinstance(estimate, dict) else None
        for name, size_bytes in (terms if isinstance(terms, dict) else {}).items():
            rows.append([job.run.name, str(name).replace("_", " "), size_bytes])
        if isinstance(estimate, dict):
            rows.append([job.run.name, "estimated need", estimate.get("need_bytes")])
        rows.append([job.run.name, "measured peak", job.state.peak_bytes or None])
    return _table(["run", "part", "bytes"], rows)


def _evaluations(metrics: Sequence[MetricRow]) -> str:
    rows = []
    for row in metrics:
        for label, value in row.values.items():
            rows.append([row.evaluation, row.metric, label, value, ""])
        for found in row.differences:
            noise = f"{found['better']} is better" if found["better"] else "within noise"
            interval = f"{found['low']:.4g} to {found['high']:.4g} over {found['questions']} questions: {noise}"
            rows.append([row.evaluation, row.metric, f"{found['to']} - {found['from']}", found["difference"], interval])
    return _table(["evaluation", "metric", "run", "value", "95% interval of the difference"], rows)


def _run(job: Job) -> str:
    samples = "".join(
        f"<h4>Step {sample.step}</h4><pre>{_text(sample.prompt)}</pre><pre>{_text(sample.answer)}</pre>"
        for sample in job.state.samples[-_SAMPLES:]
    )
    warnings = "".join(f"<li>{_text(warned.message)}</li>" for warned in job.state.warnings)
    parts = [
        f"<h2>{_text(job.run.name)}</h2>",
        f"<h3>Warnings</h3><ul>{warnings}</ul>" if warnings else "",
        f"<h3>Samples</h3>{samples}" if samples else "",
        f"<h3>Configuration</h3><pre>{_text(to_toml(job.run.load_config()))}</pre>",
    ]
    return "\n".join(filter(None, parts))
