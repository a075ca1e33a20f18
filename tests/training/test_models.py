"""Models other than the starter: experts that stay unquantized, tokenizers without padding, folders that are none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training_material import Runs

from qlora_tui.errors import ExitCode
from qlora_tui.runs import jobs
from qlora_tui.starter import MODEL_DIR, TRAIN_DATA
from qlora_tui.units import memory

_MAKE_MIXTRAL = """
import sys, torch
from transformers import MixtralConfig, MixtralForCausalLM
torch.manual_seed(0)
config = MixtralConfig(vocab_size=int(sys.argv[2]), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, max_position_embeddings=256)
MixtralForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])
"""


def with_starter_tokenizer(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL_DIR / name, folder / name)
    return folder


def test_unquantized_experts_are_named_with_their_bytes(runs: Runs, tmp_path: Path) -> None:
    vocabulary = json.loads((MODEL_DIR / "config.json").read_text())["vocab_size"]
    folder = tmp_path / "mixtral"
    subprocess.run([sys.executable, "-c", _MAKE_MIXTRAL, str(folder), str(vocabulary)], check=True, capture_output=True)
    state = runs.train(
        runs.create(
            "moe",
            f"model.id={with_starter_tokenizer(folder)}",
            "adapter.target_modules=q_proj,v_proj",
            "training.max_steps=1",
        )
    )
    assert state.phase == "finished", state.failed
    experts_bytes = 2 * 4 * (64 * 96 * 3) * 4
    [warning] = [warning.message for warning in state.warnings if warning.code == "unquantized_experts"]
    assert memory(experts_bytes) in warning
    assert state.model is not None and state.model.stored_bytes > experts_bytes


def test_a_tokenizer_without_padding_never_pads_with_its_end_token(runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "unpadded"
    shutil.copytree(MODEL_DIR, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    end = settings["eos_token"]
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    run = runs.finished("unpadded", f"model.id={folder}", "training.max_steps=2")
    saved = json.loads((run.adapter / "tokenizer_config.json").read_text())
    assert saved["pad_token"] not in (None, end)


@pytest.mark.parametrize(
    ("breakage", "word"),
    [("remove config.json", "config.json"), ("cut weights", "model.safetensors"), ("pickle only", "pickle"),
     ("no architectures", "architectures"), ("no folder", "does not exist")],
)  # fmt: skip
def test_a_folder_that_is_no_model_is_refused_by_name(runs: Runs, tmp_path: Path, breakage: str, word: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(MODEL_DIR, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if breakage == "remove config.json":
        config.unlink()
    elif breakage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif breakage == "pickle only":
        weights.rename(folder / "pytorch_model.bin")
    elif breakage == "no architectures":
        config.write_text(json.dumps({"model_type": "llama"}))
    else:
        shutil.rmtree(folder)
    command = [sys.executable, "-m", "qlora_tui", "train", "--model", str(folder), "--data", str(TRAIN_DATA)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == ExitCode.MODEL, done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_too_small_for_the_checkpoints_stops_the_run_before_training(runs: Runs) -> None:
    state = runs.train(runs.create("big", "training.keep_checkpoints=100000000"))
    assert state.failed is not None
    assert state.failed.exit_code == ExitCode.STORAGE
    assert "checkpoints need up to" in state.failed.message
    assert state.step_number == 0
    assert not jobs.look(runs.made[0]).alive
