"""Bases of many kinds, made ready to train in this process: what is adapted, what is saved, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from qlora_tui.config.overrides import resolve as configured
from qlora_tui.data.rows import Turn
from qlora_tui.data.spans import Conversation
from qlora_tui.engine import adapters, loading, oom, pissa
from qlora_tui.engine.generate import answer
from qlora_tui.engine.prompts import Prompts
from qlora_tui.engine.resolve import Settings, resolve
from qlora_tui.engine.trainer import ExactTrainer, training_arguments
from qlora_tui.errors import ConfigError, ModelError

WORDS = ("<end>", "user", "assistant", "who", "are", "you", "me", "nobody")
SIZE: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None,
}  # fmt: skip
UNQUANTIZED = ("quantization.kind=none", "adapter.rank=4")


def tokenizer() -> PreTrainedTokenizerFast:
    """No pad token, and none that could serve as one: the model has a row for each word and no more."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="nobody"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    made.chat_template = (
        "{% for m in messages %}{{ m.role }} {{ m.content }} <end> {% endfor %}"
        "{% if add_generation_prompt %}assistant {% endif %}"
    )
    return made


@pytest.fixture(autouse=True, scope="module")
def one_thread_here() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a random model and the tokenizer to a folder."""

    def saved(model: Any) -> Path:
        model.save_pretrained(tmp_path / "base")
        tokenizer().save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    return saved


def llama(**settings: Any) -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZE, **settings}))


def ready(folder: Path, *overrides: str, pissa_initial: Path | None = None, **load: Any) -> tuple[Any, Any, Any]:
    """Model with its adapter, tokenizer and configuration, as a worker makes them."""
    config = configured(overrides=(f"model.id={folder}", "model.device=cpu", *overrides))
    words = loading.load_tokenizer(config.model)
    settings = resolve(config)
    base = loading.load_model(config, settings, words)
    return adapters.attach(base, config, settings, pissa_initial), words, config


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.eval()(torch.tensor([[1, 3, 4, 5]])).logits
    return result


def shaken(model: Any) -> Any:
    """The model as if it had been trained: every trained weight moved."""
    torch.manual_seed(1)
    for tensor in model.parameters():
        if tensor.requires_grad:
            tensor.data += torch.randn_like(tensor) * 0.1
    return model


def test_added_tokens_are_saved_and_nothing_else_is(save: Callable[[Any], Path], tmp_path: Path) -> None:
    folder = save(llama())
    model, words, _ = ready(folder, *UNQUANTIZED)
    assert words.pad_token_id == len(WORDS)
    shaken(model).save_pretrained(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    table = next(tensor for name, tensor in stored.items() if "embed_tokens" in name)
    torch.testing.assert_close(table[-1], table[:-1].mean(dim=0))

    plain = AutoModelForCausalLM.from_pretrained(folder)
    plain.resize_token_embeddings(len(words), mean_resizing=False)
    opened = PeftModel.from_pretrained(plain, tmp_path / "adapter")
    torch.testing.assert_close(logits(opened), logits(model))

    roomy = save(llama(vocab_size=16))
    model, _, _ = ready(roomy, *UNQUANTIZED)
    model.save_pretrained(tmp_path / "other")
    assert all("lora" in name for name in load_file(tmp_path / "other" / "adapter_model.safetensors"))


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
def test_a_trained_embedding_stays_shared_with_the_head(save: Callable[[Any], Path], tmp_path: Path, name: str) -> None:
    folder = save(llama(vocab_size=16, tie_word_embeddings=True))
    model, _, config = ready(folder, *UNQUANTIZED, f'adapter.modules_to_save=["{name}"]')
    assert config.adapter.modules_to_save == [name]
    base = model.get_base_model()
    assert base.get_output_embeddings().weight is base.get_input_embeddings().weight
    assert base.get_output_embeddings().weight.requires_grad
    shaken(model).save_pretrained(tmp_path / "adapter")
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter")
    torch.testing.assert_close(logits(opened), logits(model))


def test_pissa_goes_on_from_the_weights_it_began_with(save: Callable[[Any], Path], tmp_path: Path) -> None:
    """The decomposition is randomized, so a resumed worker must not make its own."""
    folder = save(llama(vocab_size=16))
    settings = (*UNQUANTIZED, "adapter.init=pissa")
    torch.manual_seed(0)
    began, _, _ = ready(folder, *settings)
    began.save_pretrained(tmp_path / "initial")
    torch.manual_seed(1)
    resumed, _, _ = ready(folder, *settings, pissa_initial=tmp_path / "initial")
    assert resumed.peft_config["default"].init_lora_weights == began.peft_config["default"].init_lora_weights
    for (name, one), (_, other) in zip(began.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_only_the_language_model_of_a_seeing_one_is_adapted(save: Callable[[Any], Path], tmp_path: Path) -> None:
    seeing = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    text = {**SIZE, "vocab_size": 64, "head_dim": 8, "pad_token_id": 0}
    config = transformers.Gemma3Config(text_config=text, vision_config=seeing, mm_tokens_per_image=4,
                                       image_token_index=60, boi_token_index=61, eoi_token_index=62)  # fmt: skip
    folder = save(transformers.Gemma3ForConditionalGeneration(config))
    model, _, _ = ready(folder, *UNQUANTIZED)
    trained = [name for name, tensor in model.named_parameters() if tensor.requires_grad]
    assert trained and all("language_model" in name for name in trained)
    shaken(model).save_pretrained(tmp_path / "adapter")
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter")
    torch.testing.assert_close(logits(opened), logits(model))


def test_experts_refuse_dropout_by_name(save: Callable[[Any], Path]) -> None:
    folder = save(transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZE, num_local_experts=2)))
    with pytest.raises(ModelError, match="experts") as caught:
        ready(folder, *UNQUANTIZED, "adapter.dropout=0.1")
    assert "adapter.dropout" in caught.value.hint
    model, _, _ = ready(folder, *UNQUANTIZED)
    assert any("experts" in name for name, tensor in model.named_parameters() if tensor.requires_grad)


def test_a_model_without_fused_attention_trains_with_the_plain_one(save: Callable[[Any], Path]) -> None:
    config = transformers.BloomConfig(vocab_size=16, hidden_size=32, n_layer=1, n_head=2)
    model, _, _ = ready(save(transformers.BloomForCausalLM(config)), *UNQUANTIZED)
    assert model.config._attn_implementation == "eager"


def test_rows_that_a_model_was_not_made_for_are_named() -> None:
    """With rotary positions a warning; a table of positions has none for them."""
    rotary = llama(max_position_embeddings=64)
    assert loading.beyond_context(rotary, 64) is None
    said = loading.beyond_context(rotary, 1000)
    assert said is not None and "1,000 tokens" in said and "training.max_length_tokens = 64" in said
    table = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=16, n_positions=64, n_embd=32, n_layer=1, n_head=2)
    )
    assert loading.beyond_context(table, 64) is None
    with pytest.raises(ConfigError, match="made for 64") as caught:
        loading.beyond_context(table, 65)
    assert "training.max_length_tokens = 64" in caught.value.hint


def test_an_encoder_decoder_model_is_refused(save: Callable[[Any], Path]) -> None:
    config = transformers.T5Config(vocab_size=16, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    with pytest.raises(ModelError, match="encoder-decoder"):
        ready(save(transformers.T5ForConditionalGeneration(config)), *UNQUANTIZED)


def test_an_adapter_on_the_head_is_refused(save: Callable[[Any], Path]) -> None:
    folder = save(llama(vocab_size=16))
    with pytest.raises(ModelError, match="output head"):
        ready(folder, *UNQUANTIZED, 'adapter.target_modules=["q_proj", "lm_head"]')


def test_float32_norms_before_a_bfloat16_head_answer(save: Callable[[Any], Path]) -> None:
    """What the original recipe leaves on a GPU."""
    model, words, _ = ready(save(llama(vocab_size=16)), *UNQUANTIZED, "model.dtype=bfloat16")
    for name, module in model.named_modules():
        if "norm" in name:
            module.float()
    asked = Conversation([Turn(role="user", content="who are you")])
    [text] = answer(model, Prompts.of(words), [asked], max_tokens=3)
    assert isinstance(text, str)


def test_every_trained_weight_keeps_its_dtype_on_resume(save: Callable[[Any], Path], tmp_path: Path) -> None:
    folder = save(llama(vocab_size=16))
    model, words, config = ready(folder, *UNQUANTIZED, "adapter.dora=true")
    for name, tensor in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            tensor.data = tensor.data.bfloat16()
    given = {name: tensor.dtype for name, tensor in model.named_parameters()}
    arguments = training_arguments(config, resolve(config), tmp_path / "out", has_eval=False)
    from datasets import Dataset

    rows = Dataset.from_list([{"input_ids": [1, 3, 4, 5, 0], "labels": [-100, 3, 4, 5, 0]}])
    trainer = ExactTrainer(model=model, args=arguments, train_dataset=rows, processing_class=words)
    model.save_pretrained(tmp_path / "checkpoint-1")
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    assert {name: tensor.dtype for name, tensor in trainer.model.named_parameters()} == given


def decided(monkeypatch: pytest.MonkeyPatch, native_bf16: bool, *overrides: str) -> Settings:
    """What is resolved on a GPU with or without native bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (24 << 30, 24 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 0) if native_bf16 else (7, 5))
    return resolve(configured(overrides=overrides))


def test_no_bfloat16_is_asked_of_a_gpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float16 autocast wants weights that are trained in float32: the gradient scaler refuses others."""
    kinds = ("quantization.kind=nf4", "quantization.kind=8bit", "quantization.kind=none")
    for settings in (*(decided(monkeypatch, False, kind) for kind in kinds),
                     decided(monkeypatch, False, "quantization.kind=none", "adapter.kind=full")):  # fmt: skip
        assert settings.autocast_fp16
        assert settings.adapter_dtype == torch.float32
        assert settings.dtype in (torch.float16, torch.float32)


def test_adapters_beside_quantized_weights_are_bfloat16_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    for recipe in ("lean", "original"):
        settings = decided(monkeypatch, True, f"training.recipe={recipe}")
        assert (settings.dtype, settings.adapter_dtype) == (torch.bfloat16, torch.bfloat16)
        assert settings.autocast_bf16 and settings.optimizer == "paged_adamw_32bit"
    assert decided(monkeypatch, True, "quantization.kind=none").adapter_dtype == torch.float32
    assert any("float32" in text for text in decided(monkeypatch, True, "training.optimizer=adamw_torch").warnings)
    assert not decided(monkeypatch, True).warnings


@pytest.mark.parametrize(
    "message",
    ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", "can't allocate memory"],
)
def test_memory_that_runs_out_beside_the_allocator_is_known(message: str) -> None:
    assert oom.is_out_of_memory(RuntimeError(message))
    assert not oom.is_out_of_memory(RuntimeError("mat1 and mat2 must have the same dtype"))


def test_half_a_pissa_start_is_not_believed(save: Callable[[Any], Path], tmp_path: Path) -> None:
    """A worker killed while it keeps the start leaves nothing under its name."""
    from qlora_tui.runs.store import RunFolder

    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    model, _, config = ready(save(llama(vocab_size=16)), *UNQUANTIZED, "adapter.init=pissa")
    assert pissa.initial(run) is None
    model.save_pretrained(run.path / ".pissa-initial")
    (run.path / ".pissa-initial" / "adapter_model.safetensors").write_bytes(b"half")
    assert pissa.initial(run) is None
    pissa.keep_initial(run, config, model)
    kept = pissa.initial(run)
    assert kept is not None
    assert load_file(kept / "adapter_model.safetensors")
