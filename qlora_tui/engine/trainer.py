"""TRL's SFTTrainer as we configure it. No training loop of our own."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTConfig, SFTTrainer

from qlora_tui.config.run import RunConfig
from qlora_tui.config.training import TrainingSpec
from qlora_tui.engine.resolve import Settings
from qlora_tui.runs.schedule import MIN_LR_RATIO


@dataclass(slots=True)
class TokenSums:
    """Sums over the trained tokens of an evaluation. A mean of batch means would depend on the batch size."""

    tokens: int = 0
    nats: float = 0.0
    """Negative log-likelihood."""

    entropy: float = 0.0
    correct: int = 0
    """Number of tokens predicted correctly (top 1)."""

    def add(self, outputs: Any) -> None:
        """Add the outputs of TRL's fused head for one batch: zero where a token is not trained."""
        self.tokens += int(outputs.label_mask.sum())
        self.nats -= float(outputs.log_probs.double().sum())
        self.entropy += float(outputs.entropy.double().sum())
        self.correct += int(outputs.is_top1.sum())

    def means(self) -> dict[str, float]:
        """Means per trained token, by the trainer's names; NaN without such a token."""
        sums = {"loss": self.nats, "entropy": self.entropy, "mean_token_accuracy": self.correct}
        return {name: total / self.tokens if self.tokens else math.nan for name, total in sums.items()}


class ExactTrainer(SFTTrainer):
    """SFTTrainer that keeps the adapter in the dtype it was given, and evaluates per token.

    SFTTrainer 1.16 casts the trained weights of every quantized model to bfloat16 when it is made, and PEFT 0.21
    loads a checkpoint's weights as float32. Without this class, a resumed run would train in another dtype than the
    uninterrupted one, and its gradient norms would differ from the third digit on.
    """

    def __init__(self, model: Any, **kwargs: Any) -> None:
        given = {name: tensor.data for name, tensor in model.named_parameters() if tensor.requires_grad}
        super().__init__(model=model, **kwargs)
        self._dtypes = {name: tensor.dtype for name, tensor in given.items()}
        self._evaluated = TokenSums()
        for name, tensor in self.model.named_parameters():
            if name in given:
                tensor.data = given[name]

    def _restore_dtypes(self) -> None:
        for name, tensor in self.model.named_parameters():
            if name in self._dtypes:
                tensor.data = tensor.data.to(self._dtypes[name])

    @property
    def is_over(self) -> bool:
        """Whether no step is left: all were made, or the evaluations have stopped getting better."""
        stoppers = [item for item in self.callback_handler.callbacks if isinstance(item, EarlyStoppingCallback)]
        return self.state.global_step >= self.state.max_steps or any(
            item.early_stopping_patience_counter >= item.early_stopping_patience for item in stoppers
        )

    def _run_epoch(self, **kwargs: Any) -> None:
        """Nothing when the run is over: transformers 5.23 would train on from a checkpoint of the last step."""
        if self.is_over:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Of rows grouped by length, with the lengths at hand: the trainer has dropped that column and counts anew."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        rows, lengths = self.train_dataset, self.train_dataset["length"][:]
        return LengthGroupedSampler(
            self.args.train_batch_size * self.args.gradient_accumulation_steps, dataset=rows, lengths=lengths
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._restore_dtypes()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        page_again(getattr(self.optimizer, "optimizer", self.optimizer))
        if checkpoint is not None:
            follow_schedule(self.lr_scheduler)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card: TRL's is a template, and the adapter gets its own card."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save without PEFT's model card template and the trainer's arguments, which contain local paths."""
        super()._save(output_dir, state_dict)
        for name in ("README.md", TRAINING_ARGS_NAME):
            Path(output_dir or self.args.output_dir, name).unlink(missing_ok=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save without the path of the best checkpoint; `RunCallback` finds it by its step."""
        super()._save_checkpoint(model, trial)
        state = dataclasses.replace(self.state, best_model_checkpoint=None)
        state.save_to_json(str(Path(self.args.output_dir, f"checkpoint-{state.global_step}", TRAINER_STATE_NAME)))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._restore_dtypes()

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[None, None, None]:
        """Add one batch of an evaluation to the sums. No loss is returned, since the loop would average it per row."""
        with torch.no_grad(), self.compute_loss_context_manager():
            self._evaluated.add(model(**self._prepare_inputs(inputs), use_cache=False, fused_lm_head=True))
        return None, None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """The metrics of an evaluation, each the mean over its trained tokens."""
        self._evaluated = TokenSums()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        means = self._evaluated.means() | {"num_tokens": self.state.num_input_tokens_seen}
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in means.items()})
        return output


def follow_schedule(scheduler: Any) -> None:
    """Set the learning rate of the next step for the current run length: the checkpoint has it for the former one."""
    for group, base, factor in zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    ):
        group["lr"] = base * factor(scheduler.last_epoch)
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]


def page_again(optimizer: Any) -> None:
    """Move the states of a paged optimizer back to paged memory: bitsandbytes 0.50 loads them as plain GPU tensors."""
    if not getattr(optimizer, "is_paged", False):
        return
    for weight, state in optimizer.state.items():
        for name in ("state1", "state2"):
            if name in state and weight.is_cuda:
                paged = optimizer.get_state_buffer(weight, dtype=state[name].dtype)
                state[name] = paged.copy_(state[name])


def make_trainer(
    model: Any, tokenizer: Any, train: Any, evaluation: Any, config: RunConfig, settings: Settings, output: Path
) -> ExactTrainer:
    """The trainer for rows that hold `input_ids` and `labels` already."""
    trainer = ExactTrainer(
        model=model,
        args=training_arguments(config, settings, output, has_eval=evaluation is not None),
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    patience = config.training.early_stopping_evals
    if patience:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=patience))
    ratio = config.adapter.lora_plus_ratio
    if ratio:
        trainer.optimizer = _lora_plus_optimizer(trainer, ratio)
    return trainer


def training_arguments(config: RunConfig, settings: Settings, output: Path, *, has_eval: bool) -> SFTConfig:
    """Our training section in TRL's words."""
    spec = config.training
    return SFTConfig(
        output_dir=str(output),
        seed=spec.seed,
        data_seed=spec.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        disable_tqdm=True,
        report_to="none",
        **_batches(spec, settings),
        **_optimization(spec, settings),
        **_precision(settings),
        **_evaluation_and_checkpoints(spec, has_eval=has_eval),
    )


def _batches(spec: TrainingSpec, settings: Settings) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": spec.micro_batch_size,
        "per_device_eval_batch_size": spec.micro_batch_size,
        "max_length": spec.max_length_tokens if spec.packing else None,
        "packing": spec.packing,
        "dataset_kwargs": None if spec.packing else {"skip_prepare_dataset": True},
        "train_sampling_strategy": "group_by_length" if spec.group_by_length else "random",
        "dataloader_pin_memory": settings.device.type == "cuda",
    }


def _optimization(spec: TrainingSpec, settings: Settings) -> dict[str, Any]:
    return {
        "gradient_accumulation_steps": spec.gradient_accumulation_steps,
        "num_train_epochs": spec.epochs,
        "max_steps": spec.max_steps or -1,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": spec.schedule,
        "lr_scheduler_kwargs": {"min_lr_rate": MIN_LR_RATIO} if spec.schedule == "cosine_with_min_lr" else None,
        "warmup_steps": spec.warmup_steps if spec.warmup_steps is not None else spec.warmup_ratio,
        "optim": settings.optimizer,
        "adam_beta1": spec.adam_beta1,
        "adam_beta2": spec.adam_beta2,
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "neftune_noise_alpha": spec.neftune_alpha,
    }


def _precision(settings: Settings) -> dict[str, Any]:
    """Where, in which dtype, and with which activations kept."""
    return {
        "use_cpu": settings.device.type == "cpu",
        "bf16": settings.autocast_bf16,
        "fp16": settings.autocast_fp16,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if settings.gradient_checkpointing else None,
    }


def _evaluation_and_checkpoints(spec: TrainingSpec, *, has_eval: bool) -> dict[str, Any]:
    by_steps = has_eval and spec.eval_every_steps is not None
    tracks_best = has_eval and (spec.best_checkpoint or spec.early_stopping_evals is not None)
    return {
        "eval_strategy": "steps" if by_steps else "no",
        "eval_steps": spec.eval_every_steps if by_steps else None,
        "save_strategy": "steps",
        "save_steps": spec.save_every_steps,
        "load_best_model_at_end": tracks_best and spec.best_checkpoint,
        "metric_for_best_model": "eval_loss" if tracks_best else None,
        "greater_is_better": False if tracks_best else None,
        "restore_callback_states_from_checkpoint": spec.early_stopping_evals is not None,
    }


def _lora_plus_optimizer(trainer: ExactTrainer, ratio: float) -> Any:
    """LoRA+ (arXiv 2402.12354): the B matrices learn `ratio` times as fast as the A matrices."""
    from peft.optimizers import create_loraplus_optimizer

    optimizer_class, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    rate = options.pop("lr")
    return create_loraplus_optimizer(
        model=trainer.model,
        optimizer_cls=optimizer_class,
        lr=rate,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=trainer.args.weight_decay,
        **options,
    )
