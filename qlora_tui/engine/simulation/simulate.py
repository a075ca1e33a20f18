"""One training step of the product's own path - loading, preparation, adapters, TRL's trainer - without data."""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any

import bitsandbytes.functional
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Trainer

from qlora_tui.config.run import RunConfig
from qlora_tui.engine import adapters
from qlora_tui.engine.eight_bit import keep_no_inputs
from qlora_tui.engine.simulation import base_model, optimizer
from qlora_tui.engine.simulation.cuda_paths import cuda_paths
from qlora_tui.engine.simulation.ledger import Ledger
from qlora_tui.engine.simulation.modules import ModuleMarks, adapted_names, take_adapters_away
from qlora_tui.engine.simulation.phases import announce_layers
from qlora_tui.engine.simulation.scratch import DEFAULT_GPU, Gpu
from qlora_tui.engine.simulation.settings import GpuSettings, on_gpu
from qlora_tui.engine.simulation.stub_trainer import stub_trainer
from qlora_tui.engine.simulation.tracking import Tracker

Tell = Callable[[str], None]
"""Told each stage: "building", "quantizing", "attaching", "step"."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is simulated beside the run's configuration."""

    tokens: int
    """Of the longest row."""

    gpu: Gpu = DEFAULT_GPU
    padded: bool = False
    """Whether some row of the batch is padded, so that attention gets a mask."""

    packed: bool = False
    """Whether the rows of a batch are packed: the collator puts them into one sequence without a mask of its own."""

    real: bool = False
    """On real CPU tensors, to check the simulation; for tiny models."""

    by_module: bool = False
    """Whether the ledger tells which adapted linear layer runs."""

    without_adapters: bool = False
    """Adapters are taken away again, and the embedding's output needs a gradient: what a layer does without any."""

    full_loss: bool = False
    """The model's own loss on all logits, as trainers other than TRL's compute it."""


@dataclass(slots=True)
class Simulation:
    """What came of it. Bytes are those of PyTorch's allocator, without the CUDA context."""

    peak_bytes: int
    stored_bytes: int
    """Held all the time: weights, adapter, optimizer states, workspaces."""

    by_category: dict[str, int]
    """At the peak of the step."""

    phase: str
    """Of the peak; "forward.3" is layer 3."""

    phase_peaks: dict[str, int]
    paged_bytes: int
    trainable_parameters: int
    operations: int
    seconds: float
    ledger: Ledger = field(repr=False)
    step_began: int = 0
    """Events before the step."""


class _OneMode(FakeTensorMode):
    """The mode that all tensors without data belong to. A copied module's would count anew in a copy of it."""

    def __deepcopy__(self, memo: object) -> "_OneMode":
        return self


def simulate(
    config: RunConfig,
    hf_config: Any,
    workload: Workload,
    tell: Tell = lambda stage: None,
    observe: Callable[[], Any] = nullcontext,
) -> Simulation:
    """Run the step. `hf_config`: transformers' config of the model. `observe`: a context around the step.

    Raises ModelError for what cannot be simulated.
    """
    began, settings, ledger = time.monotonic(), on_gpu(config), Ledger()
    tracker = Tracker(ledger, workload.gpu, answers=not workload.real)
    tell("building")
    with ExitStack() as stack, tempfile.TemporaryDirectory() as output:
        # Attention kernels with the rows' lengths as an argument, such as flash-attn's, need no mask.
        masks = config.model.attention in ("auto", "eager", "sdpa")
        padded, packed = workload.padded and masks, workload.packed and masks
        stack.enter_context(keep_no_inputs())
        stack.enter_context(cuda_paths(padded=padded, packed=packed, autocast=_autocast(settings)))
        stack.enter_context(quiet_collector())
        model = base_model.on_meta(hf_config, config, settings)
        if not workload.real:
            stack.enter_context(_OneMode(allow_non_fake_inputs=True))
        stack.enter_context(tracker)
        run = Run(config, settings, workload, tracker, model, tell)
        run.prepare(Path(output))
        step_began, stored = len(ledger.events), ledger.level_bytes
        ledger.reset_peak()
        run.step(observe)
        return _outcome(run, tracker, stored, step_began, time.monotonic() - began)


def _outcome(run: "Run", tracker: Tracker, stored: int, step_began: int, seconds: float) -> Simulation:
    ledger = tracker.ledger
    return Simulation(
        peak_bytes=ledger.peak_bytes,
        stored_bytes=stored,
        by_category=ledger.by_category(ledger.peak_event),
        phase=ledger.phases[ledger.peak_event - 1],
        phase_peaks=ledger.phase_peaks(),
        paged_bytes=run.states.paged_bytes,
        trainable_parameters=sum(weight.numel() for weight in run.weights),
        operations=tracker.operations,
        seconds=seconds,
        ledger=ledger,
        step_began=step_began,
    )


def _autocast(settings: GpuSettings) -> torch.dtype | None:
    return settings.compute_dtype if settings.autocast_bf16 or settings.autocast_fp16 else None


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Storages must go when the last reference does, not when a collection happens; bitsandbytes' maps are put back."""
    maps = dict(bitsandbytes.functional.name2qmap)
    bitsandbytes.functional.name2qmap.clear()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        bitsandbytes.functional.name2qmap.clear()
        bitsandbytes.functional.name2qmap.update(maps)


def _embeddings(model: Any) -> list[torch.Tensor]:
    """Weights of embeddings, whose 8-bit states transformers makes 32-bit ones."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]


def _trained_twice(model: Any) -> torch.Size | None:
    """Shape of the embedding if it is trained and is the head, too."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    tied = head is not None and head.weight is embedding and embedding.requires_grad
    return embedding.shape if tied else None


class Run:
    """The model between its stages."""

    def __init__(
        self, config: RunConfig, settings: GpuSettings, workload: Workload, tracker: Tracker, model: Any, tell: Tell
    ) -> None:
        self._config, self._settings, self._workload = config, settings, workload
        self._tracker, self._ledger, self._model, self._tell = tracker, tracker.ledger, model, tell
        self.weights: list[torch.Tensor] = []
        self.states = optimizer.OptimizerStates()
        self._trainer: Any = None
        self._marks: ModuleMarks | None = None

    def prepare(self, output: Path) -> None:
        """Load, attach the adapter, make the trainer and what is there from the second step on."""
        self._tell("quantizing" if self._config.quantization.kind != "none" else "loading")
        base_model.materialize(self._model, self._config, self._settings, self._tracker)
        self._ledger.phase = "prepare"
        self._tell("attaching")
        model = adapters.attach(self._model, self._config, self._settings)
        self._trainer = stub_trainer(model, self._config, self._settings, output)
        if self._workload.full_loss:
            self._trainer.compute_loss = MethodType(Trainer.compute_loss, self._trainer)
        gc.collect()
        names = adapted_names(model) if self._workload.by_module else []
        if self._workload.without_adapters:
            take_adapters_away(model, names)
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._tracker.summed = _trained_twice(model)
        adapted = self._config.adapter.kind == "lora"
        for weight in model.parameters():
            packed = getattr(weight, "quant_state", None) is not None or weight.dtype == torch.int8
            added = adapted and weight.requires_grad
            self._tracker.label(weight, "adapter" if added else "packed weights" if packed else "weights")
        self._ledger.category = "optimizer"
        self.states = optimizer.states(self._settings.optimizer, self.weights, _embeddings(model))
        self._ledger.category = None
        for thread in ("forward", "backward"):
            if self._workload.gpu.multiprocessors:
                self._tracker.take_workspace(thread)
        announce_layers(model, self._ledger, checkpointing=self._settings.gradient_checkpointing)
        if names:
            self._marks = ModuleMarks(self._ledger, self._tracker.number)
            self._marks.watch(model, names)
            self._tracker.on_operation = self._marks.operation
        backward = self._trainer.accelerator.backward
        self._trainer.accelerator.backward = lambda *args, **kwargs: self._backward(backward, *args, **kwargs)

    def step(self, observe: Callable[[], Any]) -> None:
        """One optimizer step: of several micro-batches the first two, since every later one is like the second."""
        self._tell("step")
        micro_batches = min(2, self._config.training.gradient_accumulation_steps)
        with observe(), self._marks.recomputing() if self._marks else nullcontext():
            for number in range(micro_batches):
                if number == micro_batches - 1:
                    self._ledger.reset_peak()
                self._micro_batch()
            self._ledger.phase = "step"
            if self._config.training.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(self.weights, self._config.training.max_grad_norm)
            if self.states.copies_weights:
                self._ledger.category = "optimizer"
                copies = [torch.empty_like(weight) for weight in self.weights]
                del copies
                self._ledger.category = None
            for weight in self.weights:
                weight.grad = None

    def _backward(self, backward: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._ledger.phase = "loss_backward"
        backward(*args, **kwargs)

    def _micro_batch(self) -> None:
        self._ledger.phase, self._ledger.category = "forward", "inputs"
        inputs = self._inputs()
        self._ledger.category = None
        self._trainer.training_step(self._trainer.prepared, inputs, num_items_in_batch=torch.ones((), dtype=torch.long))
        del inputs
        for weight in self.weights:
            self._tracker.label(weight.grad, "gradients")

    def _inputs(self) -> dict[str, Any]:
        """A batch as TRL's collator makes it."""
        rows, tokens = self._config.training.micro_batch_size, self._workload.tokens
        if not self._workload.packed:
            names = ("input_ids", "labels", "attention_mask")
            return {name: torch.ones(rows, tokens, dtype=torch.long) for name in names}
        length = rows * tokens
        whole = {name: torch.ones(1, length, dtype=torch.long) for name in ("input_ids", "labels", "position_ids")}
        starts = torch.ones(rows + 1, dtype=torch.int32)
        return {
            **whole,
            "cu_seq_lens_q": starts,
            "cu_seq_lens_k": starts,
            "max_length_q": tokens,
            "max_length_k": tokens,
            "seq_idx": torch.ones(1, length, dtype=torch.int32),
        }
