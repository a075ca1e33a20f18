"""A saved adapter gives the trained model's logits in plain PEFT on the plain base, or is refused before training."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
from test_bases import SIZE, WORDS, llama, logits, ready, save, shaken
from test_finished_runs import trained_here
from transformers import AutoModelForCausalLM

from qlora_tui.engine import finish, pissa
from qlora_tui.engine.loading import keep_training_layout, quantization_config
from qlora_tui.engine.resolve import resolve
from qlora_tui.engine.saved_check import check_saved
from qlora_tui.errors import ConfigError, ModelError
from qlora_tui.runs.store import RunFolder

__all__ = ["save"]

INITS = {
    "default": ("none", "nf4", "8bit"),
    "pissa": ("none", "nf4", "8bit"),
    "loftq": ("none", "nf4"),
}
"""Kinds of quantization to try with each start of the matrices."""

SAVED = ("", "lm_head", "embed_tokens", "embed_tokens,lm_head", "norm", "q_proj")
SWITCHES = ("dora", "rank_stabilized", "tied", "added_tokens")
LOOSE = 2e-2
"""Nats per token where the base is quantized: plain PEFT computes with another layout of the same weights."""


def cell(
    folder: Path, init: str, kind: str, saved: str, chosen: set[str], dtype: str = "float32"
) -> tuple[str, tuple[str, ...]]:
    """Write the base of a cell; return its folder and settings."""
    torch.manual_seed(0)
    base = llama(vocab_size=len(WORDS) if "added_tokens" in chosen else 16, tie_word_embeddings="tied" in chosen)
    base.save_pretrained(folder)
    settings = [f"quantization.kind={kind}", "adapter.rank=4", f"adapter.init={init}", f"model.dtype={dtype}"]
    settings += [f"adapter.{name}=true" for name in ("dora", "rank_stabilized") if name in chosen]
    if saved:
        settings.append(f"adapter.modules_to_save={saved}")
    if "patterns" in chosen:
        settings += ["adapter.rank_pattern=v_proj=2,down_proj=6", "adapter.alpha_pattern=v_proj=3,up_proj=5"]
    return str(folder), tuple(settings)


def outcome(save: Callable[[Any], Path], tmp_path: Path, name: str, *cell_of: Any) -> str:
    """Train a cell as far as the trainer would, save it and open it elsewhere: "equal", or why it was refused."""
    folder = save(llama())  # for its tokenizer
    _, settings = cell(folder, *cell_of)
    run = RunFolder(tmp_path / name)
    run.path.mkdir()
    try:
        model, words, config = ready(folder, *settings)
    except (ConfigError, ModelError) as refusal:
        return f"{refusal.message} {refusal.hint}"
    pissa.keep_initial(run, config, model)
    shaken(model)
    trained = logits(model)
    finish.save_weights(model, config, run.adapter, run.pissa_initial)
    plain = AutoModelForCausalLM.from_pretrained(
        folder, dtype=resolve(config).dtype, quantization_config=quantization_config(config.quantization, torch.float32)
    )
    keep_training_layout(plain)  # The packed one needs more than the 32 features of this model.
    if model.added_rows:
        plain.resize_token_embeddings(len(words), mean_resizing=False)
    opened = logits(PeftModel.from_pretrained(plain, run.adapter))
    if config.quantization.kind == "none" and config.model.dtype == "float32":
        torch.testing.assert_close(opened, trained, rtol=1e-3, atol=1e-3)
    else:
        before, after = (each.float().log_softmax(-1) for each in (trained, opened))
        assert float((before.exp() * (before - after)).sum(-1).mean()) < LOOSE
    check_saved(run.adapter, config, resolve(config), model, words)
    return "equal"


def cells() -> Iterator[tuple[str, str, str, frozenset[str]]]:
    """Every combination; patterns of ranks and alphas in the half with an even number of other switches."""
    for init, kinds in INITS.items():
        for kind, saved, flags in product(kinds, SAVED, product((False, True), repeat=len(SWITCHES))):
            chosen = {name for name, on in zip(SWITCHES, flags, strict=True) if on}
            yield init, kind, saved, frozenset(chosen if len(chosen) % 2 else {*chosen, "patterns"})


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("init", list(INITS))
def test_matrix_of_saved_adapters(save: Callable[[Any], Path], tmp_path: Path, init: str) -> None:
    """Every combination gives equal logits elsewhere, or is refused for a reason that names a setting."""
    failed: dict[tuple[Any, ...], str] = {}
    counts = {"equal": 0, "refused": 0}
    for number, each in enumerate(one for one in cells() if one[0] == init):
        try:
            found = outcome(save, tmp_path, f"{number}", *each)
        except (AssertionError, ModelError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            failed[(*each[:3], *sorted(each[3]))] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        counts["equal" if found == "equal" else "refused"] += 1
        if found != "equal" and "adapter." not in found:
            failed[(*each[:3], *sorted(each[3]))] = f"refused without a setting: {found}"
    assert not failed, "\n".join(f"{key}: {why}" for key, why in failed.items())
    assert counts["equal"] > counts["refused"] / 3, counts


@pytest.mark.parametrize(
    "of",
    [
        ("pissa", "none", "embed_tokens,lm_head", {"dora", "tied", "patterns"}),
        ("pissa", "none", "lm_head", {"rank_stabilized", "added_tokens", "patterns"}),
        ("pissa", "none", "", set(), "bfloat16"),
        ("default", "8bit", "", {"dora"}),
        ("default", "nf4", "", set()),
    ],
)
def test_saved_adapter_gives_the_trained_logits_in_plain_peft(
    save: Callable[[Any], Path], tmp_path: Path, of: tuple[Any, ...]
) -> None:
    assert outcome(save, tmp_path, "one", *of) == "equal"


def test_packed_layer_is_refused_before_training(save: Callable[[Any], Path], tmp_path: Path) -> None:
    found = outcome(save, tmp_path, "one", "default", "nf4", "q_proj", set())
    assert "adapter.modules_to_save: 'q_proj' holds model.layers.0.self_attn.q_proj" in found


@pytest.mark.parametrize("lost", ["lora_magnitude_vector", "lm_head", "lora_B"])
@pytest.mark.parametrize("init", ["default", "pissa"])
def test_adapter_that_lacks_a_part_is_noticed(
    save: Callable[[Any], Path], tmp_path: Path, init: str, lost: str
) -> None:
    """As PEFT's own conversion of PiSSA leaves out what is not a matrix."""
    folder = save(llama(vocab_size=16))
    settings = ("adapter.modules_to_save=lm_head", "adapter.dora=true", f"adapter.init={init}")
    model, words, config = ready(folder, "quantization.kind=none", "adapter.rank=4", *settings)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    pissa.keep_initial(run, config, model)
    shaken(model)
    finish.save_weights(model, config, run.adapter, run.pissa_initial)
    weights = load_file(run.adapter / "adapter_model.safetensors")
    save_file(
        {name: torch.ones_like(tensor) if lost in name else tensor for name, tensor in weights.items()},
        run.adapter / "adapter_model.safetensors",
    )
    with pytest.raises(ModelError, match="not the trained one"):
        check_saved(run.adapter, config, resolve(config), model, words)


def test_interrupted_pissa_run_keeps_the_base_it_began_with(save: Callable[[Any], Path], tmp_path: Path) -> None:
    """Also in bfloat16, where the matrices are rounded after the decomposition."""
    folder = save(llama(vocab_size=16))
    settings = ("quantization.kind=none", "adapter.rank=4", "adapter.init=pissa", "model.dtype=bfloat16")
    began, _, config = ready(folder, *settings)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    pissa.keep_initial(run, config, began)
    resumed, _, _ = ready(folder, *settings, pissa_initial=run.pissa_initial)
    for (name, one), (_, other) in zip(began.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_experts_refuse_pissa_before_training(save: Callable[[Any], Path]) -> None:
    folder = save(transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZE, num_local_experts=2)))
    with pytest.raises(ModelError, match=r"adapter\.init = pissa cannot decompose .*experts"):
        ready(folder, "quantization.kind=none", "adapter.rank=4", "adapter.init=pissa")


@pytest.mark.parametrize("name", ["norm", "lm_head"])
def test_module_trained_in_full_beside_bfloat16_weights_trains_and_answers(name: str) -> None:
    """It is trained in float32, so the rest of the forward pass needs mixed precision, on a CPU too."""
    _, state = trained_here(
        "one", "quantization.kind=none", "model.dtype=bfloat16", f"adapter.modules_to_save={name}",
        "training.max_steps=1", "data.eval_rows=2", "training.prediction_rows=1", "training.prediction_max_tokens=4",
    )  # fmt: skip
    assert state.phase == "finished", state.failed
