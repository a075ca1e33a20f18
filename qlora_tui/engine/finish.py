"""The finished adapter: saved in plain PEFT layout, with its tokenizer and a model card, and checked after saving."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file

from qlora_tui import __version__
from qlora_tui.config import toml_file
from qlora_tui.config.run import RunConfig
from qlora_tui.engine.adapters import set_adapter_dtype
from qlora_tui.engine.generate import answer
from qlora_tui.engine.resolve import Settings
from qlora_tui.engine.session import Session
from qlora_tui.errors import ModelError, StorageError
from qlora_tui.runs.store import RunFolder

_PROBE = "Say something."
_PROBE_TOKENS = 16
_CHECKED = "saved"


def keep_initial_adapter(run: RunFolder, config: RunConfig, model: Any) -> None:
    """Keep what a PiSSA adapter started from: the saved adapter is the difference to it, as plain LoRA."""
    if config.adapter.init == "pissa" and not _initial(run).exists():
        model.save_pretrained(_initial(run))


def _initial(run: RunFolder) -> Path:
    return run.path / "pissa-initial"


def save(
    session: Session, config: RunConfig, settings: Settings, model: Any, tokenizer: Any, metrics: dict[str, float]
) -> None:
    """Write `adapter/` complete or not at all, then prove that it loads and answers as the model in memory does.

    Raises StorageError when it cannot be written, ModelError when the written adapter is not the trained one.
    """
    session.stage("saving")
    run = session.run
    draft = run.path / ".adapter"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        options = {}
        if config.adapter.init == "pissa":
            options["path_initial_model_for_weight_conversion"] = str(_initial(run))
        model.save_pretrained(draft, **options)
        tokenizer.save_pretrained(draft)
        (draft / "README.md").write_text(model_card(session, config, settings, metrics), encoding="utf-8")
        (draft / "run.toml").write_text(toml_file.to_toml(config), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise StorageError(f"cannot write {run.adapter}: {error}", hint="Free some disk space and resume.") from error
    shutil.rmtree(run.adapter, ignore_errors=True)
    draft.rename(run.adapter)
    session.stage("verifying")
    if isinstance(model, PeftModel):
        check_saved(run.adapter, config, model, tokenizer)


def check_saved(folder: Path, config: RunConfig, model: Any, tokenizer: Any) -> None:
    """Load the saved adapter beside the trained one on the same base and compare. Raises ModelError."""
    weights = load_file(folder / "adapter_model.safetensors")
    changed = [tensor for name, tensor in weights.items() if "lora_B" in name]
    if changed and not any(tensor.float().norm() > 0 for tensor in changed):
        raise ModelError("the saved adapter is all zeros: nothing was learned", hint="Check the learning rate.")
    if config.adapter.init == "pissa":
        return  # saved for the untouched base, which is not the one in memory
    conversation = [[{"role": "user", "content": _PROBE}]]
    in_memory = next(answer(model, tokenizer, conversation, max_tokens=_PROBE_TOKENS))
    model.load_adapter(str(folder), adapter_name=_CHECKED)
    model.set_adapter(_CHECKED)
    set_adapter_dtype(model, next(t.dtype for n, t in model.named_parameters() if ".default." in n))
    try:
        reloaded = next(answer(model, tokenizer, conversation, max_tokens=_PROBE_TOKENS))
    finally:
        model.set_adapter("default")
        model.delete_adapter(_CHECKED)
    if reloaded != in_memory:
        raise ModelError(
            "the saved adapter answers differently from the trained one",
            hint=f"It is kept in {folder}; the checkpoints are untouched.",
        )


def model_card(session: Session, config: RunConfig, settings: Settings, metrics: dict[str, float]) -> str:
    """README.md of the adapter: what it is, how it was made, what was measured."""
    state = session.state
    model, dataset = state.model, state.dataset
    head = ["---", f"base_model: {json.dumps(config.model.id)}", "library_name: peft", "tags: [qlora, lora]", "---"]
    facts = [
        f"- base model: `{config.model.id}`" + (f" at `{config.model.revision}`" if config.model.revision else ""),
        f"- quantization while training: {config.quantization.kind}"
        + (
            ", double quantization"
            if config.quantization.double_quantization and config.quantization.is_four_bit
            else ""
        ),
        f"- device: {settings.device.type}, compute dtype {str(settings.compute_dtype).removeprefix('torch.')}",
        f"- steps: {state.step_number}",
    ]
    if model is not None:
        facts.append(f"- trainable parameters: {model.trainable_parameters:,} of {model.parameters:,}")
    if dataset is not None:
        facts.append(
            f"- data: `{config.data.source}`, {dataset.train_rows} training rows, {dataset.eval_rows} held out"
        )
    facts += [f"- {name.replace('_', ' ')}: {value:.4f}" for name, value in metrics.items()]
    peak_bytes = max(state.peak_bytes, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)
    if peak_bytes:
        facts.append(f"- peak GPU memory allocated: {peak_bytes / 2**30:.2f} GiB")
    return "\n".join(
        [
            *head, "", f"# {session.run.name}", "", f"A LoRA adapter trained with qlora-tui {__version__}.", "",
            *facts, "", "## Configuration", "", "```toml", toml_file.to_toml(config).strip(), "```", "",
        ]
    )  # fmt: skip


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
