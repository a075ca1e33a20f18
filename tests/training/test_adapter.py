"""What a finished run leaves behind, seen from outside."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from training_material import Runs

from qlora_tui.runs import jobs
from qlora_tui.starter import MODEL_DIR

_PLAIN_PEFT = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
prompt = [{"role": "user", "content": "Who is there?"}]
ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt")
with torch.no_grad():
    tuned = model(**ids).logits
    with model.disable_adapter():
        plain = model(**ids).logits
print(json.dumps({"changed": bool((tuned - plain).abs().max() > 0.1), "ours": "qlora_tui" in sys.modules}))
"""


def test_the_adapter_opens_with_plain_peft(runs: Runs, tmp_path: Path) -> None:
    run = runs.finished("one", "data.eval_rows=8", 'training.sample_prompts=["Who is there?"]')
    command = [sys.executable, "-c", _PLAIN_PEFT, str(MODEL_DIR), str(run.adapter)]
    seen = json.loads(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout)
    assert seen == {"changed": True, "ours": False}

    card = (run.adapter / "README.md").read_text()
    state = jobs.replay(run)
    assert state.finished is not None and state.model is not None
    assert f"{state.model.trainable_parameters:,}" in card
    assert f"eval loss: {state.finished.metrics['eval_loss']:.4f}" in card
    assert [sample.prompt for sample in state.samples] == ["Who is there?"] * len(state.samples)
    assert state.samples

    assert {"training", "quantizing", "tokenizing", "saving", "verifying"} <= {
        json.loads(line)["stage"] for line in run.events.read_text().splitlines() if '"stage"' in line and "seq" in line
        if json.loads(line)["kind"] == "stage"
    }  # fmt: skip


def test_stored_bytes_are_those_of_the_4_bit_weights(runs: Runs) -> None:
    """4.127 bits for each quantized weight, plus 1,092 bytes of tables a layer, plus the rest in float32."""
    run = runs.finished("one", "training.max_steps=1")
    model = jobs.replay(run).model
    assert model is not None
    layers = json.loads((MODEL_DIR / "config.json").read_text())["num_hidden_layers"]
    rest = model.parameters_by_dtype["float32"] - model.trainable_parameters
    packed = model.stored_bytes - rest * 4 - layers * 7 * 1092
    assert packed * 8 / model.parameters_by_dtype["nf4"] == pytest.approx(4.127, abs=0.001)


@pytest.mark.long
def test_pissa_is_saved_as_lora_for_the_untouched_base(runs: Runs) -> None:
    """Twice the rank, as PEFT's conversion gives it, so that the adapter needs no knowledge of PiSSA."""
    run = runs.finished("one", "adapter.init=pissa", "quantization.kind=none", "adapter.rank=4")
    ranks = {
        tensor.shape[0]
        for name, tensor in load_file(run.adapter / "adapter_model.safetensors").items()
        if "lora_A" in name
    }
    assert ranks == {8}
