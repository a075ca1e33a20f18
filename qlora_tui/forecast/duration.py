"""How long a run trains: by a finished run of the same model here, else by the measured speed of this machine."""

from dataclasses import dataclass
from math import exp, prod
from statistics import NormalDist

from qlora_tui.config.run import RunConfig
from qlora_tui.errors import QloraError, StorageError
from qlora_tui.forecast.speed import Speed
from qlora_tui.forecast.work import Work
from qlora_tui.memory import trainable
from qlora_tui.memory.device import Device
from qlora_tui.memory.stored_estimate import BEFORE_START
from qlora_tui.models.facts import ModelFacts
from qlora_tui.runs import jobs, store
from qlora_tui.runs.extension import current_config
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.runs.freeze import frozen
from qlora_tui.runs.pace import seconds_per_step
from qlora_tui.runs.store import RunFolder

_TYPICAL = Speed(weight_s=3e-10, flop_s=1e-11, call_s=5e-5, op_s=5e-5)
"""Of a CPU with two cores. Only ratios of times are taken from it."""

_OPS_PER_LAYER = 5
"""Small operations that come with each linear layer: norms, the adapter, attention, activations."""

_LENGTH_SPREAD = 0.5
"""Standard deviation of the logarithm of row lengths, as in common instruction data."""

_LARGEST_LOG_BYTES = 32 << 20
"""Longer logs take seconds to read."""

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Observed:
    """A run that trained on this machine."""

    run: str
    config: RunConfig
    checkpointing: bool
    step_s: float
    """Median time of a step."""

    tokens_per_step: float


@dataclass(frozen=True, slots=True)
class Duration:
    """Time of training, loading the model and saving left out."""

    seconds: float
    step_s: float
    basis: str
    """What it rests on, in a few words."""


def observed(config: RunConfig, device: Device) -> Observed | None:
    """Return the newest run of the same model, stored the same way, that trained on such a device here. Reads logs."""
    wanted = frozen(config)
    tried = 0
    for run in store.all_runs():
        plan = read_plan(run)
        estimate = plan.get(BEFORE_START)
        kind = estimate.get("kind") if isinstance(estimate, dict) else None
        if plan.get("model") != wanted.model.id or kind != device.kind or tried >= _TRIES:
            continue
        tried += 1
        found = _of_run(run, wanted, checkpointing=bool(estimate and estimate.get("gradient_checkpointing")))
        if found is not None:
            return found
    return None


def _of_run(run: RunFolder, wanted: RunConfig, *, checkpointing: bool) -> Observed | None:
    try:
        config = run.load_config()
        alike = (config.quantization.kind, config.adapter.kind) == (wanted.quantization.kind, wanted.adapter.kind)
        if not alike or run.events.stat().st_size > _LARGEST_LOG_BYTES:
            return None
        state = jobs.replay(run)
        config = current_config(run, state)
    except (OSError, QloraError, StorageError):
        return None
    step_s, points = seconds_per_step(state), state.steps.points()
    if step_s is None or len(points) < 2 or points[-1].step <= points[0].step:
        return None
    tokens = (points[-1].tokens - points[0].tokens) / (points[-1].step - points[0].step)
    return Observed(run.name, config, checkpointing, step_s, tokens) if tokens > 0 else None


def duration(
    config: RunConfig, facts: ModelFacts, checkpointing: bool, work: Work, seen: Observed | None, speed: Speed | None
) -> Duration | None:
    """Return how long a run trains; None when this machine has neither trained such a model nor been measured.

    `checkpointing`: whether activations are recomputed. Other settings than those of the run that was seen are
    accounted for by the arithmetic that they need.
    """
    per_micro_batch = work.tokens_per_micro_batch
    used = speed or _TYPICAL
    now_s = pass_s(config, facts, checkpointing, per_micro_batch, used)
    if seen is not None:
        accumulation = seen.config.training.gradient_accumulation_steps
        then_s = pass_s(seen.config, facts, seen.checkpointing, seen.tokens_per_step / accumulation, used)
        now_s *= seen.step_s / accumulation / then_s
        basis = f"as run {seen.run} took on this machine"
    elif speed is not None:
        basis = "measured on single layers here; may be off by a factor of three, by more on a busy machine"
    else:
        return None
    evaluation_s = now_s * _forward_share(config, checkpointing) * work.eval_tokens / per_micro_batch
    steps = max(work.steps, 1)
    return Duration(work.micro_batches * now_s + evaluation_s, work.micro_batches / steps * now_s, basis)


def pass_s(config: RunConfig, facts: ModelFacts, checkpointing: bool, tokens: float, speed: Speed) -> float:
    """Return the seconds of a forward and a backward pass over one micro batch of `tokens` tokens without padding."""
    passes = _passes(config, checkpointing) / 2  # a speed is that of two passes
    weights = calls = 0.0
    for group in facts.modules:
        if group.vision or group.kind not in ("linear", "head", "expert"):
            continue
        elements = float(group.count * prod(group.shape))
        if group.kind == "expert" and facts.moe is not None:
            elements *= facts.moe.experts_per_token / max(facts.moe.experts, 1)
        weights += elements
        calls += group.count
    if facts.tied:
        weights += facts.vocab_size * facts.hidden_size
    if config.adapter.kind == "lora" and facts.moe is None:  # three passes: its weights have gradients, too
        weights += 1.5 * trainable.parameters(trainable.tensors(facts, config.adapter, 4))
    rows = 1 if config.training.packing else config.training.micro_batch_size
    row_tokens = _padded(config, tokens / rows)
    tokens = rows * row_tokens
    attention = facts.layers * max(facts.heads * facts.head_dim, facts.hidden_size) * row_tokens
    flops = 4 * tokens * (weights + attention)  # two passes of two operations for each weight
    return passes * (
        weights * speed.weight_s + flops * speed.flop_s + calls * (speed.call_s + _OPS_PER_LAYER * speed.op_s)
    )


def _padded(config: RunConfig, row_tokens: float) -> float:
    """Return the length of a batch whose rows have `row_tokens` tokens on average: that of its longest row.

    Row lengths are taken to be distributed log-normally. Source: Blom's approximation of normal order statistics.
    """
    training = config.training
    if training.packing or training.group_by_length:
        return row_tokens
    rows = training.micro_batch_size
    longest = NormalDist().inv_cdf((rows - 0.375) / (rows + 0.25))
    padded = row_tokens * exp(_LENGTH_SPREAD * longest - (_LENGTH_SPREAD**2 / 2 if rows > 1 else 0))
    return max(row_tokens, min(padded, training.max_length_tokens))


def _passes(config: RunConfig, checkpointing: bool) -> int:
    """Through the weights: forward, backward, the gradients of trained weights, and the forward pass again."""
    return 2 + (config.adapter.kind == "full") + checkpointing


def _forward_share(config: RunConfig, checkpointing: bool) -> float:
    return 1 / _passes(config, checkpointing)
