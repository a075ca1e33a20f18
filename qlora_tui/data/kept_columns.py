"""Columns of the source that are not trained, but copied to the predictions of evaluation rows."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qlora_tui.data.batches import rows_at_a_time

if TYPE_CHECKING:
    from qlora_tui.data.recipe import Recipe

KEPT_COLUMNS = ("message_id", "parent_id", "rank", "lang")
"""Columns of Open Assistant. They are copied to answers and predictions."""


def stored(row: dict[str, Any]) -> str | None:
    """Return the kept columns of a source row as JSON; None if none of them is a text or an integer."""
    found = {name: row[name] for name in KEPT_COLUMNS if isinstance(row.get(name), str | int)}
    return json.dumps(found) if found else None


def of_tokenized(recipe: "Recipe", rows: Any) -> Iterator[dict[str, Any]]:
    """Yield the kept columns for each tokenized row of `rows`, in order; nothing if no row has any.

    A row becomes several tokenized rows when it is split and none when it is dropped, so rows are tokenized again as
    they are needed: usually the first ones.
    """
    if rows is None or not any(rows["kept"]):
        return
    encoder = recipe.encoder()
    for batch in rows.iter(batch_size=rows_at_a_time(rows)):
        for encoded, kept in zip(encoder.encode(batch), batch["kept"], strict=True):
            for _ in encoded.pieces:
                yield json.loads(kept) if kept else {}
