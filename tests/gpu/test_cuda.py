"""Real training on a CUDA device, on the starter: both recipes, each quantization, resume, memory, chat.

Run with `make test-gpu`. On a machine without one every test fails at once: nothing here is skipped silently.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_material import SMALL, Runs, course

from qlora_tui import hardware
from qlora_tui.config.overrides import resolve as configured
from qlora_tui.engine import adapters, loading
from qlora_tui.engine.resolve import resolve
from qlora_tui.runs import jobs
from qlora_tui.starter import MODEL_DIR

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

ON_GPU = ("model.device=cuda", "quantization.compute_dtype=auto", "adapter.dropout=0.1")
UNQUANTIZED = "quantization.kind=none"
FULL = (UNQUANTIZED, "adapter.kind=full")
KINDS = {
    "nf4": ("quantization.double_quantization=false",),
    "nf4-double": (),
    "fp4": ("quantization.kind=fp4",),
    "8bit": ("quantization.kind=8bit",),
    "16bit": (UNQUANTIZED,),
    "full": FULL,
}
RECIPES = ("lean", "original")


@pytest.fixture(autouse=True)
def device() -> None:
    assert torch.cuda.is_available(), "these tests need a CUDA device that PyTorch can use"


@pytest.fixture
def runs() -> Iterator[Runs]:
    made = Runs()
    yield made
    for run in made.made:
        if jobs.is_alive(run):
            jobs.cancel(run, print)


def attached(*overrides: str) -> tuple[torch.nn.Module, torch.dtype]:
    """The starter on the GPU with its adapter, as a worker makes it, and the dtype its 4-bit layers compute in."""
    config = configured(overrides=(*SMALL, *ON_GPU, *overrides))
    settings = resolve(config)
    base = loading.load_model(config, settings, loading.load_tokenizer(config.model))
    return adapters.attach(base, config, settings), settings.compute_dtype


@pytest.mark.parametrize("recipe", RECIPES)
def test_dtypes_of_the_recipes(recipe: str) -> None:
    """lean: all in the GPU's 16-bit type. original: norms in float32. Adapters in bfloat16 where that is native."""
    model, half = attached(f"training.recipe={recipe}")
    native = half == torch.bfloat16
    for name, tensor in model.named_parameters():
        if "lora_" in name:
            assert tensor.dtype == (torch.bfloat16 if native else torch.float32), name
        elif "norm" in name:
            assert tensor.dtype == (half if recipe == "lean" else torch.float32), name
        elif "embed_tokens" in name or "lm_head" in name:
            assert tensor.dtype == (half if recipe == "lean" or native else torch.float32), name
        assert tensor.requires_grad == ("lora_" in name), name
        assert tensor.device == torch.device("cuda", 0), name


def test_dora_magnitudes_are_float32() -> None:
    model, _ = attached("adapter.dora=true")
    assert {t.dtype for name, t in model.named_parameters() if "lora_magnitude_vector" in name} == {torch.float32}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_quantization_learns_in_both_recipes(runs: Runs, kind: str, recipe: str) -> None:
    """Forty rows by heart: the loss falls to less than a third, every number is finite, and memory is counted."""
    run = runs.finished(
        "one", *ON_GPU, "adapter.dropout=0", f"training.recipe={recipe}", "training.max_steps=40",
        "training.save_every_steps=40", "training.learning_rate=1e-3",
        'training.sample_prompts=["Who is there?"]', *KINDS[kind],
    )  # fmt: skip
    state = jobs.replay(run)
    losses = [point.loss for point in state.steps.points()]
    assert all(loss is not None for loss in losses)
    assert sum(filter(None, losses[-5:])) < sum(filter(None, losses[:5])) / 3
    assert not [warning for warning in state.warnings if warning.code == "non_finite_loss"]
    assert state.samples and state.finished is not None and state.model is not None
    assert state.model.stored_bytes < state.finished.peak_bytes < 2 << 30
    assert state.steps.last is not None and 0 < state.steps.last.allocated_bytes <= state.steps.last.peak_bytes


def test_checkpointing_lowers_the_peak(runs: Runs) -> None:
    def peak_bytes(name: str, checkpointing: str) -> int:
        sizes = ("training.micro_batch_size=40", "training.gradient_accumulation_steps=1", "training.max_steps=3")
        run = runs.finished(name, *ON_GPU, *sizes, f"training.gradient_checkpointing={checkpointing}")
        finished = jobs.replay(run).finished
        assert finished is not None
        return finished.peak_bytes

    assert peak_bytes("on", "on") < peak_bytes("off", "off")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param((), id="nf4"),
        pytest.param(("quantization.kind=8bit",), id="8bit"),
        pytest.param(FULL, id="full"),
        pytest.param((UNQUANTIZED, "adapter.init=pissa"), id="pissa"),
        pytest.param(("adapter.init=loftq",), id="loftq"),
        pytest.param(("adapter.dora=true",), id="dora"),
        pytest.param(("training.recipe=original",), id="original"),
        pytest.param(("training.optimizer=paged_adamw_8bit",), id="paged-8bit"),
        pytest.param(("training.gradient_checkpointing=off",), id="no-checkpointing"),
        pytest.param(("training.packing=true",), id="packing"),
    ],
)
def test_resume_follows_the_uninterrupted_run(runs: Runs, changes: tuple[str, ...]) -> None:
    """Equal but for the order in which a GPU adds; a wrong dtype, seed or state shows in the first digits."""
    whole = runs.finished("whole", *ON_GPU, *changes)
    run = runs.create("killed", *ON_GPU, *changes)
    state = runs.train(run, lambda state: state.step_number >= 5)
    os.killpg(state.pid, signal.SIGKILL)
    assert jobs.wait_until_dead(run, 10)
    state = runs.train(run)
    assert state.phase == "finished", state.failed
    for ours, theirs in zip(course(state), course(jobs.replay(whole)), strict=True):
        assert (ours[0], ours[4]) == (theirs[0], theirs[4])
        assert ours[1:4] == pytest.approx(theirs[1:4], rel=5e-2)


def test_paged_states_are_paged_again_after_loading() -> None:
    from bitsandbytes.optim import PagedAdamW

    from qlora_tui.engine.trainer import page_again

    weight = torch.nn.Parameter(torch.randn(512, 512, device="cuda"))
    first = PagedAdamW([weight], lr=1e-3)
    weight.grad = torch.randn_like(weight)
    first.step()
    second = PagedAdamW([weight], lr=1e-3)
    second.load_state_dict(first.state_dict())
    page_again(second)
    for name in ("state1", "state2"):
        kept, loaded = first.state[weight][name], second.state[weight][name]
        assert getattr(loaded, "is_paged", False)
        torch.cuda.synchronize()
        assert torch.equal(kept.cpu(), loaded.cpu())
    second.step()


_IN_LITTLE_MEMORY = """
import sys, torch
torch.cuda.set_per_process_memory_fraction(float(sys.argv[1]))
from pathlib import Path
from qlora_tui.engine import train
from qlora_tui.engine.session import Session
from qlora_tui.errors import QloraError
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder
run = RunFolder(Path(sys.argv[2]))
session = Session(run, RunState())
options = {"allow_download": False, "accept_changed_data": False}
try:
    plan = train.run(session, run.load_config(), None, replan_on_oom=sys.argv[3] == "replan", **options)
    print(plan.changes["training.micro_batch_size"] if plan else "finished")
except QloraError as error:
    print(error.exit_code, error.hint)
"""


def test_running_out_of_gpu_memory_offers_half_the_batch(runs: Runs) -> None:
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    sizes = ("training.micro_batch_size=4096", "training.gradient_accumulation_steps=1", "data.max_train_rows=none")
    run = runs.create("big", *ON_GPU, *sizes, "training.gradient_checkpointing=off", "training.max_steps=1")

    def said(mode: str) -> str:
        command = [sys.executable, "-c", _IN_LITTLE_MEMORY, str((1 << 30) / total_bytes), str(run.path), mode]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    assert said("replan") == "2048"
    refused = said("stop")
    assert refused.startswith("7 ") and "training.micro_batch_size=2048" in refused


def test_the_adapter_opens_with_plain_peft(runs: Runs) -> None:
    run = runs.finished("one", *ON_GPU)
    dtypes = {tensor.dtype for tensor in load_file(run.adapter / "adapter_model.safetensors").values()}
    assert len(dtypes) == 1
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.bfloat16, device_map={"": 0})
    model = PeftModel.from_pretrained(base, run.adapter)
    with torch.no_grad():
        tuned = model(torch.tensor([[5, 6, 7]], device="cuda")).logits
        with model.disable_adapter():
            plain = model(torch.tensor([[5, 6, 7]], device="cuda")).logits
    assert (tuned - plain).abs().max() > 0.01


def test_a_trained_run_chats(runs: Runs, tmp_path: Path) -> None:
    runs.finished("talks", *ON_GPU)
    command = [sys.executable, "-m", "qlora_tui", "chat", "talks"]
    done = subprocess.run(command, input="Who is there?\n", cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_one_of_several_gpus_is_used(runs: Runs) -> None:
    """Whichever has most memory free; on a machine with one this is the plain case."""
    run = runs.finished("one", *ON_GPU, "model.device=auto", "training.max_steps=2")
    device = jobs.replay(run).device
    assert device is not None and device.value == "cuda"
    assert device.gpu_uuid in {gpu.uuid for gpu in hardware.snapshot().gpus}


def test_a_cpu_run_takes_no_gpu_memory(runs: Runs) -> None:
    state = jobs.replay(runs.finished("one", "training.max_steps=2"))
    assert state.peak_bytes == 0 and state.steps.last is not None and state.steps.last.allocated_bytes == 0
