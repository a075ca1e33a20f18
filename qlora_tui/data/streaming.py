"""Preparation of sets larger than memory: rows are rendered and tokenized as training asks for them."""

from itertools import islice
from typing import Any

from qlora_tui.config.run import RunConfig
from qlora_tui.data.downloads import Consent, Progress
from qlora_tui.data.load import Loaded, load_source
from qlora_tui.data.prepare import Prepared, encode_rows, load_evaluation, prepared
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.report import build_report, refuse_untrainable
from qlora_tui.data.selection import hash_rows, nothing_selected
from qlora_tui.data.tally import Tally
from qlora_tui.data.token_cache import features
from qlora_tui.errors import DataError

_LOOK_ROWS = 1000
"""Rows read ahead, to refuse a hopeless set and to have something to report."""

_MAPPED_ROWS = 64


def prepare_stream(config: RunConfig, recipe: Recipe, *, consent: Consent, on_progress: Progress) -> Prepared:
    """`prepare` for `data.streaming`. Raises as `prepare` does, judged by the first rows.

    Evaluation rows are separate data, or the first rows of the main source, and rows equal to one of them are left
    out of training. Other duplicates are neither counted nor removed.
    """
    data = config.data
    skip = data.skip_bad_rows
    loaded = [
        load_source(spec, skip_bad_rows=skip, streaming=True, consent=consent, on_progress=on_progress)
        for spec in (data, *data.mix)
    ]
    streams = [one.dataset for one in loaded]
    separate = load_evaluation(data, consent, on_progress)
    held_out = separate.dataset if separate else None
    if held_out is None and data.eval_rows:
        held_out = _first_rows(loaded[0], data.eval_rows)
        streams[0] = streams[0].skip(data.eval_rows)
    if held_out is not None and data.max_eval_rows:
        held_out = held_out.select(range(min(data.max_eval_rows, len(held_out))))
    known = set(hash_rows(held_out.to_dict())) if held_out is not None else set()
    rows = _mixed(streams, [1.0, *(spec.weight for spec in data.mix)], data.split_seed)
    if known:
        rows = rows.filter(lambda batch: [digest not in known for digest in hash_rows(batch)], batched=True)
    if data.max_train_rows:
        rows = rows.take(data.max_train_rows)
    return _finish(config, recipe, loaded, rows, held_out, on_progress)


def _finish(
    config: RunConfig, recipe: Recipe, loaded: list[Loaded], rows: Any, held_out: Any, on_progress: Progress
) -> Prepared:
    look = recipe.encoder()
    ahead = list(islice(rows, _LOOK_ROWS))
    look({name: [row[name] for row in ahead] for name in ("messages", "text", "tools", "origin")})
    refuse_untrainable(look.tally, recipe.template, recipe.rules)
    contents = "".join(one.fingerprint for one in loaded)
    selection = nothing_selected(contents)
    tokenized_eval, eval_tally = None, Tally()
    if held_out is not None:
        content = "".join(f"{digest:x}" for digest in hash_rows(held_out.to_dict()))
        tokenized_eval, eval_tally = encode_rows(recipe, held_out, content, "tokenizing evaluation rows", on_progress)
    train = rows.map(
        recipe.encoder(),
        batched=True,
        batch_size=_MAPPED_ROWS,
        remove_columns=["messages", "text", "tools", "rejected", "origin", "kept"],
        features=features(),
    )
    # Revisions are left out: the contents say which commits are meant.
    choices = config.data.model_dump_json(exclude={"revision": True, "mix": {"__all__": {"revision"}}})
    key = recipe.key(f"{contents} {choices}")
    report = build_report(
        loaded,
        selection,
        look.tally,
        recipe,
        eval_rows=len(tokenized_eval or ()),
        fingerprint=key,
        complete=len(ahead) < _LOOK_ROWS,
    )
    return prepared(recipe, train, tokenized_eval, report, look.tally, eval_tally, held_out)


def _first_rows(loaded: Loaded, count: int) -> Any:
    import datasets

    rows = list(loaded.dataset.take(count))
    if len(rows) < count:
        raise DataError(
            f"data.eval_rows = {count} leaves no rows to train on: {loaded.label} has {len(rows)} rows",
            hint=f"Choose fewer than {len(rows)} evaluation rows.",
        )
    return datasets.Dataset.from_list(rows, features=loaded.dataset.features)


def _mixed(streams: list[Any], weights: list[float], seed: int) -> Any:
    import datasets

    if len(streams) == 1:
        return streams[0]
    shares = [weight / sum(weights) for weight in weights]
    return datasets.interleave_datasets(streams, shares, seed=seed, stopping_strategy="all_exhausted")
