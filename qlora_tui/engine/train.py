"""One run from its frozen configuration to its finished adapter: load, prepare, train, save, check."""

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from transformers import set_seed

from qlora_tui.config.contradictions import without_effect
from qlora_tui.config.run import RunConfig
from qlora_tui.data.prepare import Prepared, prepare
from qlora_tui.engine import adapters, finish, foreign_tokenizer, loading, oom, outcome, pissa, stopping
from qlora_tui.engine.callbacks import RunCallback
from qlora_tui.engine.packing import LEAKS, keeps_rows_apart
from qlora_tui.engine.preflight import NoEstimateError, Preflight, preflight
from qlora_tui.engine.prompts import Prompts
from qlora_tui.engine.resolve import Settings, resolve_to_train
from qlora_tui.engine.session import Session
from qlora_tui.engine.trackers import Trackers, started
from qlora_tui.engine.trainer import ExactTrainer, make_trainer
from qlora_tui.errors import DataError, ModelError
from qlora_tui.memory.stored_estimate import BEFORE_START, OF_ROWS, Longest, longest_of
from qlora_tui.models.download import download
from qlora_tui.models.folder import location
from qlora_tui.models.hub import missing_files, snapshot
from qlora_tui.models.location import local_folder
from qlora_tui.runs import events
from qlora_tui.runs.checkpoints import CheckpointFolder
from qlora_tui.runs.fingerprint import check_data, identity, pinned, pinned_data, read_plan, record
from qlora_tui.runs.precheck import check_disk, check_module_names
from qlora_tui.runs.store import RunFolder
from qlora_tui.units import memory

_READ_IN_BYTES = ("hashing", "reading", "downloading")
"""Steps of preparing data whose progress is counted in bytes; the others count rows."""

_TELL_EVERY_S = 0.25
"""Between two events about the progress of a download."""


@dataclass(slots=True)
class Training:
    """What one attempt works with."""

    session: Session
    config: RunConfig
    settings: Settings
    checkpoint: CheckpointFolder | None
    allow_download: bool
    accept_changed_data: bool
    expected: Preflight | None = None
    """What memory was estimated to be needed, once the data is known."""


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
    if not accept_changed_data:
        config = pinned_data(session.run, config)
    longest = None if accept_changed_data else longest_of(read_plan(session.run))
    settings = resolve_to_train(config, longest)
    work = Training(session, config, settings, checkpoint, allow_download, accept_changed_data)
    try:
        train(work)
    except (RuntimeError, MemoryError) as error:
        if not oom.is_out_of_memory(error):
            raise
        changes = oom.smaller(config, settings.gradient_checkpointing)
        exhausted = oom.Exhausted(config, settings.gradient_checkpointing, settings.device, work.expected)
        if not (replan_on_oom and changes):
            raise exhausted from error
        return events.Replanned(changes=changes, reason=exhausted.message)
    return None


def train(work: Training) -> None:
    """Run to the end, or to where a person stopped it. The last event is written in either case."""
    session = work.session
    for decision in work.settings.reasons:
        session.emit(decision)
    for sentence in (*work.settings.warnings, *without_effect(work.config)):
        session.warn("settings", sentence)
    with started(session, work.config) as trackers:
        _train(work, trackers)


def _train(work: Training, trackers: Trackers) -> None:
    session = work.session
    set_seed(work.config.training.seed)
    _download_model(work)
    work.config = _with_commit(session.run, work.config)
    check_module_names(work.config)  # known with the files of the model, long before it is loaded
    model_spec = work.config.model
    tokenizer = loading.load_tokenizer(model_spec)
    if changed := foreign_tokenizer.difference_from_file(tokenizer, location(model_spec), model_spec.revision):
        session.warn("tokenizer", changed)
    data = _prepare_data(work, tokenizer)
    before = os.umask(0o077)  # what is written from now on is the run's; downloads before it may be shared with others
    try:
        _train_on(work, trackers, tokenizer, data)
    finally:
        os.umask(before)


def _train_on(work: Training, trackers: Trackers, tokenizer: Any, data: Prepared) -> None:
    session, config = work.session, work.config
    _estimate(work, data)
    model = _load(work, tokenizer, data)
    _check_disk(work, model)
    pissa.keep_initial(session.run, config, model)
    config, trainer = _make_trainer(work, model, tokenizer, data)
    prompts = Prompts.of(tokenizer, config.data)
    callback = RunCallback(session, config.training, prompts, trackers, _steps_per_epoch(config, data))
    trainer.add_callback(callback)
    began_s = time.monotonic()
    trainer.train(resume_from_checkpoint=str(work.checkpoint.path) if work.checkpoint else None)
    if session.stop_reason is not None and not trainer.is_over:
        trackers.finish("stopped")
        session.emit_last(session.stopped(session.stop_reason))
        return
    _finish(work, config, trainer, callback, data, began_s)


def _finish(
    work: Training, config: RunConfig, trainer: ExactTrainer, callback: RunCallback, data: Prepared, began_s: float
) -> None:
    """Evaluate, answer the samples and evaluation rows, save the adapter and write the last event."""
    session, tokenizer = work.session, callback.prompts.tokenizer
    session.phase = "finishing"
    metrics = _train_loss(session) | _final_eval(session, trainer, config)
    callback.sample(trainer.model, trainer.state.global_step)
    predicted: dict[str, float] = {}
    if data.eval is not None:
        predicted = outcome.predict(session, trainer.model, tokenizer, data.eval, data.eval_kept, config.training)
    finish.save(session, config, work.settings, trainer.model, tokenizer, metrics)
    train_seconds = round(session.state.earlier_train_s + time.monotonic() - began_s, 3)
    outcome.write_metrics(session, metrics | predicted, train_seconds=train_seconds)
    callback.trackers.final(metrics | predicted, trainer.state.global_step)
    callback.trackers.finish("finished")
    session.emit_last(
        events.Finished(
            step=trainer.state.global_step,
            train_seconds=train_seconds,
            metrics=metrics,
            peak_bytes=oom.peak_bytes(work.settings.device),
            adapter_bytes=finish.folder_bytes(session.run.adapter),
        )
    )


def _make_trainer(work: Training, model: Any, tokenizer: Any, data: Prepared) -> tuple[RunConfig, ExactTrainer]:
    """The trainer, and the configuration it works with: without packing where the model would mix packed rows."""
    config, output = work.config, work.session.run.checkpoints
    trainer = make_trainer(model, tokenizer, data.train, data.eval, config, work.settings, output=output)
    if not config.training.packing or keeps_rows_apart(trainer):
        return config, trainer
    work.session.warn("packing", LEAKS)
    config = config.model_copy(update={"training": config.training.model_copy(update={"packing": False})})
    return config, make_trainer(model, tokenizer, data.train, data.eval, config, work.settings, output=output)


def _download_model(work: Training) -> None:
    """Fetch what of the model is not on this machine, if that was allowed, telling how far it is."""
    missing = missing_files(work.config.model) if work.allow_download else None
    if missing is None:
        return
    session, detail, total_bytes = work.session, work.config.model.id, missing.total_bytes
    told_s = 0.0

    def progress(done_bytes: int) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _TELL_EVERY_S:
            told_s = time.monotonic()
            session.stage("downloading", detail, done_bytes, total_bytes, "bytes")

    session.stage("downloading", detail, 0, total_bytes, "bytes")
    download(missing, progress)
    session.stage("downloading", detail, total_bytes, total_bytes, "bytes")


def _with_commit(run: RunFolder, config: RunConfig) -> RunConfig:
    """The configuration with the commit of a hub model, which is kept: a resumed run must find the same weights."""
    folder = snapshot(config.model) if local_folder(config.model) is None else None
    if folder is None:
        return config
    record(run, model_commit=folder.name)
    return pinned(run, config)


def _prepare_data(work: Training, tokenizer: Any) -> Prepared:
    session = work.session
    session.stage("tokenizing")

    def progress(detail: str, done: int, total: int | None) -> None:
        stage: events.StageName = "downloading" if detail == "downloading" else "tokenizing"
        session.stage(stage, detail, done, total, "bytes" if detail in _READ_IN_BYTES else "rows")

    data = prepare(work.config, tokenizer, consent=lambda download: work.allow_download, on_progress=progress)
    check_data(session.run, data.fingerprint, resuming=work.checkpoint is not None, accept=work.accept_changed_data)
    record(session.run, data_fingerprint=data.fingerprint, data_commits=data.report.commits)
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


def _estimate(work: Training, data: Prepared) -> None:
    """Estimate the memory for the tokenized rows, for comparison of the measured peak in plan.json.

    The estimate made before the start is kept: it is the one that was shown.
    """
    rows = data.longest_train_tokens
    longest = None if rows is None else Longest(rows, data.longest_eval_tokens)
    try:
        work.expected = preflight(work.config, work.settings, longest)
    except NoEstimateError as error:
        work.session.warn("memory", f"there is no estimate of the memory this run needs: {error.message}")
        return
    found = work.expected.record()
    before = read_plan(work.session.run).get(BEFORE_START, found)
    record(work.session.run, **{BEFORE_START: before, OF_ROWS: found})


def _load(work: Training, tokenizer: Any, data: Prepared) -> Any:
    session, config = work.session, work.config
    quantized = config.quantization.kind != "none"
    session.stage("quantizing" if quantized else "loading", f"{config.model.id} as {config.quantization.kind}")
    base = loading.load_model(config, work.settings, tokenizer)
    if problem := stopping.repair_generation_config(base):
        session.warn("generation_config", f"the model's generation configuration was replaced: {problem}")
    longest = data.longest_train_tokens
    longest = config.training.max_length_tokens if longest is None else max(longest, data.longest_eval_tokens)
    _warn_of_base(work, base, longest)
    base_bytes = loading.stored_bytes(base)
    model = adapters.attach(base, config, work.settings, pissa.initial(session.run))
    total, trainable, by_dtype, trainable_bytes = adapters.parameter_counts(model)
    if trainable == 0:
        raise ModelError("nothing is trainable", hint="Check adapter.target_modules and adapter.kind.")
    known = identity(session.run)
    session.emit(
        events.ModelLoaded(
            model=config.model.id,
            parameters=total,
            trainable_parameters=trainable,
            parameters_by_dtype=by_dtype,
            stored_bytes=base_bytes,
            trainable_bytes=trainable_bytes,
            fingerprint=known.get("model_fingerprint"),
            commit=known.get("model_commit"),
        )
    )
    return model


def _warn_of_base(work: Training, base: Any, row_tokens: int) -> None:
    """Say where the loaded model is not quite what was expected. Raises ConfigError for rows that are too long."""
    session, wanted, attention = work.session, work.settings.attention, base.config._attn_implementation
    if attention != wanted:
        session.warn("settings", f"the model has no {wanted} attention: {attention} is used")
    if too_long := loading.beyond_context(base, row_tokens):
        session.warn("context", too_long)
    experts = loading.unquantized_experts(base)
    if experts.names and work.config.quantization.kind != "none":
        session.warn(
            "unquantized_experts",
            f"{len(experts.names)} expert tensors stay unquantized and take {memory(experts.size_bytes)}: "
            "transformers stores them fused, which bitsandbytes does not quantize",
        )
    if base.added_rows > 1:
        session.warn(
            "new_tokens",
            f"{base.added_rows} tokens of the tokenizer are new to the model: they start as the mean of the others and "
            'stay so, unless adapter.modules_to_save holds "embed_tokens"',
        )


def _check_disk(work: Training, model: Any) -> None:
    """Refuse to start when the checkpoints to be kept, one more and the adapter do not fit on the disk."""
    _, trainable, _, trainable_bytes = adapters.parameter_counts(model)
    check_disk(
        work.session.run.path,
        trainable,
        trainable_bytes,
        work.config.training.keep_checkpoints,
        there_bytes=finish.folder_bytes(work.session.run.checkpoints),
    )


def _steps_per_epoch(config: RunConfig, data: Prepared) -> int | None:
    if config.data.streaming or config.training.packing:
        return None
    batch_rows = config.training.micro_batch_size * config.training.gradient_accumulation_steps
    return -(-len(data.train) // batch_rows)


def _train_loss(session: Session) -> dict[str, float]:
    """Mean loss of all steps of the run: the trainer's own counts only those since the last resume."""
    loss = session.state.mean_loss
    return {} if loss is None else {"train_loss": loss}


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
