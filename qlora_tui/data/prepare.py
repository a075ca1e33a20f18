"""From a RunConfig to the rows the trainer takes: loaded, mixed, split, rendered, tokenized, cut, masked, counted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qlora_tui.config.data import DataSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.data import kept_columns
from qlora_tui.data.batches import rows_at_a_time
from qlora_tui.data.downloads import Consent, Progress
from qlora_tui.data.load import Loaded, load_source
from qlora_tui.data.recipe import Recipe, recipe_of
from qlora_tui.data.report import DataReport, build_report, refuse_formatted, refuse_untrainable
from qlora_tui.data.row_encoder import Batch, RowEncoder
from qlora_tui.data.selection import Selection, row_hashes, select_rows
from qlora_tui.data.tally import Tally
from qlora_tui.data.templates import stop_token_id
from qlora_tui.data.token_cache import counted, known_tally, stored_hashes, tokenized
from qlora_tui.data.tokenizer import Tokenizer

FIRST_ROWS, FIRST_CHARACTERS = 200, 1 << 20
"""How much of the rows is looked at before all of them are: so little that it takes a moment."""


@dataclass(frozen=True, slots=True)
class Prepared:
    train: Any
    """`datasets.Dataset` (IterableDataset when streaming) with input_ids, labels and length; -100 is not trained."""

    eval: Any | None
    """The same for evaluation; always a Dataset."""

    eval_kept: Iterator[dict[str, Any]]
    """For each evaluation row, in order, the columns of its source row that are kept for its prediction."""

    chat_template: str
    """Jinja template to save with the adapter's tokenizer: chat and export render with the same text."""

    template_name: str
    stop_token_id: int | None
    """Token that ends a trained answer: generation has to stop at it, also where it is not the end-of-text token."""

    report: DataReport
    tally: Tally
    """The counts behind the report."""

    longest_train_tokens: int | None
    """Longest training row as the model gets it; None for a stream whose end was not seen."""

    longest_eval_tokens: int
    """Longest evaluation row as the model gets it; 0 when there are none."""

    fingerprint: str
    """Equal when the same tokens would be trained in the same order. A resumed run compares it."""


def prepare(
    config: RunConfig,
    tokenizer: Tokenizer,
    *,
    consent: Consent = lambda download: False,
    on_progress: Progress = lambda stage, done, total: None,
) -> Prepared:
    """Make the rows of a run ready for the trainer, and say what was done to them.

    Raises DataError when the rows cannot be read, when the template cannot be trained with, or when no row would
    have a trained token; ModelError for a tokenizer that cannot be used; StorageError when the cache is full.
    """
    recipe = recipe_of(config, tokenizer)
    if config.data.streaming:
        from qlora_tui.data.streaming import prepare_stream

        return prepare_stream(config, recipe, consent=consent, on_progress=on_progress)
    chosen = _choose_rows(config.data, recipe, consent, on_progress)
    train, tally = encode_rows(recipe, *chosen.train, "tokenizing", on_progress)
    held_out, eval_tally = None, Tally()
    if chosen.evaluation is not None:
        held_out, eval_tally = encode_rows(recipe, *chosen.evaluation, "tokenizing evaluation rows", on_progress)
    report = _report(chosen, recipe, tally, len(held_out or ()))
    source = chosen.evaluation[0] if chosen.evaluation is not None else None
    return prepared(recipe, train, held_out, report, tally, eval_tally, source)


def survey(
    config: RunConfig,
    tokenizer: Tokenizer,
    *,
    consent: Consent = lambda download: False,
    on_progress: Progress = lambda stage, done, total: None,
) -> tuple[DataReport, Tally, Tally]:
    """The report and the counts of training and of evaluation rows that `prepare` would give, without storing a token.

    Raises as `prepare` does.
    """
    if config.data.streaming:
        made = prepare(config, tokenizer, consent=consent, on_progress=on_progress)
        return made.report, made.tally, Tally()
    recipe = recipe_of(config, tokenizer)
    chosen = _choose_rows(config.data, recipe, consent, on_progress)
    tally = count_rows(recipe, *chosen.train, "counting tokens", on_progress)
    eval_tally = Tally()
    if chosen.evaluation is not None:
        eval_tally = count_rows(recipe, *chosen.evaluation, "counting tokens of evaluation rows", on_progress)
    return _report(chosen, recipe, tally, eval_tally.kept_rows), tally, eval_tally


@dataclass(frozen=True, slots=True)
class _Chosen:
    loaded: list[Loaded]
    selection: Selection
    train: tuple[Any, str]
    """Rows in training order, and the hash of their content and order."""

    evaluation: tuple[Any, str] | None


def _choose_rows(data: DataSpec, recipe: Recipe, consent: Consent, on_progress: Progress) -> _Chosen:
    loaded = [
        load_source(spec, skip_bad_rows=data.skip_bad_rows, consent=consent, on_progress=on_progress)
        for spec in (data, *data.mix)
    ]
    separate = load_evaluation(data, consent, on_progress)
    selection = _select(data, loaded, separate, on_progress)
    pool = _pool([one.dataset for one in loaded])
    train = pool.select(selection.train)
    known = known_tally(recipe.key(selection.train_fingerprint), train)
    if known is None:
        first_look(train[: rows_at_a_time(train, FIRST_ROWS, FIRST_CHARACTERS)], recipe)
    else:
        refuse_untrainable(known, recipe.template, recipe.rules)
    evaluation = None
    if len(selection.evaluation):
        held_out = (pool if separate is None else separate.dataset).select(selection.evaluation)
        evaluation = (held_out, selection.eval_fingerprint)
    return _Chosen(loaded, selection, (train, selection.train_fingerprint), evaluation)


def _report(chosen: _Chosen, recipe: Recipe, tally: Tally, eval_rows: int) -> DataReport:
    selection = chosen.selection
    key = recipe.key(selection.train_fingerprint + selection.eval_fingerprint)
    return build_report(chosen.loaded, selection, tally, recipe, eval_rows=eval_rows, fingerprint=key)


def prepared(
    recipe: Recipe,
    train: Any,
    held_out: Any,
    report: DataReport,
    tally: Tally,
    eval_tally: Tally,
    eval_source: Any,
) -> Prepared:
    """What the trainer gets, once everything is there. `eval_source`: the evaluation rows before tokenizing."""
    template = recipe.template
    return Prepared(
        train=train,
        eval=held_out,
        eval_kept=kept_columns.of_tokenized(recipe, eval_source),
        chat_template=template.portable,
        template_name=template.name,
        stop_token_id=stop_token_id(template, recipe.tokenizer),
        report=report,
        tally=tally,
        longest_train_tokens=max(tally.lengths, default=0) if report.complete else None,
        longest_eval_tokens=max(eval_tally.lengths, default=0),
        fingerprint=report.fingerprint,
    )


def encode_rows(recipe: Recipe, rows: Any, content: str, stage: str, on_progress: Progress) -> tuple[Any, Tally]:
    """Tokenize `rows`, whose content and order have the hash `content`, or find them in the cache.

    Raises DataError when nothing of them would be trained.
    """
    encoder = _telling(recipe, len(rows), stage, on_progress)
    dataset, tally = tokenized(recipe.key(content), rows, encoder)
    refuse_untrainable(tally, recipe.template, recipe.rules)
    return dataset, tally


def count_rows(recipe: Recipe, rows: Any, content: str, stage: str, on_progress: Progress) -> Tally:
    """The tally of `encode_rows`; only the counts are kept. Raises as it does."""
    tally = counted(recipe.key(content), rows, _telling(recipe, len(rows), stage, on_progress))
    refuse_untrainable(tally, recipe.template, recipe.rules)
    return tally


def _telling(recipe: Recipe, total: int, stage: str, on_progress: Progress) -> RowEncoder:
    return recipe.encoder(lambda done: on_progress(stage, done, total))


def first_look(batch: Batch, recipe: Recipe) -> Tally:
    """Encode a few rows to refuse a hopeless set at once instead of after tokenizing all of it."""
    encoder = recipe.encoder()
    encoder(batch)
    refuse_formatted(encoder.tally, recipe.rules)
    if encoder.tally.unmarked_rows == encoder.tally.rows:
        refuse_untrainable(encoder.tally, recipe.template, recipe.rules)
    return encoder.tally


def load_evaluation(data: DataSpec, consent: Consent, on_progress: Progress) -> Loaded | None:
    """The separate evaluation rows, when the configuration names some."""
    spec = data.eval_spec
    if spec is None:
        return None
    skip = data.skip_bad_rows
    return load_source(spec, purpose="eval", skip_bad_rows=skip, consent=consent, on_progress=on_progress)


def _select(data: DataSpec, loaded: list[Loaded], evaluation: Loaded | None, on_progress: Progress) -> Selection:
    sources = [_hashes(one, on_progress) for one in loaded]
    weights = [1.0, *(spec.weight for spec in data.mix)]
    held_out = None if evaluation is None else _hashes(evaluation, on_progress)
    return select_rows(data, sources, weights, held_out)


def _hashes(loaded: Loaded, on_progress: Progress) -> Any:
    def fresh() -> Any:
        return row_hashes(loaded.dataset, on_progress)

    return stored_hashes(loaded.fingerprint, len(loaded.dataset), fresh)


def _pool(parts: list[Any]) -> Any:
    import datasets

    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
