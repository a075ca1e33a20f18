"""A finished run's folder in plain transformers and PEFT: its greedy answers and stops, compared with the product's."""

from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from qlora_tui.data.spans import Conversation
from qlora_tui.engine import chat_model, generate
from qlora_tui.engine.loading import keep_training_layout, quantization_config
from qlora_tui.models.folder import location
from qlora_tui.models.location import local_folder
from qlora_tui.runs.store import RunFolder

QUESTIONS = ("Where is the lamp?", "Who is Anna?")
MOST_TOKENS = 16
TIE = 0.02
"""Logits so close may change places: plain PEFT adds the adapter in another order."""


def is_here(run: RunFolder) -> bool:
    """Return whether the base is on this machine, and not on a hub that has gone."""
    return local_folder(run.load_config().model) is not None


def compare(run: RunFolder) -> None:
    """Raise AssertionError if the saved folder answers otherwise elsewhere."""
    loaded = chat_model.load(run, checkpoint=None, device="cpu", on_stage=print, on_notice=print)
    system = run.load_config().data.system_prompt
    model, words, settings = _plain(run)
    for question in QUESTIONS:
        asked = [{"role": "user", "content": question}]
        (ours,) = generate.answer(loaded.model, loaded.prompts, [Conversation(asked)], max_tokens=MOST_TOKENS)
        turns = [{"role": "system", "content": system}, *asked] if system else asked
        prompt = words.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            ids = model.generate(**prompt, generation_config=settings, do_sample=False, max_new_tokens=MOST_TOKENS)
        start = prompt["input_ids"].shape[1]
        theirs = words.decode(ids[0, start:], skip_special_tokens=True)
        assert theirs.strip() == ours.strip() or _is_tie(model, words, prompt["input_ids"], ids[0, start:], ours), (
            f"{run.name}: {question!r} is answered by {theirs!r} elsewhere, by {ours!r} here"
        )


def _plain(run: RunFolder) -> tuple[Any, Any, GenerationConfig]:
    config = run.load_config()
    settings = chat_model.chat_settings(config)
    words = AutoTokenizer.from_pretrained(run.adapter)
    kept = GenerationConfig.from_pretrained(run.adapter)
    if config.adapter.kind == "full":
        return AutoModelForCausalLM.from_pretrained(run.adapter, dtype=settings.dtype), words, kept
    base = AutoModelForCausalLM.from_pretrained(
        location(config.model),
        dtype=settings.dtype,
        quantization_config=quantization_config(config.quantization, settings.compute_dtype),
    )
    keep_training_layout(base)  # The packed one rounds the constants of the base.
    if len(words) > base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(len(words), mean_resizing=False)
    return PeftModel.from_pretrained(base, run.adapter).eval(), words, kept


def _is_tie(model: Any, words: Any, prompt: torch.Tensor, theirs: torch.Tensor, ours: str) -> bool:
    """Return whether the answers part at two tokens that are equally likely."""
    mine = words(ours, add_special_tokens=False)["input_ids"]
    pairs = zip(theirs.tolist(), [*mine, *[words.eos_token_id] * len(theirs)], strict=False)
    same = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
    if same is None:
        return False
    with torch.no_grad():
        logits = model(input_ids=torch.cat([prompt[0], theirs[:same]])[None]).logits[0, -1].float()
    other = mine[same] if same < len(mine) else words.eos_token_id
    return abs(float(logits[theirs[same]] - logits[other])) < TIE
