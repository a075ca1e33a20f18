"""The finished adapter: saved in plain PEFT layout, with its tokenizer and a model card, and checked after saving."""

import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel

from qlora_tui import atomic
from qlora_tui.config import toml_file
from qlora_tui.config.run import RunConfig
from qlora_tui.engine import pissa, stopping
from qlora_tui.engine.card import added_rows, model_card
from qlora_tui.engine.resolve import Settings
from qlora_tui.engine.saved_check import check_saved
from qlora_tui.engine.session import Session
from qlora_tui.runs import checksums
from qlora_tui.runs.damage import ADAPTER_LIST
from qlora_tui.runs.freeze import PUBLISHED_COMMENT, published


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
        model.config.use_cache = True  # off while training; a fully trained model is saved with its configuration
        stopping.stop_at_turn_ends(model, tokenizer)
        save_weights(model, config, draft, run.pissa_initial)
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
        check_saved(run.adapter, config, settings, model, tokenizer)


def save_weights(model: Any, config: RunConfig, folder: Path, pissa_initial: Path) -> None:
    """Save the adapter, or the whole model, so that it fits the unchanged base."""
    if config.adapter.init == "pissa":
        pissa.save_as_lora(model, folder, pissa_initial)
    else:
        model.save_pretrained(folder)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
