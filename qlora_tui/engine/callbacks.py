"""Between TRL's trainer and the run folder: its logs become events, control messages become its decisions."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qlora_tui.config.training import TrainingSpec
from qlora_tui.data.rows import Turn
from qlora_tui.data.spans import Conversation
from qlora_tui.engine import generate
from qlora_tui.engine.evaluation import mmlu
from qlora_tui.engine.generate import answer
from qlora_tui.engine.prompts import Prompts
from qlora_tui.engine.session import Session, finite
from qlora_tui.engine.trackers import Trackers
from qlora_tui.errors import ModelError
from qlora_tui.runs import checkpoints, events

_LONGEST_UNSAVED_S = 600.0
"""A checkpoint older than this is followed by another one, wherever the next regular one is."""

_LARGEST_SAVING_SHARE = 0.05
"""Share of the time that checkpoints written only because of their age may take."""

_NOT_METRICS = ("eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "epoch")


class RunCallback(TrainerCallback):
    """Tells the run folder what the trainer does, and the trainer what the person asked for."""

    def __init__(
        self, session: Session, spec: TrainingSpec, prompts: Prompts, trackers: Trackers, steps_per_epoch: int | None
    ) -> None:
        self.session = session
        self.trackers = trackers
        self.spec = spec
        self.prompts = prompts
        self.steps_per_epoch = steps_per_epoch
        self._questions = mmlu.read(Path(spec.mmlu_file), None) if spec.mmlu_file else []
        self._tokens = 0
        self._step_began_s = 0.0
        self._save_began_s = 0.0
        self._saved_s = time.perf_counter()
        self._saving_s = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if state.best_model_checkpoint is None and best.is_dir():
            state.best_model_checkpoint = str(best)
        self.session.emit(
            events.TrainingPlanned(
                total_steps=state.max_steps,
                steps_per_epoch=self.steps_per_epoch,
                effective_batch_rows=args.train_batch_size * args.gradient_accumulation_steps,
                **self._pauses(state.max_steps),
            )
        )
        self.session.stage("training", done=state.global_step, total=state.max_steps, unit="steps")
        self._tokens = int(state.num_input_tokens_seen)
        self.session.phase = "training"
        self._step_began_s = self._saved_s = time.perf_counter()

    def _pauses(self, total_steps: int) -> dict[str, Any]:
        """When training pauses, as fields of TrainingPlanned."""
        spec, dataset = self.spec, self.session.state.dataset
        has_eval = dataset is not None and dataset.eval_rows > 0
        eval_every = spec.eval_every_steps if has_eval else None
        evals_at_end = int(has_eval)
        if eval_every is not None:  # the trainer evaluates at the last step, and the best weights are evaluated again
            evals_at_end = int(total_steps % eval_every != 0) + spec.best_checkpoint
        samples_at_end = 1 if spec.sample_every_steps else 1 + evals_at_end
        return {
            "eval_every_steps": eval_every,
            "evals_at_end": evals_at_end,
            "save_every_steps": spec.save_every_steps,
            "sample_every_steps": (spec.sample_every_steps or eval_every) if spec.sample_prompts else None,
            "samples_at_end": samples_at_end if spec.sample_prompts else 0,
        }

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.session.state.stage and self.session.state.stage.stage != "training":
            self.session.stage("training", done=state.global_step, total=state.max_steps, unit="steps")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log = True
        if self.session.save_now.is_set() or self._is_overdue():
            self.session.save_now.clear()
            control.should_save = True
        if self.session.stop_reason is not None:
            control.should_save = state.global_step < state.max_steps
            control.should_training_stop = True

    def _is_overdue(self) -> bool:
        """Return whether a kill now would lose too much training time."""
        longest_s = max(_LONGEST_UNSAVED_S, self._saving_s / _LARGEST_SAVING_SHARE)
        return time.perf_counter() - self._saved_s > longest_s

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        state.log_history.clear()  # the events have it; it would grow with every step, in memory and in checkpoints
        if logs is not None and "loss" in logs:
            self._emit_step(state, logs, is_scaled=args.fp16)
            every = self.spec.sample_every_steps
            if every and state.global_step % every == 0:
                self.sample(kwargs["model"], state.global_step)
        self._step_began_s = self._save_began_s = time.perf_counter()

    def _emit_step(self, state: TrainerState, logs: dict[str, float], *, is_scaled: bool) -> None:
        step_s = time.perf_counter() - self._step_began_s
        tokens = int(state.num_input_tokens_seen)
        loss, grad_norm = finite(logs["loss"]), logs.get("grad_norm")
        cuda = torch.cuda.is_available()
        step = events.Step(
            step=state.global_step,
            epoch=float(state.epoch or 0.0),
            loss=loss,
            learning_rate=logs.get("learning_rate", 0.0),
            grad_norm=finite(grad_norm),
            tokens=tokens,
            tokens_per_s=round((tokens - self._tokens) / max(step_s, 1e-9), 1),
            allocated_bytes=torch.cuda.memory_allocated() if cuda else 0,
            reserved_bytes=torch.cuda.memory_reserved() if cuda else 0,
            peak_bytes=torch.cuda.max_memory_allocated() if cuda else 0,
        )
        self.session.emit(step)
        self.trackers.step(step)
        # In float16 a gradient may overflow: that step is skipped and the next one is scaled down.
        overflowed = grad_norm is not None and finite(grad_norm) is None and not is_scaled
        if loss is None or overflowed:
            self.session.warn(
                "non_finite_loss",
                f"the loss or gradient norm stopped being a finite number (first at step {state.global_step}): "
                "lower training.learning_rate, or resume from an earlier checkpoint",
                once_by_code=True,
            )
        self._tokens = tokens

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        measured = metrics or {}
        others = {
            key.removeprefix("eval_"): value
            for key, value in measured.items()
            if key not in _NOT_METRICS and finite(value) is not None
        }
        others |= self._multiple_choice(kwargs["model"])
        loss = finite(measured.get("eval_loss"))
        evaluation = events.Eval(step=state.global_step, loss=loss, metrics=others)
        self.session.emit(evaluation)
        self.trackers.evaluation(evaluation)
        if (
            self.spec.best_checkpoint
            and loss is not None
            and loss < (math.inf if state.best_metric is None else state.best_metric)
        ):
            control.should_save = True  # or the best weights would be lost where no checkpoint is due
        if not self.spec.sample_every_steps:
            self.sample(kwargs["model"], state.global_step)
        self._step_began_s = self._save_began_s = time.perf_counter()

    def _multiple_choice(self, model: Any) -> dict[str, float]:
        """Accuracy on `training.mmlu_file`: the mean over subjects, over questions, and of each subject."""
        if not self._questions:
            return {}
        self.session.stage("evaluating", "multiple choice", total=len(self._questions), unit="questions")
        with torch.inference_mode(), generate.evaluating(model), generate.autocast(model):
            letters = list(mmlu.letters(model, self.prompts.tokenizer, self._questions, self.spec.micro_batch_size))
        found = mmlu.accuracy(self._questions, letters)
        subjects = {f"mmlu_{subject}": share for subject, share in found.pop("subjects").items()}
        return {f"mmlu_{name}": share for name, share in found.items()} | subjects

    def sample(self, model: Any, step: int) -> None:
        """Answer the fixed prompts, so a person sees the model learn."""
        if not self.spec.sample_prompts:
            return
        self.session.stage("sampling", total=len(self.spec.sample_prompts), unit="prompts")
        conversations = [Conversation([Turn(role="user", content=prompt)]) for prompt in self.spec.sample_prompts]
        answers = answer(model, self.prompts, conversations, max_tokens=self.spec.sample_max_tokens)
        try:
            for prompt, text in zip(self.spec.sample_prompts, answers, strict=True):
                self.session.emit(events.Sample(step=step, prompt=prompt, answer=text))
        except ModelError as error:  # samples are only for reading: the run continues without them
            self.session.warn("sample", f"sample answers are skipped: {error.message}", once_by_code=True)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        size_bytes = checkpoints.seal(folder)
        self._saved_s = time.perf_counter()
        self._saving_s = self._saved_s - self._save_began_s
        best = state.best_model_checkpoint
        best_step = checkpoints.step_of(Path(best)) if best else None
        self.session.emit(
            events.Checkpoint(
                step=state.global_step,
                folder=folder.name,
                size_bytes=size_bytes,
                seconds=round(self._saving_s, 3),
                best=best_step == state.global_step,
            )
        )
        keep_also = frozenset() if best_step is None else frozenset({best_step})
        checkpoints.discard_older(folder.parent, self.spec.keep_checkpoints, keep_also)
        self._step_began_s = time.perf_counter()
