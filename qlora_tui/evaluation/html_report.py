"""A comparison of runs as one HTML page that opens offline: no script, no links, all foreign text escaped."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from qlora_tui import __version__
from qlora_tui.config.fields import value
from qlora_tui.config.toml_file import to_toml
from qlora_tui.evaluation.comparison import (
    MetricRow,
    RunsComparison,
    differences_table,
    facts_table,
    number,
    values_table,
)
from qlora_tui.evaluation.svg import chart
from qlora_tui.runs.extension import current_config
from qlora_tui.runs.freeze import published
from qlora_tui.runs.jobs import Job
from qlora_tui.terminal import printable
from qlora_tui.units import memory

_SAMPLES = 12
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
.wide { overflow-x: auto; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; padding: .6rem; background: #8881; white-space: pre-wrap; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
svg .grid { stroke: #8884; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A table that the caller adds, with a note below it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


def render(jobs: Sequence[Job], comparison: RunsComparison, extra: Sequence[Section] = ()) -> str:
    """Return the page. `extra` sections follow the evaluations. Raises ConfigError for a damaged run.toml."""
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
        *(_section(one.title, _table(one.columns, one.rows) + _note(one.note)) for one in extra),
        _section("Different settings", _settings(jobs, comparison)),
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


def _note(text: str) -> str:
    return f"<p>{_text(text)}</p>" if text else ""


def _section(title: str, content: str) -> str:
    return f"<h2>{_text(title)}</h2>\n{content}" if content else ""


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    if not body:
        return ""
    return (
        '<div class="wide"><table><tr>'
        + "".join(f"<th>{_text(name)}</th>" for name in head)
        + f"</tr>{body}</table></div>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return '<td class="number">-</td>'
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number">{number(value)}</td>'
    return f"<td>{_text(value)}</td>"


def _facts(comparison: RunsComparison) -> str:
    return _table(["", *comparison.names], facts_table(comparison.facts))


def _settings(jobs: Sequence[Job], comparison: RunsComparison) -> str:
    """The settings that differ, with file names instead of local paths."""
    configs = [published(current_config(job.run, job.state)) for job in jobs]
    rows = [
        [key, *(json.dumps(value(config, key), ensure_ascii=False, default=str) for config in configs)]
        for key in comparison.settings
    ]
    return _table(["setting", *comparison.names], rows)


def _memory(jobs: Sequence[Job]) -> str:
    """The parts of the estimate, one column a run, and below them what was measured."""
    from qlora_tui.memory.stored_estimate import StoredEstimate
    from qlora_tui.runs.fingerprint import read_plan

    parts: dict[str, dict[str, int | None]] = {}
    for job in jobs:
        estimate = read_plan(job.run).get("estimate")
        known = estimate if isinstance(estimate, dict) else {}
        terms = known.get("terms")
        for name, size_bytes in (terms if isinstance(terms, dict) else {}).items():
            parts.setdefault(str(name).replace("_", " "), {})[job.run.name] = size_bytes
        stored = StoredEstimate.of(read_plan(job.run))
        parts.setdefault("estimated peak", {})[job.run.name] = stored.full_bytes if stored is not None else None
        parts.setdefault("measured peak", {})[job.run.name] = job.state.peak_bytes or None
    last = ("estimated peak", "measured peak")
    rows = [
        [name, *(None if (found := parts[name].get(job.run.name)) is None else memory(found) for job in jobs)]
        for name in (*(name for name in parts if name not in last), *last)
    ]
    return _table(["", *(job.run.name for job in jobs)], rows)


def _evaluations(metrics: Sequence[MetricRow]) -> str:
    return _table(*values_table(metrics)) + _table(*differences_table(metrics))


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
        f"<h3>Configuration</h3><pre>{_text(to_toml(published(current_config(job.run, job.state))))}</pre>",
    ]
    return "\n".join(filter(None, parts))
