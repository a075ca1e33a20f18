"""What happens to rows that are too long: cut, dropped or split, with everything that is lost counted.

`data.source_max_tokens` and `data.target_max_tokens` cut the prompt and the answer alone first, as the collator of
qlora.py does; then `training.max_length_tokens` holds for the whole row. An answer cut at its end keeps no end token:
to train one there would teach the model to stop in the middle of a sentence. Such rows are counted as `unended`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qlora_tui.data.mask import IGNORED

Piece = tuple[list[int], list[int]]
"""Token ids and labels of what becomes one training row."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_tokens: int
    policy: Literal["truncate", "drop", "split"] = "truncate"
    side: Literal["right", "left"] = "right"
    source_max_tokens: int | None = None
    target_max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    pieces: tuple[Piece, ...]
    """What is left; nothing when the row was dropped."""

    cut_tokens: int
    """Tokens that are in no piece."""

    unended: bool
    """Whether the last trained token, which ends the answer, was cut away."""


def fit(ids: list[int], labels: list[int], *, answer_at: int, opening: int | None, limits: Limits) -> Fitted:
    """Bring one row within the limits.

    `answer_at`: index of the first answer token, where the prompt ends. `opening`: id of the token that opens every
    text (bos); it is kept when the left end is cut.
    """
    if len(ids) <= limits.max_tokens and limits.source_max_tokens is None and limits.target_max_tokens is None:
        return Fitted(((ids, labels),), 0, False)
    keep_first = bool(ids) and ids[0] == opening
    # Ranges, not lists of places: a row of megabytes may be cut to a thousandth.
    kept: Sequence[int] = range(len(ids))
    if limits.source_max_tokens is not None or limits.target_max_tokens is not None:
        prompt = _cut(range(answer_at), limits.source_max_tokens, limits.side, keep_first=keep_first)
        answer = _cut(range(answer_at, len(ids)), limits.target_max_tokens, limits.side, keep_first=False)
        kept = [*prompt, *answer]
    if len(kept) <= limits.max_tokens:
        parts = [kept]
    elif limits.policy == "drop":
        return Fitted((), len(ids), False)
    elif limits.policy == "split":
        parts = [kept[start : start + limits.max_tokens] for start in range(0, len(kept), limits.max_tokens)]
    else:
        parts = [_cut(kept, limits.max_tokens, limits.side, keep_first=keep_first)]
    end = next((at for at in range(len(labels) - 1, -1, -1) if labels[at] != IGNORED), None)
    return Fitted(
        pieces=tuple(_piece(ids, labels, part) for part in parts),
        cut_tokens=len(ids) - sum(map(len, parts)),
        unended=end is not None and not any(end in part for part in parts),
    )


def _cut(places: Sequence[int], max_tokens: int | None, side: str, *, keep_first: bool) -> Sequence[int]:
    if max_tokens is None or len(places) <= max_tokens:
        return places
    if side == "right":
        return places[:max_tokens]
    if keep_first and max_tokens > 1:
        return [*places[:1], *places[1 - max_tokens :]]
    return places[-max_tokens:]


def _piece(ids: list[int], labels: list[int], places: Sequence[int]) -> Piece:
    row = [labels[at] for at in places]
    if row:
        row[0] = IGNORED  # The first token of a row is never a target: nothing comes before it.
    return [ids[at] for at in places], row
