"""From a RunConfig to the rows the trainer takes: loaded, mixed, split, rendered, tokenized, cut, masked, counted."""

from dataclasses import dataclass
from typing import Any

from qlora_tui.config.data import DataSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.data.downloads import Consent, Progress
from qlora_tui.data.load import Loaded, load_source
from qlora_tui.data.recipe import Recipe, recipe_of
from qlora_tui.data.report import DataReport, build_report, refuse_formatted, refuse_untrainable
from qlora_tui.data.row_encoder import Batch
from qlora_tui.data.selection import Selection, row_hashes, select_rows
from qlora_tui.data.tally import Tally
from qlora_tui.data.templates import stop_token_id
from qlora_tui.data.token_cache import stored_hashes, tokenized
from qlora_tui.data.tokenizer import Tokenizer

_FIRST_LOOK_ROWS = 256


@dataclass(frozen=True, slots=True)
class Prepared:
    train: Any
    """`datasets.Dataset` (IterableDataset when streaming) with input_ids, labels and length; -100 is not trained."""

    eval: Any | None
    """The same for evaluation; always a Dataset."""

    chat_template: str
    """Jinja template to save with the adapter's tokenizer: chat and export render with the same text."""

    template_name: str
    stop_token_id: int | None
    """Token that ends a trained answer: generation has to stop at it, also where it is not the end-of-text token."""

    report: DataReport
    tally: Tally
    """The counts behind the report."""

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
    loaded = [
        load_source(spec, skip_bad_rows=config.data.skip_bad_rows, consent=consent, on_progress=on_progress)
        for spec in (config.data, *config.data.mix)
    ]
    evaluation = load_evaluation(config.data, consent, on_progress)
    selection = _select(config.data, loaded, evaluation, on_progress)
    pool = _pool([one.dataset for one in loaded])
    train_rows = pool.select(selection.train)
    first_look(train_rows[:_FIRST_LOOK_ROWS], recipe)
    train, tally = encode_rows(recipe, train_rows, selection.train_fingerprint, "tokenizing", on_progress)
    held_out = None
    if len(selection.evaluation):
        rows = (pool if evaluation is None else evaluation.dataset).select(selection.evaluation)
        held_out = encode_rows(recipe, rows, selection.eval_fingerprint, "tokenizing evaluation rows", on_progress)[0]
    key = recipe.key(selection.train_fingerprint + selection.eval_fingerprint)
    report = build_report(loaded, selection, tally, recipe, eval_rows=len(held_out or ()), fingerprint=key)
    return prepared(recipe, train, held_out, report, tally)


def prepared(recipe: Recipe, train: Any, held_out: Any, report: DataReport, tally: Tally) -> Prepared:
    """What the trainer gets, once everything is there."""
    template = recipe.template
    return Prepared(
        train=train,
        eval=held_out,
        chat_template=template.portable,
        template_name=template.name,
        stop_token_id=stop_token_id(template, recipe.tokenizer),
        report=report,
        tally=tally,
        fingerprint=report.fingerprint,
    )


def encode_rows(recipe: Recipe, rows: Any, content: str, stage: str, on_progress: Progress) -> tuple[Any, Tally]:
    """Tokenize `rows`, whose content and order have the hash `content`, or find them in the cache.

    Raises DataError when nothing of them would be trained.
    """
    total = len(rows)
    encoder = recipe.encoder(lambda done: on_progress(stage, done, total))
    dataset, tally = tokenized(recipe.key(content), rows, encoder)
    refuse_untrainable(tally, recipe.template, recipe.rules)
    return dataset, tally


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
