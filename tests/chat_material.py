"""A finished run to chat with, made in seconds: the starter in NF4 and an adapter that was drawn, not trained."""

import os
import subprocess
import sys
from pathlib import Path

from qlora_tui import starter
from qlora_tui.config.overrides import resolve
from qlora_tui.runs import store
from qlora_tui.runs.store import RunFolder


def make_run(name: str, *settings: str, finished: bool = True, checkpoint: int | None = None) -> RunFolder:
    """A run in the current runs folder, with an adapter that changes every answer."""
    run = store.create(name, resolve("starter", None, settings), {})
    if finished:
        draw_adapter(run.adapter)
    if checkpoint is not None:
        draw_adapter(run.checkpoints / f"checkpoint-{checkpoint}")
    return run


def draw_adapter(folder: Path) -> None:
    """Write a LoRA adapter with random matrices, and the starter's tokenizer, as a run leaves them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(starter.MODEL_DIR, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    for tensor_name, tensor in model.named_parameters():
        if "lora_B" in tensor_name:
            torch.nn.init.normal_(tensor, std=0.2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(starter.MODEL_DIR).save_pretrained(folder)


def keep_all_weights(folder: Path) -> None:
    """Write a whole model, as a full finetune leaves it: the starter with every weight a little larger."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(starter.MODEL_DIR, dtype=torch.float32)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor *= 1.01
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(starter.MODEL_DIR).save_pretrained(folder)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "qlora_tui", "chat", *arguments]


def chat(*arguments: str, question: str = "") -> subprocess.CompletedProcess[str]:
    """`qlora-tui chat` in a pipe."""
    return subprocess.run(
        command(*arguments), input=question, capture_output=True, text=True, timeout=120, env=dict(os.environ)
    )
