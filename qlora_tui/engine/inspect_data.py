"""Looks into a dataset for `qlora-tui data inspect` and the data screen: `python -m qlora_tui.engine.inspect_data`.

A request comes as one JSON line on stdin ({"config": a RunConfig, "shown_rows", "quick"}), events go as JSON lines to
stdout: "source", "sample" and "estimate" within a moment, from the first rows; then "progress", and "report" once every
row has been prepared as training would; or "error" at any point, with "choices" (settings by key) where the rows can be
read in several ways. "download" is a question: the next line of stdin is the answer, true or false. Only the tokenizer
is loaded, no model.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from qlora_tui.config.data import SourceSpec
from qlora_tui.config.model import ModelSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.data.detect import AmbiguousFormatError
from qlora_tui.data.downloads import Consent, Download, Progress, ask, size
from qlora_tui.data.load import Rows, load_source, read_rows
from qlora_tui.data.prepare import first_look, survey
from qlora_tui.data.preview import preview
from qlora_tui.data.recipe import recipe_of
from qlora_tui.data.red_flags import RedFlags
from qlora_tui.data.report import warnings
from qlora_tui.data.row_encoder import Batch
from qlora_tui.data.statistics import numbers
from qlora_tui.data.tokenizer import Tokenizer
from qlora_tui.engine import environment
from qlora_tui.errors import ExitCode, ModelError, QloraError
from qlora_tui.models.location import local_folder

SAMPLE_ROWS = 200
_EVENTS_A_SECOND = 8
_GENERIC_CLASSES = {"PreTrainedTokenizerFast", "TokenizersBackend"}
"""Tokenizer classes that add nothing to tokenizer.json, so that it can be loaded without the model classes."""

Emit = Callable[[str, dict[str, Any]], None]


def inspect(config: RunConfig, emit: Emit, *, shown_rows: int, quick: bool, consent: Consent) -> None:
    """Emit what there is to know, the quick part first. Raises QloraError."""
    progress = _throttled(emit)
    # Bad rows do not keep the rest from being seen; the full pass reports them as the run would.
    read = read_rows(config.data, skip_bad_rows=True, streaming=quick or config.data.streaming, consent=consent)
    rows = list(islice(read.rows, max(SAMPLE_ROWS, shown_rows)))
    emit("source", _source(read, len(rows)))
    recipe = recipe_of(config, load_tokenizer(config.model, consent))
    shown = preview(recipe, _batch(rows[:shown_rows])) if rows else []
    emit("sample", {"rows": [asdict(row) for row in shown], "template": _template(recipe.template)})
    tally = first_look(_batch(rows), recipe)
    flags = RedFlags()
    flags.add(_batch(rows))
    emit("estimate", {**numbers(tally, config.training), "flags": flags.found(), "warnings": warnings(tally)})
    if not quick:
        _report(config, recipe.tokenizer, emit, consent, progress)


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
        "notes": read.notes,
        "sampled_rows": rows,
        "bad_rows": read.bad.count,
        "first_bad_rows": [asdict(row) for row in read.bad.rows[:3]],
    }


def _template(template: Any) -> dict[str, Any]:
    return {"name": template.name, "notes": template.notes}


def _report(config: RunConfig, tokenizer: Tokenizer, emit: Emit, consent: Consent, progress: Progress) -> None:
    report, tally = survey(config, tokenizer, consent=consent, on_progress=progress)
    flags = RedFlags()
    if not config.data.streaming:
        for spec in (config.data, *config.data.mix):
            _look_for_flags(spec, config.data.skip_bad_rows, flags, progress)
    emit("report", {**numbers(tally, config.training), "flags": flags.found(), "prepared": report.to_json()})


def _look_for_flags(spec: SourceSpec, skip_bad_rows: bool, flags: RedFlags, progress: Progress) -> None:
    loaded = load_source(spec, skip_bad_rows=skip_bad_rows, on_progress=progress)
    rows = loaded.dataset.select_columns(["messages", "text", "origin"])
    done = 0
    for batch in rows.iter(batch_size=1000):
        flags.add(batch)
        done += len(batch["origin"])
        progress("looking for red flags", done, len(rows))


def load_tokenizer(spec: ModelSpec, consent: Consent) -> Tokenizer:
    """The model's tokenizer alone, as fast as it can be had. Raises ModelError."""
    folder = local_folder(spec)
    if folder is not None and not folder.is_dir():
        raise ModelError(f"no model folder {spec.id}", hint="Give a model folder, or a hub id such as owner/name.")
    try:
        if folder is not None:
            return _load(folder, spec, local_files_only=True)
        try:
            return _load(spec.id, spec, local_files_only=True)
        except OSError:
            from huggingface_hub.constants import HF_HUB_CACHE

            ask(Download(f"the tokenizer of {spec.id}", None, Path(HF_HUB_CACHE)), consent)
            return _load(spec.id, spec, local_files_only=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"the tokenizer of {spec.id} cannot be loaded: {reason}",
            hint="Give a hub id, or a model folder that holds a tokenizer.json.",
        ) from error


def _load(place: Path | str, spec: ModelSpec, *, local_files_only: bool) -> Tokenizer:
    if isinstance(place, Path) and _is_generic(place):
        from transformers import PreTrainedTokenizerFast

        fast: Tokenizer = PreTrainedTokenizerFast.from_pretrained(place)
        return fast
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(
        place,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        local_files_only=local_files_only,
    )
    return tokenizer


def _is_generic(folder: Path) -> bool:
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and settings.get("tokenizer_class") in _GENERIC_CLASSES


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

    def consent(download: Download) -> bool:
        emit("download", {"what": download.what, "size": size(download.size_bytes), "to": str(download.destination)})
        return bool(json.loads(sys.stdin.readline() or "false"))

    try:
        # Nothing is fetched without the answer of `consent`.
        environment.prepare(allow_download=True)
        request = json.loads(sys.stdin.readline())
        config = RunConfig.model_validate(request["config"])
        inspect(config, emit, shown_rows=request["shown_rows"], quick=request["quick"], consent=consent)
    except QloraError as error:
        choices = error.choices if isinstance(error, AmbiguousFormatError) else []
        told = {"message": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
        emit("error", {**told, "choices": choices})
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.CANCELLED)
    return int(ExitCode.OK)


if __name__ == "__main__":
    raise SystemExit(main())
