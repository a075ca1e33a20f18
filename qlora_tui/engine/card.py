"""The model card of a finished adapter: README.md with the metadata that the Hugging Face Hub reads."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from qlora_tui import __version__
from qlora_tui.config import toml_file
from qlora_tui.config.data import SourceSpec
from qlora_tui.config.model import STARTER
from qlora_tui.config.run import RunConfig
from qlora_tui.data.registry import KNOWN, STARTER_SET
from qlora_tui.data.sources import hub_id
from qlora_tui.engine import oom
from qlora_tui.engine.resolve import Settings
from qlora_tui.engine.session import Session
from qlora_tui.models.describe import licence
from qlora_tui.models.location import public_id
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.runs.freeze import PUBLISHED_COMMENT, published
from qlora_tui.runs.state import RunState
from qlora_tui.units import memory

HUB_LICENCES = {
    "apache-2.0", "bigscience-bloom-rail-1.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "gemma",
    "gpl-3.0", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "mit", "openrail",
}  # fmt: skip
"""Licence identifiers known to the Hub. Other licences are written as "other" with their name."""

_TASK = "text-generation"
_LARGEST_EXPONENT = 700
"""The exponential of this is close to the largest float."""


def model_card(
    session: Session,
    config: RunConfig,
    settings: Settings,
    metrics: Mapping[str, float],
    *,
    added_tokens: int = 0,
    stops: Sequence[str] = (),
) -> str:
    """Return README.md of the adapter: description, training settings and results. It contains no local path."""
    name, state = session.run.name, session.state
    shown = published(config)
    return "\n".join(
        [
            "---", metadata(config, state, name, metrics), "---", "", f"# {name}", "",
            f"{_kind(config)} trained with qlora-tui {__version__}.", "", *_usage(config, added_tokens), *_stops(stops),
            *_facts(session, shown, settings, metrics), "", "## Configuration", "", "```toml",
            toml_file.to_toml(shown, comment=PUBLISHED_COMMENT).strip(), "```", "",
        ]
    )  # fmt: skip


def metadata(config: RunConfig, state: RunState, name: str, metrics: Mapping[str, float]) -> str:
    """Return the YAML block of the card. Base models and datasets that are not on the Hub are left out."""
    is_full = config.adapter.kind == "full"
    of_base = licence(config.model)
    data = ModelCardData(
        base_model=public_id(config.model) if "/" in public_id(config.model) else None,
        datasets=sorted({found for spec in _sources(config) if (found := hub_id(spec.source))}) or None,
        library_name="transformers" if is_full else "peft",
        license=of_base if of_base in HUB_LICENCES or of_base is None else "other",
        license_name=None if of_base in HUB_LICENCES else of_base,
        metrics=sorted({result.metric_type for result in _results(config, state, metrics)}) or None,
        model_name=name,
        eval_results=_results(config, state, metrics) or None,
        pipeline_tag=_TASK,
        tags=["qlora-tui", "full-finetune"] if is_full else ["qlora-tui", "qlora", "lora"],
    )
    return data.to_yaml().strip()


def _sources(config: RunConfig) -> list[SourceSpec]:
    """All data of a run, including evaluation data."""
    separate = config.data.eval_spec
    return [config.data, *config.data.mix, *([separate] if separate is not None else [])]


def _results(config: RunConfig, state: RunState, metrics: Mapping[str, float]) -> list[EvalResult]:
    """Results on held-out data, in the Hub's format."""
    shown = published(config).data
    rows = f"{shown.eval_source or shown.source}, held-out rows"
    of_rows = hub_id((config.data.eval_spec or config.data).source) or "local"
    found = []
    if (loss := metrics.get("eval_loss")) is not None:
        found.append(EvalResult(_TASK, of_rows, rows, "loss", loss, metric_name="evaluation loss"))
        if loss < _LARGEST_EXPONENT:
            found.append(EvalResult(_TASK, of_rows, rows, "perplexity", math.exp(loss)))
    accuracy = state.evals.last.metrics.get("mmlu_accuracy") if state.evals.last else None
    if accuracy is not None:
        found.append(EvalResult(_TASK, "local", "multiple choice", "accuracy", accuracy))
    return found


def _kind(config: RunConfig) -> str:
    return "A fully fine-tuned model" if config.adapter.kind == "full" else "A LoRA adapter"


def _usage(config: RunConfig, added_tokens: int) -> list[str]:
    if not added_tokens or config.adapter.kind == "full":
        return []
    return [
        f"The tokenizer has {added_tokens} tokens that the base model lacks; their embeddings are stored here. Before "
        "`PeftModel.from_pretrained(base, ...)`, call `base.resize_token_embeddings(len(tokenizer))`.", "",
    ]  # fmt: skip


def _stops(stops: Sequence[str]) -> list[str]:
    if not stops:
        return []
    shown = " or ".join(f"`{stop}`" for stop in stops)
    return [
        f"An answer ends with {shown}. `generation_config.json` contains these ids: pass "
        "`generation_config=GenerationConfig.from_pretrained(...)` to `generate`.", "",
    ]  # fmt: skip


def _facts(session: Session, shown: RunConfig, settings: Settings, metrics: Mapping[str, float]) -> list[str]:
    state, quantization = session.state, shown.quantization
    commit = read_plan(session.run).get("model_commit") or shown.model.revision
    doubly = ", double quantization" if quantization.double_quantization and quantization.is_four_bit else ""
    bundled = " (bundled with qlora-tui)" if shown.model.id == STARTER else ""
    facts = [
        f"- base model: `{shown.model.id}`{bundled}" + (f" at `{commit}`" if commit else ""),
        f"- quantization while training: {quantization.kind}{doubly}",
        f"- device: {settings.device.type}, compute dtype {str(settings.compute_dtype).removeprefix('torch.')}",
        f"- steps: {state.step_number}",
    ]
    if state.model is not None:
        trained = f"{state.model.trainable_parameters:,} of {state.model.parameters:,}"
        facts.append(f"- trainable parameters: {trained}")
    if state.dataset is not None:
        rows = f"{state.dataset.train_rows} training rows, {state.dataset.eval_rows} held out"
        facts.append(f"- data: `{shown.data.source}`, {rows}")
        facts += [f"- commit of `{name}`: `{commit}`" for name, commit in state.dataset.report["commits"].items()]
    facts += _data_licences(shown)
    facts += [f"- {name.replace('_', ' ')}: {value:.4f}" for name, value in metrics.items()]
    peak_bytes = max(state.peak_bytes, oom.peak_bytes(settings.device))
    where = "GPU memory allocated" if settings.device.type == "cuda" else "memory of the process"
    return [*facts, f"- peak {where}: {memory(peak_bytes)}"]


def _data_licences(config: RunConfig) -> list[str]:
    """The licences of the known data sets; other licences are unknown."""
    known = {
        spec.source: STARTER_SET if spec.source == STARTER else KNOWN.get(spec.source) for spec in _sources(config)
    }
    return [f"- licence of the data `{name}`: {found.license}" for name, found in known.items() if found is not None]


def added_rows(model: Any) -> int:
    """Return how many rows the embeddings of a plain or adapted model have gained for new tokens."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return int(getattr(base, "added_rows", 0))
