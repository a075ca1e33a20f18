"""The flags of the original qlora.py: all 60 that it declares and those it inherits that its scripts use.

Each flag knows its default there and the setting that it became, or why it became none. Parsing accepts what the
script accepts: abbreviations, `--flag`, `--flag True`, `--no_flag`; unlike there, unknown flags are an error.
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
    Flag("do_train", True, note="a run always trains"),
    Flag("lr_scheduler_type", "constant"),
    Flag("warmup_ratio", 0.03),
    Flag("logging_steps", 10, note=_EVERY_STEP),
    Flag("group_by_length", True, "training.group_by_length"),
    Flag("save_strategy", "steps"),
    Flag("save_steps", 250, "training.save_every_steps"),
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
    Flag("eval_steps", None, kind=int),
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
)
DECLARED = MODEL + DATA + TRAINING + GENERATION
FLAGS = {flag.name: flag for flag in DECLARED + INHERITED}


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
        else:
            parser.add_argument(f"--{flag.name}", type=flag.type)
    return parser


def _boolean(text: str) -> bool:
    words = {"yes": True, "true": True, "t": True, "y": True, "1": True}
    words |= {"no": False, "false": False, "f": False, "n": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"expected True or False, found {text!r}")
    return words[text.lower()]
