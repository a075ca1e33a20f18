"""Generation with a saved model stops in other programs too."""

import json
import shutil
from pathlib import Path

import pytest
from peft import PeftModel
from training_material import Runs
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from qlora_tui.starter import MODEL_DIR


@pytest.fixture
def other_end(tmp_path: Path) -> Path:
    """The starter with an end-of-text token that differs from its end-of-turn token, as in base models."""
    folder = tmp_path / "base"
    shutil.copytree(MODEL_DIR, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|endoftext|>"}))
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": 0}))
    return folder


def test_plain_generate_stops_at_the_end_of_a_turn(other_end: Path) -> None:
    learned = ("data.max_train_rows=400", "training.learning_rate=5e-3", "training.max_steps=40", "adapter.dropout=0")
    run = Runs().finished("ends", f"model.id={other_end}", "training.save_every_steps=40", *learned)
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    base = AutoModelForCausalLM.from_pretrained(other_end)
    model = PeftModel.from_pretrained(base, str(run.adapter)).eval()
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Where is the lamp?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    config = GenerationConfig.from_pretrained(run.adapter)
    ids = model.generate(**asked, generation_config=config, max_new_tokens=120, do_sample=False)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.decode(ids[0]).endswith("<|im_end|>")
    assert "`<|im_end|>`" in (run.adapter / "README.md").read_text()


def test_a_full_finetune_of_a_model_with_an_invalid_generation_config_is_saved(other_end: Path) -> None:
    generation = {"eos_token_id": 0, "do_sample": False, "temperature": 0.6, "top_p": 0.9}
    (other_end / "generation_config.json").write_text(json.dumps(generation))
    run = Runs().finished(
        "full", f"model.id={other_end}", "adapter.kind=full", "quantization.kind=none", "training.max_steps=2",
        "training.save_every_steps=1", "training.learning_rate=1e-4",
    )  # fmt: skip
    saved = GenerationConfig.from_pretrained(run.adapter)
    assert saved.temperature in (None, 1.0)
    assert "replaced" in run.events.read_text()
