"""The training step of a run: its shape, its peak from a shipped program or in closed form, and its replay."""

from dataclasses import dataclass, replace

from qlora_tui.config.run import RunConfig
from qlora_tui.memory import closed_form, program, stored, trainable
from qlora_tui.memory.allocator import Trace, smallest_capacity
from qlora_tui.memory.choices import Choices
from qlora_tui.memory.program import Program, ProgramKey, StepPeak
from qlora_tui.memory.targets import targets
from qlora_tui.memory.trainable import State, Trained
from qlora_tui.models.facts import ModelFacts

_SMALLEST_PROGRAM_LAYERS = 6
_RECORDED = "sum over the tensors of the recorded step, each a product of these dimensions"
_PROGRAM_BAND = 0.02
"""Largest error of a program's peak against full dry runs."""

_MASK_BAND = 0.05
"""Of a program that was recorded without the mask that attention gets here."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A batch on one card."""

    rows: int
    row_tokens: int
    accumulate: bool

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens


@dataclass(frozen=True, slots=True)
class Measured:
    """The step's peak, where it comes from, and by what share it may be wrong."""

    peak: StepPeak
    program: Program | None
    band: float
    formula: str
    """How activations are counted."""


def shape(config: RunConfig, longest_tokens: int | None) -> Shape:
    """The longest batch. `longest_tokens`: the longest row of the data, if it is known."""
    spec = config.training
    limit = spec.max_length_tokens
    tokens = limit if spec.packing or longest_tokens is None else max(2, min(limit, longest_tokens))
    return Shape(spec.micro_batch_size, tokens, spec.gradient_accumulation_steps > 1)


def measure(
    config: RunConfig,
    facts: ModelFacts,
    choices: Choices,
    batch: Shape,
    trained: list[Trained],
    state: State,
    *,
    checkpointing: bool,
) -> Measured:
    """The peak of a step beside all that is stored."""
    found = _program(config, facts, choices, batch, checkpointing)
    if found is not None:
        peak = program.evaluate(
            found, dims(config, facts, batch), accumulate=batch.accumulate, optimizer_step_bytes=state.step_bytes
        )
        missing_mask = masked(config, facts, batch) and "masked" not in found.name
        return Measured(peak, found, _MASK_BAND if missing_mask else _PROGRAM_BAND, _RECORDED)
    form = _closed(config, facts, choices, batch, trained, state, checkpointing)
    return Measured(closed_form.peak(form), None, _band(config, facts, choices), closed_form.activation_formula(form))


def dims(config: RunConfig, facts: ModelFacts, batch: Shape) -> dict[str, int]:
    """The dimensions that a program is evaluated with."""
    return {
        "h": facts.hidden_size,
        "f": facts.mlp_width,
        "L": facts.layers,
        "H": facts.heads,
        "K": facts.kv_heads,
        "d": facts.head_dim,
        "V": facts.vocab_size,
        "B": batch.rows,
        "S": batch.row_tokens,
        "r": config.adapter.rank,
        "dq": int(config.quantization.double_quantization),
    }


def masked(config: RunConfig, facts: ModelFacts, batch: Shape) -> bool:
    """Whether attention gets a mask: padding, packed rows, or a sliding window no longer than the row."""
    window = facts.sliding_window_tokens
    return batch.rows > 1 or config.training.packing or (window is not None and window <= batch.row_tokens)


def _program(
    config: RunConfig, facts: ModelFacts, choices: Choices, batch: Shape, checkpointing: bool
) -> Program | None:
    adapter = config.adapter
    fits = (
        choices.on_gpu
        and choices.weight_bytes == choices.compute_bytes == choices.adapter_bytes == 2
        and config.quantization.is_four_bit
        and adapter.kind == "lora"
        and adapter.target_modules == "all-linear"
        and not adapter.dora
        and not adapter.modules_to_save
        and facts.moe is None
        and facts.layers >= _SMALLEST_PROGRAM_LAYERS
        and bool(facts.heads and facts.kv_heads and facts.head_dim)
    )
    if not fits:
        return None
    key = ProgramKey(
        recipe=config.training.recipe,
        checkpointing=checkpointing,
        dropout=adapter.dropout > 0,
        attention="eager" if choices.attention == "eager" else "sdpa",
        masked=masked(config, facts, batch),
    )
    return program.find(facts.model_type, key) or program.find(facts.model_type, replace(key, masked=False))


def _closed(
    config: RunConfig,
    facts: ModelFacts,
    choices: Choices,
    batch: Shape,
    trained: list[Trained],
    state: State,
    checkpointing: bool,
) -> closed_form.Step:
    moe, has_mask = facts.moe, masked(config, facts, batch)
    q, k = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    mlp = facts.mlp_width
    if moe is not None:
        mlp = moe.experts_per_token * moe.expert_mlp_width + moe.shared_mlp_width
    return closed_form.Step(
        rows=batch.rows,
        row_tokens=batch.row_tokens,
        layers=max(facts.layers, 1),
        hidden=facts.hidden_size,
        mlp=mlp or 4 * facts.hidden_size,
        gated=facts.mlp_kind != "plain",
        q=q or facts.hidden_size,
        k=k or facts.hidden_size,
        heads=facts.heads,
        vocab=facts.vocab_size or 1,
        rank=config.adapter.rank if config.adapter.kind == "lora" else 0,
        recipe=config.training.recipe if config.quantization.kind != "none" else "lean",
        stream_bytes=max(choices.weight_bytes, choices.compute_bytes) if not choices.on_gpu else choices.compute_bytes,
        dropout=config.adapter.dropout > 0 and config.adapter.kind == "lora",
        eager=choices.attention == "eager",
        masked=has_mask,
        materialized=not choices.on_gpu and (facts.heads != facts.kv_heads or has_mask),
        on_cpu=not choices.on_gpu,
        checkpointing=checkpointing,
        dequantized_bytes=_dequantized(config, facts, choices),
        gradient_bytes=trainable.total_bytes(trained, charged=choices.on_gpu),
        gradients_kept=batch.accumulate,
        experts_per_token=moe.experts_per_token if moe else 0,
        optimizer_step_bytes=state.step_bytes,
    )


def _dequantized(config: RunConfig, facts: ModelFacts, choices: Choices) -> int:
    """The largest quantized weight in the compute dtype, with its absmax in float32; adapted experts as a whole."""
    quantized = [group for group in facts.modules if group.quantized]
    largest = max((group.weight_elements // group.count for group in quantized), default=0)
    found = 0
    if config.quantization.is_four_bit:
        found = (
            largest * choices.compute_bytes + 4 * -(-largest // stored.BLOCK) * config.quantization.double_quantization
        )
    elif config.quantization.kind == "8bit":
        found = 2 * largest * choices.compute_bytes
    experts = [target.group for target in targets(facts, config.adapter) if target.group.kind == "expert"]
    if experts:
        # PEFT adds the adapter of fused experts to all of them and keeps both for the backward pass of the layer.
        found += 3 * max(group.weight_elements // group.count for group in experts) * choices.weight_bytes
    return found


def _band(config: RunConfig, facts: ModelFacts, choices: Choices) -> float:
    adapter = config.adapter
    unusual = (
        config.quantization.kind in ("8bit", "none")
        or adapter.kind == "full"
        or adapter.dora
        or bool(adapter.modules_to_save)
    )
    if facts.moe is not None or facts.latent_attention is not None or facts.family is None or not choices.on_gpu:
        return 0.40 if not choices.on_gpu else 0.30
    if unusual:
        return 0.20
    return 0.10 if facts.family in closed_form.SHAPED_LIKE_LLAMA else 0.15


def capacity(
    found: Program, config: RunConfig, facts: ModelFacts, batch: Shape, fixed_tensors: list[int], states: list[int]
) -> int:
    """Fewest bytes that two steps survive on, fragmentation included: the states come after the first one."""
    trace = Trace()
    for size in fixed_tensors:
        trace.alloc(size)
    sizes = dims(config, facts, batch)
    program.expand(found, sizes, trace, accumulate=batch.accumulate)
    for size in states:
        trace.alloc(size)
    program.expand(found, sizes, trace, accumulate=batch.accumulate)
    return smallest_capacity(trace)
