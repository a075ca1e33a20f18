"""The flags of the original qlora.py: the 60 that it declares and those inherited from transformers 4.31.

Each flag has its original default and the corresponding setting, or the reason why there is none. Like the
script, the parser accepts abbreviations, `--flag`, `--flag True` and `--no_flag`; unknown flags are an error.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from qlora_tui.errors import UsageError, nearest

CHAT = "how answers are generated is chosen when chatting"
_MMLU = "name a file of MMLU rows with training.mmlu_file to have it measured at each evaluation"
_PREDICT = "predictions are not part of a training run"
_EVERY_STEP = "every step is recorded"


@dataclass(frozen=True)
class Flag:
    name: str
    default: Any
    """The value without the flag; its type is the flag's type, unless `kind` says otherwise."""

    key: str = ""
    """Dotted key of the setting that takes the value as it is."""

    note: str = ""
    """Why the flag has no equivalent. Empty when it has one: `key`, or a rule of the translation."""

    kind: type = str
    refusal: str = ""
    """Why values other than the default are refused: they would change the training and have no equivalent."""

    @property
    def type(self) -> type:
        return self.kind if self.default is None else type(self.default)


MODEL = (
    Flag("model_name_or_path", "EleutherAI/pythia-12b", "model.id"),
    Flag("trust_remote_code", False, "model.trust_remote_code"),
    Flag("use_auth_token", False, note="the stored hub token is sent whenever there is one"),
)
DATA = (
    Flag("eval_dataset_size", 1024),
    Flag("max_train_samples", None, "data.max_train_rows", kind=int),
    Flag("max_eval_samples", None, kind=int),
    Flag("source_max_len", 1024, "data.source_max_tokens"),
    Flag("target_max_len", 256, "data.target_max_tokens"),
    Flag("dataset", "alpaca"),
    Flag("dataset_format", None),
)
TRAINING = (
    Flag("cache_dir", None, note="the hub cache follows HF_HOME"),
    Flag("train_on_source", False),
    Flag("mmlu_split", "eval", note=_MMLU),
    Flag("mmlu_dataset", "mmlu-fs", note=_MMLU),
    Flag("do_mmlu_eval", False, note=_MMLU),
    Flag("max_mmlu_samples", None, note=_MMLU, kind=int),
    Flag("mmlu_source_max_len", 2048, note=_MMLU),
    Flag("full_finetune", False),
    Flag(
        "adam8bit", False, note="a dead flag that qlora.py never reads; --optim paged_adamw_8bit is what it sounds like"
    ),
    Flag("double_quant", True),
    Flag("quant_type", "nf4"),
    Flag("bits", 4),
    Flag("lora_r", 64),
    Flag("lora_alpha", 16.0),
    Flag("lora_dropout", 0.0),
    Flag("max_memory_MB", 80000, note="memory is estimated before the start and never capped"),
    Flag("report_to", "none"),
    Flag("output_dir", "./output", note="a run lives in the folder of its name below the folder of all runs"),
    Flag("optim", "paged_adamw_32bit"),
    Flag("per_device_train_batch_size", 1, "training.micro_batch_size"),
    Flag("gradient_accumulation_steps", 16, "training.gradient_accumulation_steps"),
    Flag("max_steps", 10000),
    Flag("weight_decay", 0.0, "training.weight_decay"),
    Flag("learning_rate", 2e-4, "training.learning_rate"),
    Flag("remove_unused_columns", False, note="columns that are not needed never reach the model"),
    Flag("max_grad_norm", 0.3, "training.max_grad_norm"),
    Flag("gradient_checkpointing", True),
    Flag("do_train", True),
    Flag("lr_scheduler_type", "constant"),
    Flag("warmup_ratio", 0.03),
    Flag("logging_steps", 10.0, note=_EVERY_STEP),
    Flag("group_by_length", True, "training.group_by_length"),
    Flag("save_strategy", "steps"),
    Flag("save_steps", 250.0),
    Flag("save_total_limit", 40, "training.keep_checkpoints"),
)
GENERATION = (
    Flag("max_new_tokens", 256, note=CHAT),
    Flag("min_new_tokens", None, note=CHAT, kind=int),
    Flag("do_sample", False, note=CHAT),
    Flag("num_beams", 1, note=CHAT),
    Flag("num_beam_groups", 1, note=CHAT),
    Flag("penalty_alpha", None, note=CHAT, kind=float),
    Flag("use_cache", True, note=CHAT),
    Flag("temperature", 1.0, note=CHAT),
    Flag("top_k", 50, note=CHAT),
    Flag("top_p", 1.0, note=CHAT),
    Flag("typical_p", 1.0, note=CHAT),
    Flag("diversity_penalty", 0.0, note=CHAT),
    Flag("repetition_penalty", 1.0, note=CHAT),
    Flag("length_penalty", 1.0, note=CHAT),
    Flag("no_repeat_ngram_size", 0, note=CHAT),
)
INHERITED = (
    Flag("do_eval", False),
    Flag("do_predict", False, note=_PREDICT),
    Flag("predict_with_generate", False, note=_PREDICT),
    Flag("evaluation_strategy", "no"),
    Flag("eval_steps", None, kind=float),
    Flag("per_device_eval_batch_size", 8, note="evaluation uses the micro batch of training"),
    Flag("logging_strategy", "steps", note=_EVERY_STEP),
    Flag("dataloader_num_workers", 0, note="rows are tokenized before training, so no workers are needed"),
    Flag("data_seed", None, note="the order of the rows follows training.seed", kind=int),
    Flag("seed", 42, "training.seed"),
    Flag("adam_beta1", 0.9, "training.adam_beta1"),
    Flag("adam_beta2", 0.999, "training.adam_beta2"),
    Flag("bf16", False),
    Flag("fp16", False),
    Flag("run_name", None, note="a run is named when it is started"),
    Flag("num_train_epochs", 3.0),
    Flag("warmup_steps", 0),
    Flag("local_rank", -1, note="a run uses one device"),
    Flag("lora_modules", None, note="no flag of qlora.py, which drops it silently: it adapts all linear layers anyway"),
    Flag("load_best_model_at_end", False),
    Flag("no_cuda", False),
    Flag("adafactor", False),
)
_UPLOADS = "runs do not upload anything"
_LOGGED = "progress is written to the screen and to events.jsonl"
_ONE_DEVICE = "a run uses one device"
_PREPARED = "rows are tokenized before training and read from a memory-mapped file"
_MEASURED = "every run measures its peak memory and speed"
_PRECISION = "the dtypes are set by --bf16, --fp16 and model.dtype"
_RESUME = "`qlora-tui resume` continues a run from its latest complete checkpoint"
_EVALUATION = "evaluation measures the loss over every evaluation row with the dtypes of training"
_IGNORED: dict[str, dict[str, Any]] = {
    _RESUME: {"overwrite_output_dir": False, "resume_from_checkpoint": None, "ignore_data_skip": False},
    _EVALUATION: {
        "prediction_loss_only": False, "per_gpu_eval_batch_size": None, "eval_accumulation_steps": None,
        "bf16_full_eval": False, "fp16_full_eval": False, "jit_mode_eval": False,
        "include_inputs_for_metrics": False, "label_names": None, "use_legacy_prediction_loop": False,
    },
    _LOGGED: {
        "log_level": "passive", "log_level_replica": "warning", "log_on_each_node": True, "logging_dir": None,
        "logging_first_step": False, "logging_nan_inf_filter": True, "disable_tqdm": False, "debug": "",
    },
    _PRECISION: {
        "fp16_opt_level": "O1", "half_precision_backend": "auto", "fp16_backend": "auto", "tf32": True,
    },
    _ONE_DEVICE: {
        "ddp_backend": None, "ddp_find_unused_parameters": False, "ddp_bucket_cap_mb": None, "ddp_timeout": 1800,
        "ddp_broadcast_buffers": False, "tpu_num_cores": None, "tpu_metrics_debug": False, "mp_parameters": "",
        "ray_scope": "last", "use_ipex": False, "xpu_backend": None, "use_mps_device": False,
        "save_on_each_node": False,
    },
    _PREPARED: {
        "dataloader_pin_memory": True, "dataloader_drop_last": False, "length_column_name": "length",
        "sortish_sampler": False,
    },
    _MEASURED: {"skip_memory_metrics": True},
    "adapters are always saved as safetensors": {"save_safetensors": False},
    "the best checkpoint is the one with the lowest evaluation loss": {
        "metric_for_best_model": None, "greater_is_better": False,
    },
    _UPLOADS: {
        "push_to_hub": False, "hub_model_id": None, "hub_strategy": "every_save", "hub_token": None,
        "hub_private_repo": False, "push_to_hub_model_id": None, "push_to_hub_organization": None,
        "push_to_hub_token": None,
    },
    CHAT: {"generation_max_length": None, "generation_num_beams": None, "generation_config": None},
    "models are not compiled": {
        "torch_compile": False, "torch_compile_backend": None, "torch_compile_mode": None, "torchdynamo": None,
    },
    "a run with the same settings on the same machine gives the same losses": {"full_determinism": False},
    "evaluation runs every given number of steps": {"eval_delay": 0.0},
}  # fmt: skip
"""Flags that do not change the trained weights, with their defaults, grouped by reason."""

IGNORED = tuple(
    Flag(name, default, note=note, kind=str) for note, flags in _IGNORED.items() for name, default in flags.items()
)
CHANGING = (
    Flag("adam_epsilon", 1e-8, refusal="AdamW's epsilon is 1e-8 here"),
    Flag("label_smoothing_factor", 0.0, refusal="the loss here is cross-entropy without label smoothing"),
    Flag("optim_args", None, refusal="optimizers have no arguments other than their settings"),
    Flag("past_index", -1, refusal="models do not keep state between batches"),
    Flag("per_gpu_train_batch_size", None, refusal="use --per_device_train_batch_size", kind=int),
    Flag(
        "auto_find_batch_size",
        False,
        refusal="`train --replan-on-oom` retries with a smaller micro batch and the same effective batch size",
    ),
    Flag("deepspeed", None, refusal="DeepSpeed is not supported; `qlora-tui estimate` shows what fits on one device"),
    Flag("fsdp", "", refusal=_ONE_DEVICE),
    Flag("fsdp_min_num_params", 0, refusal=_ONE_DEVICE),
    Flag("fsdp_config", None, refusal=_ONE_DEVICE),
    Flag("fsdp_transformer_layer_cls_to_wrap", None, refusal=_ONE_DEVICE),
    Flag("sharded_ddp", "", refusal=_ONE_DEVICE),
)
DECLARED = MODEL + DATA + TRAINING + GENERATION
FLAGS = {flag.name: flag for flag in DECLARED + INHERITED + IGNORED + CHANGING}


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The flags that were given, with their values. A `python qlora.py` in front is skipped.

    Raises UsageError for an unknown or ambiguous flag, or a value of the wrong type.
    """
    first = next((index for index, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    strangers = [text for text in arguments[:first] if not text.endswith(("python", "python3", ".py"))]
    known, unknown = _parser().parse_known_args(arguments[first:])
    for text in [*strangers, *unknown]:
        name = text.lstrip("-").partition("=")[0]
        if not text.startswith("--"):
            raise UsageError(f"{text!r} belongs to no flag", hint="Write flags as --lora_r 64.")
        raise UsageError(f"qlora.py has no flag --{name}", hint=nearest(name, list(FLAGS)))
    return vars(known)


_LISTS = ("report_to", "label_names")


class _Joined(argparse.Action):
    """Comma-separated values of one flag."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, ",".join(values))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"flags of qlora.py: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="qlora.py", add_help=False, argument_default=argparse.SUPPRESS)
    for flag in FLAGS.values():
        if flag.type is bool:
            parser.add_argument(f"--{flag.name}", type=_boolean, nargs="?", const=True)
            if flag.default:
                parser.add_argument(f"--no_{flag.name}", dest=flag.name, action="store_false")
        elif flag.name in _LISTS:
            parser.add_argument(f"--{flag.name}", nargs="+", action=_Joined)
        else:
            parser.add_argument(f"--{flag.name}", type=flag.type)
    return parser


def _boolean(text: str) -> bool:
    words = {"yes": True, "true": True, "t": True, "y": True, "1": True}
    words |= {"no": False, "false": False, "f": False, "n": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"expected True or False, found {text!r}")
    return words[text.lower()]
