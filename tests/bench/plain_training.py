"""The same fine-tuning without this program, for comparison: prints tokens per second of the steady state.

Two variants: a plain TRL script with our settings, and the loop of the original qlora.py (one row at a time, sixteen
accumulated, gradient checkpointing, float32 adapters after `prepare_model_for_kbit_training`, full logits).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from qlora_tui.starter import MODEL_DIR


class Clock(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.marks.append((time.perf_counter(), state.num_input_tokens_seen))

    def tokens_per_s(self, skipped_steps: int) -> float:
        (began_s, began_tokens), (ended_s, ended_tokens) = self.marks[skipped_steps - 1], self.marks[-1]
        return (ended_tokens - began_tokens) / (ended_s - began_s)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--original", action="store_true")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--skip", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    options = parser.parse_args()
    clock = Clock()
    trainer = _original(options, clock) if options.original else _plain(options, clock)
    trainer.train()
    print(json.dumps({"tokens_per_s": clock.tokens_per_s(options.skip)}))


def _model() -> Any:
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(
        MODEL_DIR, quantization_config=quantization, dtype=torch.float32, device_map="cpu"
    )


def _lora() -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")


def _rows(path: Path) -> Dataset:
    return Dataset.from_list([json.loads(line) for line in path.read_text().splitlines()])


def _shared(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "output_dir": str(options.output), "max_steps": options.steps, "learning_rate": 1e-3, "logging_steps": 1,
        "lr_scheduler_type": "constant", "max_grad_norm": 0.3, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "use_cpu": True, "include_num_input_tokens_seen": "non_padding", "optim": "adamw_torch",
        "dataloader_pin_memory": False,
    }  # fmt: skip


def _plain(options: argparse.Namespace, clock: Clock) -> Any:
    arguments = SFTConfig(
        **_shared(options),
        per_device_train_batch_size=options.batch,
        gradient_checkpointing=False,
        bf16=False,
        assistant_only_loss=True,
        max_length=512,
    )
    return SFTTrainer(
        model=_model(),
        args=arguments,
        train_dataset=_rows(options.rows),
        processing_class=AutoTokenizer.from_pretrained(MODEL_DIR),
        peft_config=_lora(),
        callbacks=[clock],
    )


def _original(options: argparse.Namespace, clock: Clock) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        whole = tokenizer.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
        labels = [
            token if trained else -100
            for token, trained in zip(whole["input_ids"], whole["assistant_masks"], strict=True)
        ]
        return {"input_ids": whole["input_ids"], "attention_mask": whole["attention_mask"], "labels": labels}

    rows = _rows(options.rows).map(encode, remove_columns=["messages"])
    model = get_peft_model(prepare_model_for_kbit_training(_model()), _lora())
    arguments = TrainingArguments(
        **_shared(options),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=options.batch,
        gradient_checkpointing=True,
        train_sampling_strategy="group_by_length",
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[clock],
    )


if __name__ == "__main__":
    main()
