"""A command line of the original qlora.py as a RunConfig, with a note on every flag that has no equivalent."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from qlora_tui.config.layers import Layer, build
from qlora_tui.config.qlora_flags import FLAGS, parse
from qlora_tui.config.training import Optimizer, Schedule, Tracker
from qlora_tui.errors import ConfigError

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig

Settings = dict[str, Any]
"""Values by dotted key."""

_STRATEGIES = ("no", "steps", "epoch")
_OPTIMIZERS = {
    "adamw_hf": "adamw_torch",
    "adamw_apex_fused": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "lion": "lion_32bit",
    "paged_lion": "paged_lion_32bit",
}
_SCHEDULES = {
    "polynomial": ("linear", "with power 1, as in qlora.py, it decays linearly (to 1e-7 there, to 0 here)"),
    "cosine_with_restarts": ("cosine", "with one cycle, as in qlora.py, it never restarts"),
}
"""Schedules with another name in qlora-tui, and why they are equivalent."""

_REASONS = {
    ("report_to", "all"): "it selects whatever is installed on the machine; name the trackers instead",
    ("lr_scheduler_type", "reduce_lr_on_plateau"): "schedules depend on the step, not on the evaluation loss",
    ("optim", "adamw_torch_xla"): "it is only for TPUs",
    ("optim", "adamw_anyprecision"): "it keeps its states in bfloat16, which is not supported",
    ("optim", "adagrad"): "it is not a supported optimizer",
}
_ROWS: Mapping[str, Settings] = {
    "alpaca": {"data.format": "alpaca", "data.template": "alpaca"},
    "chip2": {"data.format": "chip2", "data.template": "plain"},
    "self-instruct": {"data.format": "prompt-completion", "data.template": "plain"},
    "input-output": {"data.format": "input-output", "data.template": "plain"},
    "hh-rlhf": {"data.format": "hh-rlhf", "data.template": "guanaco", "training.loss_on": "everything"},
    "oasst1": {"data.format": "guanaco", "data.template": "guanaco", "training.loss_on": "everything"},
}
"""What qlora.py does with rows, by its `--dataset_format`. Whole conversations are all target there."""

_FORMAT_OF = {"alpaca-clean": "alpaca", "longform": "input-output"}


def translate(arguments: Sequence[str]) -> tuple[RunConfig, list[str]]:
    """The run that `qlora.py ARGUMENTS` describes, its defaults included, and notes on what could not be kept.

    Raises UsageError for what the script does not know, ConfigError for what it refuses or we do not have.
    """
    given = parse(arguments)
    flags = {name: flag.default for name, flag in FLAGS.items()} | given
    _refuse(flags)
    settings: Settings = {"training.recipe": "original"}
    settings |= {flag.key: flags[name] for name, flag in FLAGS.items() if flag.key and flags[name] is not None}
    for rule in (_weights, _adapter, _data, _steps, _optimization):
        settings |= rule(flags)
    config = build([Layer(_nested(settings), lambda _: "flags of qlora.py")])
    return config, list(_notes(given, flags))


def _refuse(flags: Mapping[str, Any]) -> None:
    """Raise ConfigError for flags that do not describe a run or that would train differently."""
    if not flags["do_train"]:
        raise ConfigError(
            "--do_train False: nothing would be trained, and a preset describes a training run",
            hint=f"To evaluate a run, use {' and '.join(_evaluations(flags))}.",
        )
    if flags["bf16"] and flags["fp16"]:
        raise ConfigError("--bf16 and --fp16 exclude each other", hint="Leave one of them out.")
    for name, flag in FLAGS.items():
        if flag.refusal and flags[name] != flag.default:
            raise ConfigError(f"--{name} {flags[name]}: no equivalent, {flag.refusal}", hint=f"Leave --{name} out.")
    for name in ("evaluation_strategy", "save_strategy"):
        if flags[name] not in _STRATEGIES:
            raise ConfigError(f"--{name} {flags[name]}: expected {', '.join(_STRATEGIES)}")


def _evaluations(flags: Mapping[str, Any]) -> list[str]:
    """The commands for what qlora.py does without training."""
    temperature = flags["temperature"] if flags["do_sample"] else 0
    commands = []
    if flags["do_predict"] or not (flags["do_eval"] or flags["do_mmlu_eval"]):
        limit = f" --limit {flags['max_eval_samples']}" if flags["max_eval_samples"] else ""
        commands.append(
            f"`qlora-tui eval generate RUN {shlex.quote(flags['dataset'])} --temperature {temperature:g} "
            f"--top-p {flags['top_p']:g} --max-tokens {flags['max_new_tokens']}{limit}`"
        )
    if flags["do_eval"]:
        commands.append("`qlora-tui eval loss RUN`")
    if flags["do_mmlu_eval"]:
        commands.append("`qlora-tui eval mmlu RUN FILE`")
    return commands


def _nested(settings: Settings) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in settings.items():
        *tables, name = key.split(".")
        table = values
        for part in tables:
            table = table.setdefault(part, {})
        table[name] = value
    return values


def _weights(flags: Mapping[str, Any]) -> Settings:
    """Dtypes as qlora.py chooses them: --fp16 computes in float16 but stores in float32."""
    bits, kind = flags["bits"], flags["quant_type"]
    if bits not in (4, 8, 16, 32):
        raise ConfigError(f"--bits {bits}: expected 4, 8, 16 or 32")
    if kind not in ("nf4", "fp4"):
        raise ConfigError(f"--quant_type {kind}: expected nf4 or fp4")
    settings: Settings = {
        "model.device": "cpu" if flags["no_cuda"] else "auto",
        "model.dtype": "bfloat16" if flags["bf16"] else "float32",
        "quantization.kind": {4: kind, 8: "8bit"}.get(bits, "none"),
    }
    if bits == 4:
        compute = "float16" if flags["fp16"] else settings["model.dtype"]
        settings |= {"quantization.compute_dtype": compute, "quantization.double_quantization": flags["double_quant"]}
    return settings


def _adapter(flags: Mapping[str, Any]) -> Settings:
    if flags["full_finetune"]:
        if flags["bits"] not in (16, 32):
            raise ConfigError("--full_finetune needs --bits 16 or --bits 32", hint="Add --bits 16.")
        return {"adapter.kind": "full"}
    return {
        "adapter.rank": flags["lora_r"],
        "adapter.alpha": flags["lora_alpha"],
        "adapter.dropout": flags["lora_dropout"],
    }


def _data(flags: Mapping[str, Any]) -> Settings:
    source = flags["dataset"]
    if source == "vicuna":
        raise ConfigError("--dataset vicuna: it was never released", hint="Choose another data set.")
    wanted = flags["dataset_format"] or source
    wanted = _FORMAT_OF.get(wanted, wanted)
    if flags["dataset_format"] and wanted not in _ROWS:
        raise ConfigError(f"--dataset_format {wanted}: expected {', '.join([*_ROWS, 'alpaca-clean'])}")
    settings: Settings = {"data.source": source} | _ROWS.get(wanted, _ROWS["input-output"])
    settings["training.max_length_tokens"] = max(8, flags["source_max_len"] + flags["target_max_len"])
    if flags["train_on_source"]:
        settings["training.loss_on"] = "everything"
    if flags["do_eval"] or flags["evaluation_strategy"] != "no":
        settings["data.eval_rows"] = flags["eval_dataset_size"]
        settings["data.max_eval_rows"] = flags["max_eval_samples"]
        settings["training.best_checkpoint"] = flags["load_best_model_at_end"]
    return settings


def _steps(flags: Mapping[str, Any]) -> Settings:
    settings: Settings = {"training.save_every_steps": _interval("save_steps", flags["save_steps"], flags)}
    if flags["max_steps"] > 0:
        settings["training.max_steps"] = flags["max_steps"]
    else:
        settings["training.epochs"] = flags["num_train_epochs"]
    if flags["evaluation_strategy"] == "steps":
        name = "eval_steps" if flags["eval_steps"] else "logging_steps"
        settings["training.eval_every_steps"] = _interval(name, flags[name], flags)
    return settings


def _interval(name: str, value: float, flags: Mapping[str, Any]) -> int:
    """Return a number of steps. transformers treats values below 1 as a fraction of all steps."""
    if value >= 1 and value == int(value):
        return int(value)
    if not 0 < value < 1:
        raise ConfigError(f"--{name} {value:g}: expected a whole number of steps, or a fraction of all steps below 1")
    if flags["max_steps"] <= 0:
        raise ConfigError(
            f"--{name} {value:g}: a fraction of all steps, whose number is unknown without --max_steps",
            hint=f"Give --max_steps, or --{name} as a whole number of steps.",
        )
    return math.ceil(value * int(flags["max_steps"]))


def _optimization(flags: Mapping[str, Any]) -> Settings:
    optimizer = "adafactor" if flags["adafactor"] else _OPTIMIZERS.get(flags["optim"], flags["optim"])
    schedule, _ = _SCHEDULES.get(flags["lr_scheduler_type"], (flags["lr_scheduler_type"], ""))
    trackers = [name for name in flags["report_to"].split(",") if name != "none"]
    settings: Settings = {
        "training.optimizer": _known("optim", optimizer, get_args(Optimizer)),
        "training.schedule": _known("lr_scheduler_type", schedule, get_args(Schedule)),
        "training.gradient_checkpointing": "on" if flags["gradient_checkpointing"] else "off",
        "training.trackers": [_known("report_to", name, get_args(Tracker)) for name in trackers],
    }
    if flags["lr_scheduler_type"] != "constant":
        if flags["warmup_steps"]:
            settings["training.warmup_steps"] = flags["warmup_steps"]
        else:
            settings["training.warmup_ratio"] = flags["warmup_ratio"]
    return settings


def _known(flag: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        reason = _REASONS.get((flag, value))
        problem = f"no equivalent, {reason}" if reason else "no equivalent"
        raise ConfigError(f"--{flag} {value}: {problem}", hint=f"Known: {', '.join(choices)}.")
    return value


def _notes(given: Mapping[str, Any], flags: Mapping[str, Any]) -> Iterator[str]:
    """One line for each given flag that does nothing here."""
    for name in given:
        if FLAGS[name].note:
            yield f"--{name}: left out, {FLAGS[name].note}"
    if flags["lr_scheduler_type"] == "constant":
        for name in ("warmup_ratio", "warmup_steps"):
            if given.get(name):
                yield f"--{name}: left out, the constant schedule ignores warmup (in qlora.py too)"
    if flags["lr_scheduler_type"] in _SCHEDULES:
        schedule, reason = _SCHEDULES[flags["lr_scheduler_type"]]
        yield f"--lr_scheduler_type {flags['lr_scheduler_type']}: {schedule}, {reason}"
    if flags["evaluation_strategy"] == "epoch":
        yield "--evaluation_strategy epoch: evaluations are counted in steps; set training.eval_every_steps"
    if given.get("save_strategy", "steps") != "steps":
        yield f"--save_strategy {given['save_strategy']}: checkpoints go by steps; set training.save_every_steps"
    if flags["full_finetune"]:
        for name in ("lora_r", "lora_alpha", "lora_dropout"):
            if name in given:
                yield f"--{name}: left out, --full_finetune has no adapter"
