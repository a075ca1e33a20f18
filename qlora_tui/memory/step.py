"""The training step of a run: its shape, its peak from a shipped program or in closed form, and its replay."""

from collections.abc import Mapping
from dataclasses import dataclass

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.memory import closed_form, program, stored, trainable
from qlora_tui.memory.adapted import adapted
from qlora_tui.memory.choices import Choices
from qlora_tui.memory.full_weights import full_weights
from qlora_tui.memory.layer_form import Step
from qlora_tui.memory.program import Program, ProgramKey, StepPeak
from qlora_tui.memory.recorded import Base
from qlora_tui.memory.targets import targets
from qlora_tui.memory.trainable import State, Trained
from qlora_tui.models.facts import ModelFacts, MoeShape

_SMALLEST_PROGRAM_LAYERS = 6
_RECORDED = "sum of the recorded step's tensors"
_PROGRAM_BAND = 0.02
"""Largest error of a program's peak against full dry runs."""

_UNPADDED_BAND = 0.05
"""Of a program where an attention kernel of its own takes the padding out of each row, which was not recorded."""

_INT8_PRODUCT_BYTES = 6
"""Of one element of an 8-bit product: int32, and float16 once it is scaled."""

_BASES: Mapping[str, Base] = {
    "nf4": "4bit",
    "fp4": "4bit",
    "8bit": "8bit",
    "none": "16bit",
}
"""What programs call a kind of quantization."""

_FULL_BASES: Mapping[int, Base] = {2: "full16", 4: "full32"}
"""What they call full finetuning, by bytes of a weight."""

_OWN_KERNELS = frozenset({"flash_attention_2", "flash_attention_3", "flex_attention"})
"""Kinds of attention that need no mask of rows by columns."""


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
    formulas: Mapping[str, str]
    """How each category of the peak is counted."""

    numbers: Mapping[str, int]
    """What stands in the formulas."""


def shape(config: RunConfig, longest_tokens: int | None) -> Shape:
    """The longest batch. `longest_tokens`: the longest row of the data, if it is known."""
    spec, tokens = config.training, row_tokens(config, longest_tokens)
    accumulate = spec.gradient_accumulation_steps > 1
    if spec.packing:
        # The collator puts all packed rows of a batch into one.
        return Shape(1, spec.micro_batch_size * tokens, accumulate)
    return Shape(spec.micro_batch_size, tokens, accumulate)


def row_tokens(config: RunConfig, longest_tokens: int | None) -> int:
    """The longest row: a packed one is as long as is allowed."""
    limit = config.training.max_length_tokens
    return limit if config.training.packing or longest_tokens is None else max(2, min(limit, longest_tokens))


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
    found = recorded(config, facts, choices, batch, checkpointing)
    if found is not None:
        peak = program.evaluate(
            found, dims(config, facts, batch), accumulate=batch.accumulate, optimizer_step_bytes=state.step_bytes
        )
        return Measured(peak, found, _program_band(config, batch), dict.fromkeys(peak.by_category, _RECORDED), {})
    form = _closed(config, facts, choices, batch, trained, state, checkpointing)
    peak = closed_form.peak(form)
    formulas = closed_form.formulas(form, peak)
    return Measured(peak, None, _band(config, facts, choices), formulas, closed_form.numbers(form, peak))


def dims(config: RunConfig, facts: ModelFacts, batch: Shape) -> dict[str, int]:
    """The dimensions that a program is evaluated with."""
    unbound = facts.layers - facts.sliding_layers
    every = facts.layers // unbound if unbound and windowed(config, facts, batch) else 0
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
        "every": every or program.TAKES_TURNS.get(facts.model_type, 0),
        "rot": facts.rotary_dim or facts.head_dim,
        "P": _positions(facts),
        **_of_experts(facts.moe),
    }


def _positions(facts: ModelFacts) -> int:
    """Rows of the table of positions, 0 where positions are rotated."""
    tables = (each for each in facts.modules if each.name.rpartition(".")[2] in ("wpe", "embed_positions"))
    return next((table.weight_elements // facts.hidden_size for table in tables), 0)


def _of_experts(moe: MoeShape | None) -> dict[str, int]:
    if moe is None:
        return {}
    shared = moe.shared_mlp_width
    return {"E": moe.experts, "t": moe.experts_per_token, "m": moe.expert_mlp_width, "ms": shared}


def masked(config: RunConfig, facts: ModelFacts, batch: Shape) -> bool:
    """Whether attention gets a mask in every layer: padding, packed rows, or sliding windows shorter than the row."""
    if config.model.attention in _OWN_KERNELS:
        return False
    everywhere = facts.sliding_layers == facts.layers and _window_shows(facts, batch)
    return batch.rows > 1 or config.training.packing or everywhere


def windowed(config: RunConfig, facts: ModelFacts, batch: Shape) -> bool:
    """Whether attention gets a mask in the layers with a sliding window and in no other."""
    own_kernel = config.model.attention in _OWN_KERNELS
    return _window_shows(facts, batch) and not masked(config, facts, batch) and not own_kernel


def _window_shows(facts: ModelFacts, batch: Shape) -> bool:
    window = facts.sliding_window_tokens
    return window is not None and window <= batch.row_tokens


def recorded(
    config: RunConfig, facts: ModelFacts, choices: Choices, batch: Shape, checkpointing: bool
) -> Program | None:
    """The shipped program of a run's step, None where none fits."""
    adapter = config.adapter
    fits = (
        choices.on_gpu
        and choices.compute_bytes == 2
        and _trains_as_recorded(config, choices)
        and not adapter.dora
        and not adapter.modules_to_save
        and (facts.moe is None or facts.moe.moe_layers == facts.layers)
        and facts.usual
        and facts.layers >= _SMALLEST_PROGRAM_LAYERS
        and bool(facts.heads and facts.kv_heads and facts.head_dim)
        and facts.head_dim % 8 == 0  # Others are padded for the flash kernel, which was not recorded.
    )
    if not fits or (facts.model_type in program.WITHOUT_SDPA and config.model.attention in _OWN_KERNELS):
        return None
    wanted = None if adapter.kind == "full" else _adapted_names(facts, adapter)
    if wanted == frozenset():
        return None
    key = program_key(config, facts, choices, batch, checkpointing=checkpointing)
    return program.find(facts.model_type, key, grouped=facts.heads != facts.kv_heads, wanted=wanted)


def _trains_as_recorded(config: RunConfig, choices: Choices) -> bool:
    if config.adapter.kind == "full":
        return config.quantization.kind == "none"
    return choices.weight_bytes == 2 and choices.adapter_bytes == (4 if config.quantization.kind == "none" else 2)


def _adapted_names(facts: ModelFacts, spec: AdapterSpec) -> frozenset[str] | None:
    """Last names of the adapted linear layers; None for all of them, empty if not all layers of a model are alike."""
    if spec.target_modules == "all-linear" and not (
        spec.exclude_modules or spec.layers_to_transform or spec.rank_pattern
    ):
        return None
    names: set[str] = set()
    experts: set[str] = set()
    for target in targets(facts, spec):
        group = target.group
        path, _, leaf = group.name.rpartition(".")
        if target.count != group.count or target.rank != spec.rank or "*" not in group.name or group.vision:
            return frozenset()
        if group.kind == "expert":
            experts.add(leaf)
            leaf = path.rpartition(".")[2]
        names.add(leaf)
    return frozenset() if len(experts) == 1 else frozenset(names)


def program_key(
    config: RunConfig, facts: ModelFacts, choices: Choices, batch: Shape, *, checkpointing: bool
) -> ProgramKey:
    """Which program is this run's."""
    full = config.adapter.kind == "full"
    return ProgramKey(
        recipe="lean" if config.quantization.kind == "none" else config.training.recipe,
        checkpointing=checkpointing,
        base=_FULL_BASES[choices.weight_bytes] if full else _BASES[config.quantization.kind],
        tied=full and facts.tied,
        dropout=config.adapter.dropout > 0 and not full,
        attention="eager" if config.model.attention == "eager" else "sdpa",
        masked=masked(config, facts, batch),
        windowed=windowed(config, facts, batch),
        single=batch.rows == 1,
    )


def _closed(
    config: RunConfig,
    facts: ModelFacts,
    choices: Choices,
    batch: Shape,
    trained: list[Trained],
    state: State,
    checkpointing: bool,
) -> Step:
    moe, has_mask = facts.moe, masked(config, facts, batch) or windowed(config, facts, batch)
    q, k = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    of_experts = moe.experts_per_token * moe.expert_mlp_width + moe.shared_mlp_width if moe else 0
    return Step(
        rows=batch.rows,
        row_tokens=batch.row_tokens,
        layers=max(facts.layers, 1),
        hidden=facts.hidden_size,
        mlp=of_experts or facts.mlp_width or 4 * facts.hidden_size,
        gated=facts.mlp_kind != "plain",
        q=q or facts.hidden_size,
        k=k or facts.hidden_size,
        heads=facts.heads,
        vocab=facts.vocab_size or 1,
        rank=config.adapter.rank if config.adapter.kind == "lora" else 0,
        recipe=config.training.recipe if config.quantization.kind != "none" else "lean",
        stream_bytes=max(choices.weight_bytes, choices.compute_bytes) if not choices.on_gpu else choices.compute_bytes,
        dropout=config.adapter.dropout > 0 and config.adapter.kind == "lora",
        eager=choices.attention == "eager"
        or (facts.model_type in program.WITHOUT_SDPA and config.model.attention not in _OWN_KERNELS),
        masked=has_mask,
        materialized=not choices.on_gpu and (facts.heads != facts.kv_heads or has_mask),
        on_cpu=not choices.on_gpu,
        checkpointing=checkpointing,
        dequantized_bytes=_dequantized(config, facts, choices, batch.tokens),
        gradient_bytes=trainable.total_bytes(trained, charged=choices.on_gpu),
        gradients_kept=batch.accumulate,
        experts_per_token=moe.experts_per_token if moe else 0,
        optimizer_step_bytes=state.step_bytes,
        dora=config.adapter.dora and config.adapter.kind == "lora",
        adapted=adapted(facts, config.adapter),
        full=full_weights(config, facts, choices),
    )


def _dequantized(config: RunConfig, facts: ModelFacts, choices: Choices, tokens: int) -> int:
    """The largest quantized weight in the compute dtype, with its absmax in float32; adapted experts as a whole."""
    quantized = [group for group in facts.modules if group.quantized]
    largest = max((group.weight_elements // group.count for group in quantized), default=0)
    found = 0
    if config.quantization.is_four_bit:
        found = (
            largest * choices.compute_bytes + 4 * -(-largest // stored.BLOCK) * config.quantization.double_quantization
        )
    elif config.quantization.kind == "8bit":
        # The gradient of an input needs a copy of the weight, scaled; a product comes in int32 before it is float16.
        outputs = max((group.out_features for group in quantized), default=0)
        found = max(2 * largest * choices.compute_bytes, _INT8_PRODUCT_BYTES * tokens * outputs * choices.on_gpu)
    experts = [target.group for target in targets(facts, config.adapter) if target.group.kind == "expert"]
    if experts:
        # PEFT adds the adapter of fused experts to all of them and keeps both for the backward pass of the layer.
        found += 3 * max(group.weight_elements // group.count for group in experts) * choices.weight_bytes
    return found


def _program_band(config: RunConfig, batch: Shape) -> float:
    return _UNPADDED_BAND if config.model.attention in _OWN_KERNELS and batch.rows > 1 else _PROGRAM_BAND


def _band(config: RunConfig, facts: ModelFacts, choices: Choices) -> float:
    """By what share of a step's tensors its closed form may be wrong.

    Against dry runs of sixteen models (1 x 1,024 tokens, with and without checkpointing, both
    recipes) it was off by up to 12 % in families like Llama, 29 % in other dense ones and 44 % with experts.
    """
    adapter = config.adapter
    unusual = (
        config.quantization.kind in ("8bit", "none")
        or adapter.kind == "full"
        or adapter.dora
        or bool(adapter.modules_to_save)
    )
    if facts.moe is not None or facts.latent_attention is not None or facts.family is None:
        return 0.50
    if not choices.on_gpu:
        return 0.40
    return 0.15 if facts.family in closed_form.SHAPED_LIKE_LLAMA and not unusual else 0.30
