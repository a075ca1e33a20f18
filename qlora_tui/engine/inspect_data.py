"""Looks into a dataset for `qlora-tui data inspect` and the data screen: `python -m qlora_tui.engine.inspect_data`.

A request comes as one JSON line on stdin ({"config": a RunConfig, "shown_rows", "quick"}), events go as JSON lines to
stdout: "source", "sample" and "estimate" within a moment, from the first rows; then "progress", and "report" once every
row has been prepared as training would; or "error" at any point, with "choices" (settings by key) where the rows can be
read in several ways and "columns" where a person has to say what they hold. With "picks" in the request, "picks" are
rows worth a look besides the first: the longest one and some that are cut, of the first rows, and then the longest of
all. "download" is a question: the next line of stdin is the answer, true or false. Only the tokenizer is loaded.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from qlora_tui import limits
from qlora_tui.config.model import ModelSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.data.batches import batches, rows_at_a_time
from qlora_tui.data.detect import UnclearFormatError
from qlora_tui.data.downloads import Consent, Download, Progress, ask
from qlora_tui.data.load import Loaded, Rows, load_source, read_rows
from qlora_tui.data.prepare import FIRST_CHARACTERS, FIRST_ROWS, first_look, survey
from qlora_tui.data.preview import preview
from qlora_tui.data.recipe import Recipe, recipe_of
from qlora_tui.data.red_flags import RedFlags
from qlora_tui.data.report import warnings
from qlora_tui.data.row_encoder import Batch
from qlora_tui.data.sources import is_on_hub
from qlora_tui.data.statistics import numbers
from qlora_tui.data.token_cache import stored_flags
from qlora_tui.data.tokenizer import Tokenizer
from qlora_tui.engine import environment, foreign_tokenizer
from qlora_tui.errors import ExitCode, ModelError, QloraError
from qlora_tui.models.location import local_folder
from qlora_tui.units import disk

_EVENTS_A_SECOND = 8
_CUT_PICKS = 5
_SHOWN_PIECES = 4
"""Of a row that is split; one of megabytes becomes thousands."""

Emit = Callable[[str, dict[str, Any]], None]


def inspect(
    config: RunConfig,
    emit: Emit,
    *,
    shown_rows: int,
    quick: bool,
    consent: Consent,
    picks: bool = False,
    check: bool = False,
) -> None:
    """Emit the results, the quick ones first. With `check`, only how the shown rows are trained and prompted.

    Raises QloraError.
    """
    progress = _throttled(emit)
    # Bad rows do not keep the rest from being seen; the full pass reports them as the run would.
    read = read_rows(config.data, skip_bad_rows=True, streaming=quick or config.data.streaming, consent=consent)
    first_rows = shown_rows if check else FIRST_ROWS
    rows = next(batches(read.rows, most_rows=first_rows, most_characters=FIRST_CHARACTERS), [])
    rows += islice(read.rows, max(0, shown_rows - len(rows)))
    if check and not is_on_hub(config.data.source):
        # Columns that first appear in later rows, and rows that cannot be read, stop training wherever they are.
        for _ in read.rows:
            pass
    emit("source", _source(read, len(rows)))
    tokenizer = load_tokenizer(config.model, consent)
    recipe = recipe_of(config, tokenizer)
    place = local_folder(config.model) or config.model.id
    changed = foreign_tokenizer.difference_from_file(tokenizer, place, config.model.revision)
    notes = [*recipe.template.notes, *([changed] if changed else [])]
    if check:
        from qlora_tui.engine.row_check import check_rows, unreadable

        found = [*map(unreadable, read.bad.rows), *check_rows(recipe, _batch(rows[:shown_rows]))]
        checks = [{**asdict(one), "passes": one.passes} for one in found]
        emit("check", {"template": recipe.template.name, "notes": notes, "rows": checks})
        return
    whole_text = bool(rows) and all(row["text"] is not None for row in rows)
    emit("sample", _sample(recipe, rows[:shown_rows], notes, whole_text=whole_text))
    tally = first_look(_batch(rows), recipe)
    flags = RedFlags()
    flags.add(_batch(rows))
    emit("estimate", {**numbers(tally, config.training), "flags": flags.found(), "warnings": warnings(tally)})
    if picks:
        _emit_rows(recipe, [rows[at] for at in _picks(recipe, rows)], emit)
    if not quick:
        longest = _report(config, recipe.tokenizer, emit, consent, progress)
        if picks:
            _emit_rows(recipe, longest, emit)


def _sample(recipe: Recipe, rows: list[dict[str, Any]], notes: list[str], *, whole_text: bool) -> dict[str, Any]:
    template = {"name": recipe.template.name, "notes": notes}
    return {"rows": _shown(recipe, rows), "template": template, "whole_text": whole_text}


def _shown(recipe: Recipe, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [asdict(row) for row in preview(recipe, _batch(rows), _SHOWN_PIECES)] if rows else []


def _emit_rows(recipe: Recipe, rows: list[dict[str, Any]], emit: Emit) -> None:
    if rows:
        emit("picks", {"rows": _shown(recipe, rows)})


def _picks(recipe: Recipe, rows: list[dict[str, Any]]) -> list[int]:
    """Where the longest row is, and the first ones that lose something."""
    if not rows:
        return []
    encoded = list(recipe.encoder().encode(_batch(rows)))
    longest = max(range(len(encoded)), key=lambda at: encoded[at].full_tokens)
    cut = [at for at, row in enumerate(encoded) if row.cut_tokens or row.dropped or len(row.pieces) > 1]
    return list(dict.fromkeys([longest, *cut[:_CUT_PICKS]]))


def _batch(rows: list[dict[str, Any]]) -> Batch:
    return {name: [row[name] for row in rows] for name in ("messages", "text", "tools", "origin")}


def _source(read: Rows, rows: int) -> dict[str, Any]:
    detection = read.detection
    return {
        "label": read.label,
        "format": detection.format,
        "confidence": detection.confidence,
        "evidence": detection.evidence,
        "columns": read.columns,
        "used_columns": detection.columns.model_dump(exclude_none=True),
        "notes": [*read.notes, *read.warnings],
        "sampled_rows": rows,
        "bad_rows": read.bad.count,
        "first_bad_rows": [asdict(row) for row in read.bad.rows[:3]],
    }


def _report(
    config: RunConfig, tokenizer: Tokenizer, emit: Emit, consent: Consent, progress: Progress
) -> list[dict[str, Any]]:
    """Emit the report of all rows; the longest of them."""
    report, tally, eval_tally = survey(config, tokenizer, consent=consent, on_progress=progress)
    flags: list[dict[str, Any]] = []
    longest: list[dict[str, Any]] = []
    if not config.data.streaming:
        skip = config.data.skip_bad_rows
        sources = [
            load_source(spec, skip_bad_rows=skip, on_progress=progress) for spec in (config.data, *config.data.mix)
        ]
        flags = stored_flags([one.fingerprint for one in sources], lambda: _flags(sources, progress))
        longest = [row for one in sources for row in _rows_at(one.dataset, tally.longest_origin)]
    longest_rows = {
        "longest_train_tokens": max(tally.lengths, default=0) if report.complete else None,
        "longest_eval_tokens": max(eval_tally.lengths, default=0),
        "eval_rows": eval_tally.kept_rows,
    }
    emit("report", {**numbers(tally, config.training), **longest_rows, "flags": flags, "prepared": report.to_json()})
    return longest[:1]


def _flags(sources: list[Loaded], progress: Progress) -> list[dict[str, Any]]:
    """Red flags in every row."""
    flags = RedFlags()
    total = sum(len(one.dataset) for one in sources)
    for one in sources:
        columns = one.dataset.select_columns(["messages", "text", "origin"])
        for batch in columns.iter(batch_size=rows_at_a_time(one.dataset)):
            flags.add(batch)
            progress("looking for red flags", flags.rows, total)
    return flags.found()


def _rows_at(dataset: Any, origin: str) -> list[dict[str, Any]]:
    """The rows that come from `origin`."""
    origins = dataset.select_columns(["origin"]).with_format("arrow")
    found: list[dict[str, Any]] = []
    start = 0
    for batch in origins.iter(batch_size=10_000):
        mask = pc.equal(batch["origin"], origin).to_numpy(zero_copy_only=False)
        found += [dataset[start + int(at)] for at in mask.nonzero()[0]]
        start += len(batch)
    return found


def load_tokenizer(spec: ModelSpec, consent: Consent) -> Tokenizer:
    """The model's tokenizer alone, as fast as it can be had. Raises ModelError."""
    folder = local_folder(spec)
    if folder is not None and not folder.is_dir():
        raise ModelError(f"no model folder {spec.id}", hint="Give a model folder, or a hub id such as owner/name.")
    if folder is not None:
        return _load(folder, spec, local_files_only=True)
    try:
        return _load(spec.id, spec, local_files_only=True)
    except ModelError as error:
        if not isinstance(error.__cause__, OSError):
            raise
    from huggingface_hub.constants import HF_HUB_CACHE

    ask(Download(f"the tokenizer of {spec.id}", None, Path(HF_HUB_CACHE)), consent)
    return _load(spec.id, spec, local_files_only=False)


def _load(place: Path | str, spec: ModelSpec, *, local_files_only: bool) -> Tokenizer:
    tokenizer: Tokenizer = foreign_tokenizer.load(
        place,
        name=spec.id,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        local_files_only=local_files_only,
    )
    return tokenizer


def _throttled(emit: Emit) -> Progress:
    last = ("", 0.0)

    def progress(stage: str, done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if stage != last[0] or now - last[1] >= 1 / _EVENTS_A_SECOND or done == total:
            last = (stage, now)
            emit("progress", {"stage": stage, "done": done, "total": total})

    return progress


def main() -> int:
    """Read the request, write events, return the exit code."""
    # Libraries may print; stdout holds events alone.
    out, sys.stdout = sys.stdout, sys.stderr

    def emit(kind: str, content: dict[str, Any]) -> None:
        out.write(json.dumps({"event": kind, **content}) + "\n")
        out.flush()

    def report(error: QloraError) -> None:
        told = {"message": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
        asked = (error.choices, error.columns) if isinstance(error, UnclearFormatError) else ([], [])
        emit("error", {**told, "choices": asked[0], "columns": asked[1]})

    limits.last_words = report

    def consent(download: Download) -> bool:
        emit("download", {"what": download.what, "size": disk(download.size_bytes), "to": str(download.destination)})
        return bool(json.loads(sys.stdin.readline() or "false"))

    try:
        # Nothing is fetched without the answer of `consent`.
        environment.prepare(allow_download=True)
        request = json.loads(sys.stdin.readline())
        config = RunConfig.model_validate(request["config"])
        inspect(
            config,
            emit,
            shown_rows=request["shown_rows"],
            quick=request["quick"],
            consent=consent,
            picks=request.get("picks", False),
            check=request.get("check", False),
        )
    except QloraError as error:
        report(error)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.CANCELLED)
    return int(ExitCode.OK)


if __name__ == "__main__":
    raise SystemExit(main())
