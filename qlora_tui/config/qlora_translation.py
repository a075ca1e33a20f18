"""A command line of the original qlora.py as a RunConfig, with a note on every flag that has no equivalent."""

from __future__ import annotations

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

_OPTIMIZERS = {
    "adamw_hf": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "lion": "lion_32bit",
    "paged_lion": "paged_lion_32bit",
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
    settings: Settings = {"training.recipe": "original"}
    settings |= {flag.key: flags[name] for name, flag in FLAGS.items() if flag.key and flags[name] is not None}
    for rule in (_weights, _adapter, _data, _steps, _optimization):
        settings |= rule(flags)
    config = build([Layer(_nested(settings), lambda _: "flags of qlora.py")])
    return config, list(_notes(given, flags))


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
    return settings


def _steps(flags: Mapping[str, Any]) -> Settings:
    settings: Settings = {}
    if flags["max_steps"] > 0:
        settings["training.max_steps"] = flags["max_steps"]
    else:
        settings["training.epochs"] = flags["num_train_epochs"]
    if flags["evaluation_strategy"] == "steps":
        settings["training.eval_every_steps"] = flags["eval_steps"] or flags["logging_steps"]
    return settings


def _optimization(flags: Mapping[str, Any]) -> Settings:
    optimizer = _OPTIMIZERS.get(flags["optim"], flags["optim"])
    settings: Settings = {
        "training.optimizer": _known("optim", optimizer, get_args(Optimizer)),
        "training.schedule": _known("lr_scheduler_type", flags["lr_scheduler_type"], get_args(Schedule)),
        "training.gradient_checkpointing": "on" if flags["gradient_checkpointing"] else "off",
        "training.trackers": [
            _known("report_to", name, get_args(Tracker)) for name in flags["report_to"].split(",") if name != "none"
        ],
    }
    if flags["lr_scheduler_type"] != "constant":
        if flags["warmup_steps"]:
            settings["training.warmup_steps"] = flags["warmup_steps"]
        else:
            settings["training.warmup_ratio"] = flags["warmup_ratio"]
    return settings


def _known(flag: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ConfigError(f"--{flag} {value}: no equivalent", hint=f"Known: {', '.join(choices)}.")
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
    if flags["evaluation_strategy"] == "epoch":
        yield "--evaluation_strategy epoch: evaluations are counted in steps; set training.eval_every_steps"
    if given.get("save_strategy", "steps") != "steps":
        yield f"--save_strategy {given['save_strategy']}: checkpoints go by steps; set training.save_every_steps"
    if flags["full_finetune"]:
        for name in ("lora_r", "lora_alpha", "lora_dropout"):
            if name in given:
                yield f"--{name}: left out, --full_finetune has no adapter"
