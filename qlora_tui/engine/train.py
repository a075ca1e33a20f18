"""One run from its frozen configuration to its finished adapter: load, prepare, train, save, check."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from transformers import set_seed

from qlora_tui import hardware
from qlora_tui.config.contradictions import without_effect
from qlora_tui.config.run import RunConfig
from qlora_tui.data.prepare import Prepared, prepare
from qlora_tui.engine import adapters, finish, loading, oom
from qlora_tui.engine.callbacks import RunCallback
from qlora_tui.engine.resolve import Settings, resolve
from qlora_tui.engine.session import Session, finite
from qlora_tui.engine.trainer import ExactTrainer, make_trainer
from qlora_tui.errors import DataError, ModelError, StorageError
from qlora_tui.runs import events
from qlora_tui.runs.checkpoints import CheckpointFolder
from qlora_tui.runs.fingerprint import check_data, pinned, record

_READ_IN_BYTES = ("hashing", "reading", "downloading")
"""Steps of preparing data whose progress is counted in bytes; the others count rows."""

_OPTIMIZER_BYTES = 8
"""State per trained weight that a checkpoint may hold: two float32 moments."""


@dataclass(slots=True)
class Training:
    """What one attempt works with."""

    session: Session
    config: RunConfig
    settings: Settings
    checkpoint: CheckpointFolder | None
    allow_download: bool
    accept_changed_data: bool


def run(
    session: Session,
    config: RunConfig,
    checkpoint: CheckpointFolder | None,
    *,
    allow_download: bool,
    accept_changed_data: bool,
    replan_on_oom: bool,
) -> events.Replanned | None:
    """Train until the last event is written. Returns a smaller plan when memory ran out and replanning is on.

    Raises Exhausted when memory ran out and there is no smaller plan.
    """
    config = pinned(session.run, config)
    settings = resolve(config)
    try:
        train(Training(session, config, settings, checkpoint, allow_download, accept_changed_data))
    except (RuntimeError, MemoryError) as error:
        if not oom.is_out_of_memory(error):
            raise
        changes = oom.smaller(config, settings.gradient_checkpointing)
        exhausted = oom.Exhausted(config, settings.gradient_checkpointing, settings.device)
        if not (replan_on_oom and changes):
            raise exhausted from error
        return events.Replanned(changes=changes, reason=exhausted.message)
    return None


def train(work: Training) -> None:
    """Run to the end, or to where a person stopped it. The last event is written in either case."""
    session, config, settings = work.session, work.config, work.settings
    for decision in settings.reasons:
        session.emit(decision)
    for sentence in (*settings.warnings, *without_effect(config)):
        session.warn("settings", sentence)
    set_seed(config.training.seed)
    tokenizer = loading.load_tokenizer(config.model)
    data = _prepare_data(work, tokenizer)
    model = _load(work, tokenizer)
    _check_disk(work, model)
    finish.keep_initial_adapter(session.run, config, model)
    trainer = make_trainer(model, tokenizer, data.train, data.eval, config, settings, output=session.run.checkpoints)
    callback = RunCallback(session, config.training, tokenizer, _steps_per_epoch(config, data))
    trainer.add_callback(callback)
    began_s = time.monotonic()
    output = trainer.train(resume_from_checkpoint=str(work.checkpoint.path) if work.checkpoint else None)
    if session.stop_reason is not None and trainer.state.global_step < trainer.state.max_steps:
        session.emit_last(session.stopped(session.stop_reason))
        return
    session.phase = "finishing"
    metrics = {"train_loss": output.training_loss} if finite(output.training_loss) is not None else {}
    metrics |= _final_eval(session, trainer, config)
    callback.sample(trainer.model, trainer.state.global_step)
    finish.save(work.session, config, settings, trainer.model, tokenizer, metrics)
    session.emit_last(
        events.Finished(
            step=trainer.state.global_step,
            train_seconds=round(time.monotonic() - began_s, 3),
            metrics=metrics,
            peak_bytes=oom.peak_bytes(settings.device),
            adapter_bytes=finish.folder_bytes(session.run.adapter),
        )
    )


def _prepare_data(work: Training, tokenizer: Any) -> Prepared:
    session = work.session
    session.stage("tokenizing")

    def progress(detail: str, done: int, total: int | None) -> None:
        stage: events.StageName = "downloading" if detail == "downloading" else "tokenizing"
        session.stage(stage, detail, done, total, "bytes" if detail in _READ_IN_BYTES else "rows")

    data = prepare(work.config, tokenizer, consent=lambda download: work.allow_download, on_progress=progress)
    check_data(session.run, data.fingerprint, resuming=work.checkpoint is not None, accept=work.accept_changed_data)
    record(session.run, data_fingerprint=data.fingerprint)
    report = asdict(data.report)
    rows = None if work.config.data.streaming else len(data.train)
    if rows == 0:
        raise DataError("no row is left to train on", hint="`qlora-tui data inspect` shows why.")
    session.emit(
        events.DatasetReady(train_rows=rows, eval_rows=len(data.eval) if data.eval is not None else 0, report=report)
    )
    for sentence in data.report.warnings:
        session.warn("data", sentence)
    tokenizer.chat_template = data.chat_template
    return data


def _load(work: Training, tokenizer: Any) -> Any:
    session, config = work.session, work.config
    quantized = config.quantization.kind != "none"
    session.stage("quantizing" if quantized else "loading", f"{config.model.id} as {config.quantization.kind}")
    base = loading.load_model(config, work.settings, tokenizer)
    commit = getattr(base.config, "_commit_hash", None)
    if commit:
        record(session.run, model_commit=commit)
    experts = loading.unquantized_experts(base) if quantized else None
    if experts and experts.names:
        session.warn(
            "unquantized_experts",
            f"{len(experts.names)} expert tensors stay unquantized and take {experts.size_bytes / 2**30:.2f} GiB: "
            "transformers stores them fused, which bitsandbytes does not quantize",
        )
    base_bytes = loading.stored_bytes(base)
    model = adapters.attach(base, config, work.settings)
    total, trainable, by_dtype, trainable_bytes = adapters.parameter_counts(model)
    if trainable == 0:
        raise ModelError("nothing is trainable", hint="Check adapter.target_modules and adapter.kind.")
    session.emit(
        events.ModelLoaded(
            model=config.model.id,
            parameters=total,
            trainable_parameters=trainable,
            parameters_by_dtype=by_dtype,
            stored_bytes=base_bytes,
            trainable_bytes=trainable_bytes,
        )
    )
    return model


def _check_disk(work: Training, model: Any) -> None:
    """Refuse to start when the checkpoints to be kept, one more and the adapter do not fit on the disk."""
    _, trainable, _, trainable_bytes = adapters.parameter_counts(model)
    checkpoint_bytes = trainable_bytes + trainable * _OPTIMIZER_BYTES
    need_bytes = checkpoint_bytes * (work.config.training.keep_checkpoints + 1) + trainable_bytes
    free_bytes = hardware.free_disk_bytes(work.session.run.path)
    if free_bytes < need_bytes:
        raise StorageError(
            f"{work.session.run.path} has {free_bytes / 2**20:.0f} MiB free, but the checkpoints need up to "
            f"{need_bytes / 2**20:.0f} MiB",
            hint="Free some space, lower training.keep_checkpoints, or set QLORA_TUI_RUNS to another disk.",
        )


def _steps_per_epoch(config: RunConfig, data: Prepared) -> int | None:
    if config.data.streaming or config.training.packing:
        return None
    batch_rows = config.training.micro_batch_size * config.training.gradient_accumulation_steps
    return -(-len(data.train) // batch_rows)


def _final_eval(session: Session, trainer: ExactTrainer, config: RunConfig) -> dict[str, float]:
    if trainer.eval_dataset is None:
        return {}
    last = session.state.evals.last
    restored_best = config.training.best_checkpoint
    if last is None or last.step != trainer.state.global_step or restored_best:
        session.stage("evaluating")
        trainer.evaluate()
        last = session.state.evals.last
    return {"eval_loss": last.loss} if last is not None and last.loss is not None else {}
