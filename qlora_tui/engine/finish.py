"""The finished adapter: saved in plain PEFT layout, with its tokenizer and a model card, and checked after saving."""

import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import load_file

from qlora_tui import atomic
from qlora_tui.config import toml_file
from qlora_tui.config.run import RunConfig
from qlora_tui.data.rows import Turn
from qlora_tui.data.spans import Conversation
from qlora_tui.engine import stopping
from qlora_tui.engine.card import added_rows, model_card
from qlora_tui.engine.generate import answer
from qlora_tui.engine.prompts import Prompts
from qlora_tui.engine.resolve import Settings
from qlora_tui.engine.session import Session
from qlora_tui.errors import ModelError
from qlora_tui.runs import checksums
from qlora_tui.runs.damage import ADAPTER_LIST
from qlora_tui.runs.freeze import PUBLISHED_COMMENT, published
from qlora_tui.runs.store import RunFolder

_PROBE = "Say something."
_PROBE_TOKENS = 16


def keep_initial_adapter(run: RunFolder, config: RunConfig, model: Any) -> None:
    """Keep what a PiSSA adapter started from: the saved adapter is the difference to it, as plain LoRA."""
    if config.adapter.init != "pissa" or run.pissa_initial.exists():
        return
    draft = run.path / ".pissa-initial"
    model.save_pretrained(draft)
    atomic.fsync_tree(draft)
    draft.rename(run.pissa_initial)


def initial_adapter(run: RunFolder) -> Path | None:
    """Where `keep_initial_adapter` put it when the run began; None for a run that begins now, or without PiSSA."""
    return run.pissa_initial if run.pissa_initial.exists() else None


def save(
    session: Session, config: RunConfig, settings: Settings, model: Any, tokenizer: Any, metrics: dict[str, float]
) -> None:
    """Write `adapter/` complete or not at all, then prove that it loads and answers as the model in memory does.

    Raises ModelError when the written adapter is not the trained one.
    """
    session.stage("saving")
    run = session.run
    draft = run.path / ".adapter"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        options = {}
        if config.adapter.init == "pissa":
            options["path_initial_model_for_weight_conversion"] = str(run.pissa_initial)
        model.config.use_cache = True  # off while training; a fully trained model is saved with its configuration
        stopping.stop_at_turn_ends(model, tokenizer)
        model.save_pretrained(draft, **options)
        model.generation_config.save_pretrained(draft)  # PEFT leaves it out
        stopping.published_tokenizer(tokenizer).save_pretrained(draft)
        stops = tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id)
        card = model_card(session, config, settings, metrics, added_tokens=added_rows(model), stops=stops)
        (draft / "README.md").write_text(card, encoding="utf-8")
        settings_text = toml_file.to_toml(published(config), comment=PUBLISHED_COMMENT)
        (draft / "run.toml").write_text(settings_text, encoding="utf-8")
        checksums.write_list(draft, ADAPTER_LIST, leave_out=lambda path: path.suffix in (".md", ".toml"))
        atomic.fsync_tree(draft)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(run.adapter, ignore_errors=True)
    draft.rename(run.adapter)
    session.stage("verifying")
    if isinstance(model, PeftModel):
        check_saved(run.adapter, config, model, tokenizer)


def check_saved(folder: Path, config: RunConfig, model: Any, tokenizer: Any) -> None:
    """Load the saved adapter in the place of the trained one and compare what both answer. Raises ModelError."""
    weights = load_file(folder / "adapter_model.safetensors")
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ModelError(
            "training diverged: the trained weights are not finite numbers",
            hint="Train again with a lower training.learning_rate.",
        )
    changed = [tensor for name, tensor in weights.items() if "lora_B" in name]
    if changed and not any(tensor.float().norm() > 0 for tensor in changed):
        raise ModelError("the saved adapter is all zeros: nothing was learned", hint="Check the learning rate.")
    if config.adapter.init == "pissa":
        return  # saved for the untouched base, which is not the one in memory
    prompts = Prompts.of(tokenizer, config.data)
    conversation = [Conversation([Turn(role="user", content=_PROBE)])]
    in_memory = next(answer(model, prompts, conversation, max_tokens=_PROBE_TOKENS))
    dtypes = {name: tensor.dtype for name, tensor in model.named_parameters() if tensor.requires_grad}
    for name, tensor in model.named_parameters():
        if name in dtypes:
            tensor.data.zero_()  # so that nothing is left of what the file might lack
    model.load_adapter(str(folder), "default", is_trainable=True)
    for name, tensor in model.named_parameters():
        if name in dtypes:
            tensor.data = tensor.data.to(dtypes[name])
    reloaded = next(answer(model, prompts, conversation, max_tokens=_PROBE_TOKENS))
    if reloaded != in_memory:
        raise ModelError(
            "the saved adapter answers differently from the trained one",
            hint=f"It is kept in {folder}; the checkpoints are untouched.",
        )


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
