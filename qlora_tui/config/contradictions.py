"""Settings that exclude each other (refused) and settings without effect (warned about). Both fields are named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from qlora_tui.config.fields import value

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig


class Contradiction(ValueError):
    """Two settings that exclude each other, by dotted key, and what to change."""

    def __init__(self, keys: tuple[str, str], message: str, remedy: str) -> None:
        super().__init__(message)
        self.keys = keys
        self.remedy = remedy


class Idle(NamedTuple):
    """A setting that does nothing because of another one."""

    key: str
    because_of: str
    reason: str


def refuse_contradictions(config: RunConfig) -> None:
    """Raise Contradiction, naming both fields, when two settings exclude each other."""
    for rules in (_adapter, _cpu, _evaluation, _rows):
        for contradiction in rules(config):
            raise contradiction


def without_effect(config: RunConfig) -> list[str]:
    """Return a sentence for each explicitly chosen setting that has no effect because of another one."""
    return [
        f"{idle.key} = {_text(value(config, idle.key))} has no effect with "
        f"{idle.because_of} = {_text(value(config, idle.because_of))}: {idle.reason}."
        for idle in _idle(config)
        if _chosen(config, idle.key)
    ]


def idle_defaults(config: RunConfig) -> list[str]:
    """Return the dotted keys of the settings that have no effect and were not chosen."""
    return [idle.key for idle in _idle(config) if not _chosen(config, idle.key)]


def _adapter(config: RunConfig) -> Iterator[Contradiction]:
    adapter, kind = config.adapter, config.quantization.kind
    if adapter.kind == "full":
        if kind != "none":
            yield Contradiction(
                ("adapter.kind", "quantization.kind"),
                f"adapter.kind = full trains every weight, so it excludes quantization.kind = {kind}",
                "Set quantization.kind to none, or adapter.kind to lora.",
            )
        for name, unset in (
            ("dora", False), ("rank_stabilized", False), ("init", "default"), ("lora_plus_ratio", None)
        ):  # fmt: skip
            found = getattr(adapter, name)
            if found != unset:
                yield Contradiction(
                    (f"adapter.{name}", "adapter.kind"),
                    f"adapter.{name} = {_text(found)} is a kind of LoRA, so it excludes adapter.kind = full",
                    f"Remove adapter.{name}, or set adapter.kind to lora.",
                )
        if config.model.dtype == "float16":
            yield Contradiction(
                ("model.dtype", "adapter.kind"),
                "model.dtype = float16 excludes adapter.kind = full: trained weights need float32 or bfloat16",
                "Set model.dtype to auto or bfloat16.",
            )
    if (
        adapter.layers_to_transform
        and adapter.target_modules != "all-linear"
        and isinstance(adapter.target_modules, str)
    ):
        yield Contradiction(
            ("adapter.layers_to_transform", "adapter.target_modules"),
            "adapter.layers_to_transform chooses among modules by name, so it excludes a regular expression in "
            "adapter.target_modules",
            "Name the modules in a list, or put the layers into the regular expression.",
        )
    if adapter.init == "pissa" and kind != "none":
        # The saved adapter is a LoRA for the unchanged base. A quantized W - A0 B0 plus A B is another model than a
        # quantized W plus A B - A0 B0, so that adapter would not be the one that was trained.
        yield Contradiction(
            ("adapter.init", "quantization.kind"),
            f"adapter.init = pissa moves the principal components of the weights into the adapter and would quantize "
            f"only the rest; on the unchanged base with quantization.kind = {kind} the saved adapter would be another "
            "model than the trained one",
            "Set quantization.kind to none; or, for 4-bit weights, set adapter.init to loftq.",
        )
    if adapter.init == "loftq" and not config.quantization.is_four_bit:
        yield Contradiction(
            ("adapter.init", "quantization.kind"),
            f"adapter.init = loftq cancels the error of 4-bit weights, so it excludes quantization.kind = {kind}",
            "Set quantization.kind to nf4 or fp4, or adapter.init to default.",
        )


def _cpu(config: RunConfig) -> Iterator[Contradiction]:
    if config.model.device != "cpu":
        return
    for key in ("model.dtype", "quantization.compute_dtype"):
        if value(config, key) == "float16":
            yield Contradiction(
                (key, "model.device"),
                f"{key} = float16 excludes model.device = cpu: float16 training needs a GPU",
                f"Set {key} to auto, float32 or bfloat16.",
            )
    if config.model.attention.startswith("flash_attention"):
        yield Contradiction(
            ("model.attention", "model.device"),
            f"model.attention = {config.model.attention} excludes model.device = cpu: it runs on GPUs alone",
            "Set model.attention to auto or sdpa.",
        )


def _evaluation(config: RunConfig) -> Iterator[Contradiction]:
    training = config.training
    for key in ("training.best_checkpoint", "training.early_stopping_evals"):
        if not value(config, key):
            continue
        if not config.data.has_evaluation:
            yield Contradiction(
                (key, "data.eval_rows"),
                f"{key} = {_text(value(config, key))} needs evaluation data, but data.eval_rows = 0 and neither "
                "data.eval_source nor data.eval_split is set",
                "Set data.eval_rows, such as 100, or data.eval_source or data.eval_split.",
            )
        elif training.eval_every_steps is None:
            yield Contradiction(
                (key, "training.eval_every_steps"),
                f"{key} = {_text(value(config, key))} compares evaluations during training, "
                "but training.eval_every_steps is empty",
                "Set training.eval_every_steps.",
            )
    every, save = training.eval_every_steps, training.save_every_steps
    if training.best_checkpoint and every and save % every:
        yield Contradiction(
            ("training.save_every_steps", "training.eval_every_steps"),
            f"training.best_checkpoint needs an evaluation at every checkpoint, but training.save_every_steps = {save} "
            f"is no multiple of training.eval_every_steps = {every}",
            f"Set training.save_every_steps to {max(every, round(save / every) * every)}.",
        )


def _rows(config: RunConfig) -> Iterator[Contradiction]:
    data, training = config.data, config.training
    if data.streaming and training.max_steps is None:
        yield Contradiction(
            ("data.streaming", "training.max_steps"),
            "data.streaming = true reads rows without knowing how many there are, but training.max_steps is empty",
            "Set training.max_steps, or data.streaming to false.",
        )
    if data.streaming and training.group_by_length:
        yield Contradiction(
            ("data.streaming", "training.group_by_length"),
            "training.group_by_length = true needs all lengths beforehand, so it excludes data.streaming = true",
            "Set one of the two to false.",
        )
    if training.packing and training.group_by_length:
        yield Contradiction(
            ("training.packing", "training.group_by_length"),
            "training.packing = true makes rows of equal length, so it excludes training.group_by_length = true",
            "Set one of the two to false; packing saves more.",
        )


def _idle(config: RunConfig) -> Iterator[Idle]:
    yield from _idle_weights(config)
    yield from _idle_schedule(config)
    yield from _idle_evaluation(config)
    yield from _idle_rows(config)
    if not config.training.trackers:
        for name in ("tracker_project", "tracker_tags"):
            yield Idle(f"training.{name}", "training.trackers", "training.trackers is empty")


def _idle_weights(config: RunConfig) -> Iterator[Idle]:
    if not config.quantization.is_four_bit:
        for name in ("double_quantization", "compute_dtype", "quant_storage"):
            yield Idle(f"quantization.{name}", "quantization.kind", "only nf4 and fp4 have it")
    if config.adapter.kind == "full":
        for name in (
            "rank", "alpha", "dropout", "target_modules", "exclude_modules", "layers_to_transform", "rank_pattern",
            "alpha_pattern", "modules_to_save",
        ):  # fmt: skip
            yield Idle(f"adapter.{name}", "adapter.kind", "there is no adapter")
    optimizer = config.training.optimizer
    if optimizer in ("sgd", "adafactor"):
        for name in ("adam_beta1", "adam_beta2"):
            yield Idle(f"training.{name}", "training.optimizer", "it keeps no such moments")
    if optimizer.startswith("paged_") and config.model.device == "cpu":
        yield Idle("training.optimizer", "model.device", "without GPU memory it runs unpaged")


def _idle_schedule(config: RunConfig) -> Iterator[Idle]:
    training = config.training
    if training.schedule == "constant":
        for name in ("warmup_ratio", "warmup_steps"):
            yield Idle(f"training.{name}", "training.schedule", "it has no warmup, constant_with_warmup has")
    elif training.warmup_steps is not None:
        yield Idle("training.warmup_ratio", "training.warmup_steps", "the number of steps wins")
    if training.max_steps is not None:
        yield Idle("training.epochs", "training.max_steps", "the number of steps wins")


def _idle_evaluation(config: RunConfig) -> Iterator[Idle]:
    data, training = config.data, config.training
    if not data.has_evaluation:
        for key in (
            "training.eval_every_steps", "training.mmlu_file", "training.prediction_rows",
            "training.prediction_max_tokens", "data.max_eval_rows", "data.split_seed",
        ):  # fmt: skip
            yield Idle(key, "data.eval_rows", "there is no evaluation data")
    elif training.prediction_rows == 0:
        yield Idle("training.prediction_max_tokens", "training.prediction_rows", "training.prediction_rows is 0")
    for key in ("data.eval_source", "data.eval_split"):
        if value(config, key) is not None:
            yield Idle("data.eval_rows", key, "nothing is cut from the training rows")
            break
    if not training.sample_prompts:
        for name in ("sample_every_steps", "sample_max_tokens"):
            yield Idle(f"training.{name}", "training.sample_prompts", "there is nothing to answer")


def _idle_rows(config: RunConfig) -> Iterator[Idle]:
    data, limit = config.data, config.training.max_length_tokens
    for name in ("source_max_tokens", "target_max_tokens"):
        if (getattr(data, name) or 0) >= limit:
            yield Idle(f"data.{name}", "training.max_length_tokens", "the limit of the whole row is not higher")
    if data.length_policy != "truncate":
        yield Idle("data.truncation_side", "data.length_policy", "nothing is cut")


def _chosen(config: RunConfig, key: str) -> bool:
    """Return whether the value was set explicitly, even if it equals the default."""
    table, _, name = key.partition(".")
    spec = getattr(config, table)
    default = type(spec).model_fields[name].get_default(call_default_factory=True)
    found = getattr(spec, name)
    written = table in config.model_fields_set and name in spec.model_fields_set
    return found is not None and (written or found != default)


def _text(found: Any) -> str:
    if found is None:
        return "empty"
    return str(found).lower() if isinstance(found, bool) else str(found)
