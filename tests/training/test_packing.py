"""Packed rows do not see each other; a model whose attention cannot keep them apart is trained without packing."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from bitsandbytes.autograd import _functions
from bitsandbytes.nn import Linear8bitLt
from data_material import starter_tokenizer
from packaging.version import Version
from torch.nn.functional import cross_entropy
from training_material import Runs
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, BloomForCausalLM

from qlora_tui.config.overrides import resolve as configure
from qlora_tui.data.prepare import prepare
from qlora_tui.engine.adapters import attach
from qlora_tui.engine.loading import load_model
from qlora_tui.engine.packing import LEAKS, keeps_rows_apart
from qlora_tui.engine.resolve import resolve
from qlora_tui.engine.trainer import make_trainer
from qlora_tui.models.families import find
from qlora_tui.starter import MODEL_DIR

PACKED = (
    "training.packing=true",
    "training.max_length_tokens=128",
    "training.micro_batch_size=2",
    "training.gradient_checkpointing=off",
    "data.max_train_rows=30",
    "model.device=cpu",
    "quantization.compute_dtype=float32",
)


def trainer(model: Any, folder: Path) -> Any:
    config = configure(overrides=PACKED)
    rows = prepare(config, starter_tokenizer()).train
    return make_trainer(model, starter_tokenizer(), rows, None, config, resolve(config), output=folder)


def starter(attention: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL_DIR, attn_implementation=attention, dtype=torch.float32)


def bloom() -> Any:
    """Tells positions by distance alone, so that reset positions do not reach it."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "n_layer": 2, "n_head": 2}
    return BloomForCausalLM(BloomConfig(vocab_size=len(starter_tokenizer()), **sizes))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_row_is_computed_as_if_it_were_alone(tmp_path: Path, attention: str) -> None:
    """Every packed batch has the logits and the loss of its rows fed one by one."""
    model = starter(attention)
    made = trainer(model, tmp_path)
    rows = 0
    for batch in made.get_train_dataloader():
        loss = made.compute_loss(model, dict(batch))
        labels = batch.pop("labels")[0]
        packed = model(**batch, use_cache=False).logits[0]
        starts = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), len(packed)]
        parts = [batch["input_ids"][:, start:end] for start, end in pairwise(starts)]
        alone = torch.cat([model(input_ids=part, use_cache=False).logits[0] for part in parts])
        torch.testing.assert_close(packed, alone, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(loss, cross_entropy(alone[:-1], labels[1:]), rtol=1e-4, atol=1e-4)
        rows += len(parts)
    assert rows == 30
    assert keeps_rows_apart(made)


def test_four_bit_weights_are_probed_and_left_as_they_are(tmp_path: Path) -> None:
    """The probe tells rows apart from a leak, and moves no stored weight, whose rounding would stay for good."""
    config = configure(overrides=PACKED)
    settings = resolve(config)
    model = attach(load_model(config, settings, starter_tokenizer()), config, settings)
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert keeps_rows_apart(trainer(model, tmp_path))
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items() if name in stored)


def test_eight_bit_columns_that_all_rows_share_are_no_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU LLM.int8 keeps a column in 16 bits when any row has a large value there, also a row packed before."""
    monkeypatch.setattr(_functions, "MatMul8bitFp", _functions.MatMul8bitLt)  # what a GPU computes with
    config = configure(overrides=(*PACKED, "quantization.kind=8bit"))
    settings = resolve(config)
    model = attach(load_model(config, settings, starter_tokenizer()), config, settings)
    assert keeps_rows_apart(trainer(model, tmp_path))
    layers = [layer for layer in model.modules() if isinstance(layer, Linear8bitLt)]
    assert {layer.state.threshold for layer in layers} == {6.0}


@pytest.mark.parametrize("family", ["bloom", "opt", "falcon"])
def test_attention_that_mixes_packed_rows_is_recognised(tmp_path: Path, family: str) -> None:
    """The estimate says the same of these families."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    of_opt = {"ffn_dim": 32, "word_embed_proj_dim": 16} if family == "opt" else {}
    config = AutoConfig.for_model(family, vocab_size=len(starter_tokenizer()), **sizes, **of_opt)
    model = AutoModelForCausalLM.from_config(config)
    fixed = family == "falcon" and Version(transformers.__version__) >= Version("5.24")
    assert keeps_rows_apart(trainer(model, tmp_path)) == fixed
    assert any("training.packing is left out" in note for note in find(family).notes)


@pytest.mark.long
def test_a_model_that_would_mix_packed_rows_trains_without_packing(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "bloom"
    bloom().save_pretrained(folder)
    starter_tokenizer().save_pretrained(folder)
    run = runs.create("bloom", *PACKED, f"model.id={folder}", "quantization.kind=none", "training.max_steps=2")
    state = runs.train(run)
    assert state.phase == "finished", state.failed
    assert LEAKS in [warning.message for warning in state.warnings]
