"""Models in folders: what their headers tell, and every way in which a folder is no base model."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BertConfig, BertForMaskedLM

from qlora_tui.config.model import ModelSpec
from qlora_tui.errors import ModelError, QloraError
from qlora_tui.models import describe
from qlora_tui.models.identity import weights_fingerprint
from qlora_tui.starter import MODEL_DIR

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
DEEP = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 24, "num_experts_per_tok": 2}
MLA = {"q_lora_rank": 20, "kv_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
VISION = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
GEMMA3 = {
    "text_config": SMALL | {"head_dim": 16},
    "vision_config": VISION | {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14},
}
SAVED = [
    ("llama", SMALL),
    ("mixtral", SMALL | {"num_local_experts": 3}),
    ("qwen2_moe", SMALL | {"num_experts": 3, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24}),
    ("qwen3_moe", SMALL | {"num_experts": 5, "moe_intermediate_size": 24, "decoder_sparse_step": 2}),
    ("gemma3", GEMMA3),
    ("phi3", SMALL),
    ("falcon", SMALL),
    ("gpt_neox", SMALL),
    ("opt", SMALL | {"ffn_dim": 80}),
    ("bloom", {"vocab_size": 96, "hidden_size": 48, "n_layer": 2, "n_head": 6}),
    ("gpt2", {"vocab_size": 96, "n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 64}),
    ("deepseek_v3", SMALL | MLA | DEEP | {"first_k_dense_replace": 1, "num_key_value_heads": 6}),
    ("gpt_oss", SMALL | {"head_dim": 10, "num_local_experts": 3}),
    ("t5", {"vocab_size": 96, "d_model": 48, "d_kv": 10, "d_ff": 80, "num_layers": 2, "num_heads": 6}),
]


def saved(folder: Path, model_type: str, settings: dict[str, Any], dtype: torch.dtype = torch.bfloat16) -> Any:
    """A model with random weights, written by transformers as published models are."""
    config = AutoConfig.for_model(model_type, **settings)
    factory = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = factory.from_config(config).to(dtype)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(("model_type", "settings"), SAVED)
def test_headers_agree_with_the_closed_form(tmp_path: Path, model_type: str, settings: dict[str, Any]) -> None:
    model = saved(tmp_path, model_type, settings, torch.float16)
    facts = describe(str(tmp_path))
    assert facts.family == model_type
    assert facts.parameters == model.num_parameters()
    assert facts.dtype == "float16"
    assert set(facts.dtypes_by_class.values()) == {("float16",)}
    assert facts.checkpoint_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert not [note for note in facts.notes if "The weights" in note or "not looked at" in note]


def test_heads_without_an_entry_need_not_be_a_share_of_the_width(tmp_path: Path) -> None:
    """As of google/mt5-small, an encoder-decoder model: six heads of 64 on a width of 512."""
    settings = {"vocab_size": 96, "d_model": 64, "d_kv": 8, "d_ff": 80, "num_layers": 2, "num_heads": 6}
    model = saved(tmp_path, "mt5", settings)
    facts = describe(str(tmp_path))
    assert facts.family is None and (facts.heads, facts.head_dim) == (6, 8)
    assert facts.encoder_decoder and any("encoder-decoder" in note for note in facts.notes)
    assert facts.parameters == model.num_parameters()


def test_a_model_that_does_not_write_text_is_said_to_be_one(tmp_path: Path) -> None:
    settings = {"vocab_size": 96, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
    BertForMaskedLM(BertConfig(**settings, num_attention_heads=6)).save_pretrained(tmp_path)
    assert any("BertForMaskedLM, which does not write text" in note for note in describe(str(tmp_path)).notes)


@pytest.mark.parametrize("model_type", ["olmo", "starcoder2", "gpt_bigcode"])
def test_an_architecture_without_an_entry_is_read_off_its_weights(tmp_path: Path, model_type: str) -> None:
    settings = {"n_embd": 48, "n_layer": 2, "n_head": 6, "vocab_size": 96, "pad_token_id": 0}
    model = saved(tmp_path, model_type, settings if model_type == "gpt_bigcode" else SMALL | {"head_dim": 8})
    facts = describe(str(tmp_path))
    assert facts.family is None
    assert facts.parameters == model.num_parameters()
    assert (facts.layers, facts.hidden_size, facts.heads, facts.vocab_size) == (2, 48, 6, 96)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    assert sum(group.count for group in facts.linear_layers) == len(linear)
    assert facts.parameters_by_class["linear"] == sum(module.weight.numel() for module in linear)
    assert any("no entry of its own" in note for note in facts.notes)


def test_the_bundled_model_is_described() -> None:
    facts = describe("starter")
    assert facts.origin == "bundled"
    assert facts.tied and facts.family == "llama"
    assert facts.checkpoint_bytes == (MODEL_DIR / "model.safetensors").stat().st_size


def test_each_class_has_the_dtype_it_is_stored_in(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL)).to(torch.bfloat16)
    model.model.embed_tokens.float()
    model.save_pretrained(tmp_path)
    assert describe(str(tmp_path)).dtypes_by_class == {
        "linear": ("bfloat16",),
        "embedding": ("float32",),
        "head": ("bfloat16",),
        "norm": ("bfloat16",),
    }


def test_what_the_weights_hold_too_much_or_too_little_is_noted(tmp_path: Path) -> None:
    tensors = whole(tmp_path)
    tensors["model.surprise.weight"] = np.zeros((3, 5), np.float32)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    notes = " ".join(describe(str(tmp_path)).notes)
    assert "1 tensors (15 parameters)" in notes and "model.surprise.weight" in notes
    assert "lack model.layers.*.mlp.up_proj.weight" in notes


def whole(folder: Path) -> dict[str, Any]:
    """A complete llama in `folder`; its tensors."""
    model = saved(folder, "llama", SMALL, torch.float32)
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def changed(**settings: Any) -> Callable[[Path], None]:
    """Writes other values into config.json; None takes the key out."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | settings
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def wrote(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def without_weights(*others: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for name in others:
            (folder / name).write_bytes(b"x")

    return change


def alone(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()
        (folder / name).write_bytes(b"{}")

    return change


def cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def folder_for_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


def sharded(folder: Path) -> None:
    shards = {f"t{n}": f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)}
    (folder / "model.safetensors").rename(folder / shards["t1"])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"t": "../secret.safetensors"}}))


def index_of_nothing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.safetensors.index.json")
    wrote("model.safetensors.index.json", "{}")(folder)


BAD: list[tuple[str, Callable[[Path], None], str]] = [
    (
        "heads that do not divide",
        changed(head_dim=None, num_attention_heads=7, num_key_value_heads=7),
        "hidden_size 48 does not divide by",
    ),
    ("key-value heads that do not divide", changed(num_key_value_heads=4), "does not divide by num_key_value_heads 4"),
    ("no hidden size", changed(hidden_size=None), "names no hidden_size"),
    ("no layers", changed(num_hidden_layers=None), "names no num_hidden_layers"),
    ("no vocabulary", changed(vocab_size=None), "names no vocab_size"),
    ("zero layers", changed(num_hidden_layers=0), "num_hidden_layers is 0"),
    ("a negative size", changed(intermediate_size=-80), "intermediate_size is -80"),
    ("an absurd size", changed(hidden_size=10**30), "hidden_size is 1000"),
    ("absurdly many layers", changed(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    ("a size in words", changed(hidden_size="48"), "hidden_size is '48', not a whole number"),
    ("a fraction", changed(hidden_size=48.5), "hidden_size is 48.5, not a whole number"),
    ("no share of a head", changed(partial_rotary_factor=float("nan")), "partial_rotary_factor is nan"),
    ("a share in words", changed(rope_parameters={"partial_rotary_factor": "half"}), "is 'half', not from 0 to 1"),
    ("another width than its weights", changed(hidden_size=96, head_dim=8), "config.json makes it [96, 96]"),
    ("another vocabulary than its weights", changed(vocab_size=97), "is [96, 48], config.json makes it [97, 48]"),
    (
        "uneven heads",
        changed(num_attention_heads=8, num_key_value_heads=3),
        "8 does not divide by num_key_value_heads 3",
    ),
    ("no architecture", changed(architectures=None), "names no architectures"),
    ("an architecture that is no list", changed(architectures="Llama"), "names no architectures"),
    ("no model type", changed(model_type=None), "names no model_type"),
    ("GPTQ", changed(quantization_config={"quant_method": "gptq", "bits": 4}), "stored quantized already (gptq)"),
    ("AWQ", changed(quantization_config={"quant_method": "awq"}), "stored quantized already (awq)"),
    ("fp8", changed(quantization_config={"quant_method": "fp8"}), "stored quantized already (fp8)"),
    ("bnb", changed(quantization_config={"quant_method": "bitsandbytes"}), "quantized already (bitsandbytes)"),
    ("odd quantization", changed(quantization_config="yes"), "stored quantized already"),
    ("config.json cut off", wrote("config.json", '{"model_type": '), "config.json cannot be read"),
    ("config.json without end", wrote("config.json", "[" * 100_000), "config.json cannot be read"),
    ("config.json of another kind", wrote("config.json", "[]"), "is not a JSON object"),
    ("config.json that is a folder", folder_for_config, "config.json cannot be read: Is a directory"),
    ("weights cut off", cut_off, "model.safetensors is damaged"),
    ("weights that are none", wrote("model.safetensors", "<html>"), "model.safetensors is damaged"),
    ("shards missing", sharded, "lacks 2 of 3 weight files, first model-00002-of-00003.safetensors"),
    ("shards elsewhere", outside, "names no weight files beside it"),
    ("an index that is none", index_of_nothing, "index.json cannot be read"),
    ("an adapter", alone("adapter_config.json"), "holds an adapter, not a base model"),
    ("GGUF", alone("model-Q4_K_M.gguf"), "holds GGUF files"),
    ("nothing", alone("notes.txt"), "has no config.json"),
]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("complete")
    saved(folder, "llama", SMALL)
    return folder


@pytest.mark.parametrize(("spoil", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_folder_that_is_no_base_model_is_refused(
    complete: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = copied(complete, tmp_path)
    spoil(folder)
    with pytest.raises(ModelError) as refused:
        describe(str(folder))
    assert message in refused.value.message
    assert refused.value.hint


def copied(complete: Path, folder: Path) -> Path:
    for file in complete.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_weights_in_another_layout_beside_whole_ones_are_not_read(complete: Path, tmp_path: Path) -> None:
    folder = copied(complete, tmp_path)
    (folder / "consolidated.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    shards = {"weight_map": {"t1": "consolidated-00001-of-00002.safetensors"}}
    (folder / "consolidated.safetensors.index.json").write_text(json.dumps(shards))
    facts, alone_facts = describe(str(folder)), describe(str(complete))
    assert (facts.modules, facts.checkpoint_bytes) == (alone_facts.modules, alone_facts.checkpoint_bytes)


def test_paths_that_are_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        describe(str(tmp_path / "nowhere"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="is a GGUF file"):
        describe(str(tmp_path / "model.gguf"))


def test_pickled_weights_are_described_from_config_json_with_a_warning(complete: Path, tmp_path: Path) -> None:
    folder = copied(complete, tmp_path)
    without_weights("pytorch_model.bin")(folder)
    facts = describe(str(folder))
    assert facts.parameters == describe(str(complete)).parameters
    assert any("pickle" in note for note in facts.notes)
    (folder / "pytorch_model.bin").unlink()
    assert describe(str(folder)).parameters == facts.parameters
    changed(model_type="never-heard-of")(folder)
    with pytest.raises(ModelError, match="nothing is known of architecture never-heard-of"):
        describe(str(folder))


def test_no_config_json_whatsoever_ends_in_a_traceback(complete: Path, tmp_path: Path) -> None:
    """Values of every wrong kind, in every key that the starter's family and others read."""
    folder = copied(complete, tmp_path)
    without_weights("pytorch_model.bin")(folder)
    original = json.loads((folder / "config.json").read_text())
    junk: list[Any] = [None, 0, -1, 1, 3, 7.5, "", "x", [], {}, [1], {"a": 1}, True, False, 10**40, "\x1b[31m", [[]]]
    junk += [float("nan"), float("inf")]
    keys = [*original, "head_dim", "sliding_window", "layer_types", "text_config", "moe_layers", "mlp_only_layers"]
    keys += ["decoder_sparse_step", "first_k_dense_replace", "num_experts", "rope_scaling", "vision_config"]
    keys += ["partial_rotary_factor"]
    types = ["llama", "qwen3_moe", "gemma3", "llama4", "deepseek_v3", "falcon", "t5", "mixtral"]
    chooser = random.Random(0)
    outcomes = set()
    for _ in range(1500):
        config = original | {"model_type": chooser.choice(types)}
        config |= {chooser.choice(keys): chooser.choice(junk) for _ in range(chooser.randint(1, 3))}
        (folder / "config.json").write_text(json.dumps(config))
        try:
            facts = describe(str(folder))
            assert facts.parameters > 0
            outcomes.add("described")
        except QloraError as error:
            assert error.message and error.hint
            outcomes.add("refused")
    assert outcomes == {"described", "refused"}


def test_weights_are_known_again_wherever_they_lie(complete: Path, tmp_path: Path) -> None:
    """Small files by every byte; a large one by enough of it that other weights are noticed."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, there = copied(complete, tmp_path / "a"), copied(complete, tmp_path / "b")
    assert fingerprint(here) == fingerprint(there) is not None
    weights = there / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert fingerprint(here) != fingerprint(there)
    for folder, seed in ((here, 0), (there, 1)):
        numbers = np.random.default_rng(seed).standard_normal(5 << 20, dtype=np.float32)
        save_file({"weight": numbers}, folder / "model.safetensors")
    assert fingerprint(here) != fingerprint(there)
    assert weights_fingerprint(ModelSpec(id="some/model")) is None


def fingerprint(folder: Path) -> str | None:
    return weights_fingerprint(ModelSpec(id=str(folder)))
