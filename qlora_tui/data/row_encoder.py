"""Rows in normal form turned into training rows: the one way from text to `input_ids` and `labels`.

Training and the preview both go through `RowEncoder`, so what the preview shows is what the loss sees.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qlora_tui.data.bad_rows import BadRow, BadRows
from qlora_tui.data.batches import parts
from qlora_tui.data.fidelity import Loss, is_trimmed, losses
from qlora_tui.data.lengths import Limits, Piece, fit
from qlora_tui.data.mask import IGNORED, Encoded, encode_rendered, encode_texts, labels
from qlora_tui.data.rows import Turn
from qlora_tui.data.spans import Conversation, Rendered
from qlora_tui.data.tally import Tally
from qlora_tui.data.templates import ChatTemplate, render_rows, stop_ids
from qlora_tui.data.text_markers import conversation_markers, text_markers
from qlora_tui.data.tokenizer import Tokenizer, encode, opening_id
from qlora_tui.data.turn_fitting import fit_turns
from qlora_tui.data.turns import unpacked
from qlora_tui.errors import DataError

Batch = dict[str, list[Any]]
_SHOWN_LOSSES = 3
_LOSS_HINT = (
    'Choose a template that keeps it, such as data.template = "chatml", or skip such rows with '
    "data.skip_bad_rows = true."
)
Dropped = Literal["", "too long", "no answer", "not marked", "cut away", "refused"]


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything besides rows, tokenizer and template that decides what the loss sees."""

    limits: Limits
    loss_on: Literal["responses", "last-response", "everything"] = "responses"
    system_prompt: str | None = None
    skip_bad_rows: bool = False
    always_bos: bool = False
    """Whether texts begin with the bos token even if the tokenizer does not add it."""


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row and what became of it."""

    origin: str
    full_tokens: int
    """Length before anything was cut."""

    pieces: tuple[Piece, ...] = ()
    """Training rows; more than one when split, none when dropped."""

    untrained: tuple[Piece, ...] = ()
    """What was left of it without a trained token, and is therefore not trained on."""

    cut_tokens: int = 0
    unended: bool = False
    is_text: bool = False
    empty: bool = False
    """Whether every answer that is trained is blank."""

    loss: str = ""
    """The parts of turns that are not trained, in words."""

    trimmed: bool = False
    """Whether the template removes white space at the ends of a trained answer."""

    marker: str = ""
    """A string of turn-marking kind found in the row's own text."""

    dropped: Dropped = ""


@dataclass(frozen=True, slots=True)
class _Checked:
    rendered: Rendered
    loss: str


@dataclass(slots=True)
class RowEncoder:
    """Callable for `datasets.map(batched=True)`; counts what it sees in `tally`."""

    tokenizer: Tokenizer
    template: ChatTemplate
    rules: Rules
    on_rows: Callable[[int], None] = lambda rows: None
    """Called with the number of rows done so far."""
    tally: Tally = field(default_factory=Tally)
    bad: BadRows = field(init=False)
    _opening: int | None = field(init=False)
    _stop: list[int] = field(init=False)
    _in_turns: re.Pattern[str] = field(init=False)
    _in_text: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        self.bad = BadRows(skip=self.rules.skip_bad_rows)
        self._opening = opening_id(self.tokenizer, always_bos=self.rules.always_bos)
        self._stop = stop_ids(self.template, self.tokenizer)
        self._in_turns = conversation_markers(self.template, self.tokenizer)
        self._in_text = text_markers(self.tokenizer)

    def __call__(self, batch: Batch) -> Batch:
        """Columns messages, text, tools and origin in; `input_ids`, `labels` and `length` out."""
        out: Batch = {"input_ids": [], "labels": [], "length": []}
        for row in self.encode(batch):
            self.tally.add(row)
            for ids, row_labels in row.pieces:
                out["input_ids"].append(ids)
                out["labels"].append(row_labels)
                out["length"].append(len(ids))
        self.on_rows(self.tally.rows)
        return out

    def encode(self, batch: Batch) -> list[EncodedRow]:
        """Each row of the batch, in order. Raises DataError that names the row the template cannot render."""
        return [row for part in parts(batch) for row in self._encode(part)]

    def _encode(self, batch: Batch) -> list[EncodedRow]:
        origins, texts = [str(origin) for origin in batch["origin"]], batch["text"]
        finished: dict[int, EncodedRow] = {}
        as_text = [index for index, text in enumerate(texts) if text is not None]
        for index, encoded in zip(as_text, self._encode_texts([texts[index] for index in as_text]), strict=True):
            marker = self._in_text.search(texts[index])
            finished[index] = self._finish(encoded, origins[index], marker, is_text=True)
        turns = [index for index, text in enumerate(texts) if text is None]
        for index, row in zip(turns, self._encode_turns(batch, origins, turns), strict=True):
            finished[index] = row
        return [finished[index] for index in range(len(origins))]

    def _encode_texts(self, texts: list[str]) -> list[Encoded]:
        encoded = []
        end = self.tokenizer.eos_token_id
        for ids in encode_texts(self.tokenizer, texts):
            if self._opening is not None and ids[:1] != [self._opening]:
                ids = [self._opening, *ids]
            if end is not None and ids and ids[-1] != end:
                ids = [*ids, end]
            encoded.append(Encoded(ids, ((0 if self._opening is None else 1, len(ids)),)))
        return encoded

    def _encode_turns(self, batch: Batch, origins: list[str], places: list[int]) -> list[EncodedRow]:
        conversations = [self._conversation(batch["messages"][at], batch["tools"][at]) for at in places]
        rendered = self._render(conversations, [origins[at] for at in places])
        checked = [
            None if whole is None else self._check(one, whole, origins[at])
            for one, whole, at in zip(conversations, rendered, places, strict=True)
        ]
        kept = [index for index, found in enumerate(checked) if found is not None]
        texts = [found.rendered for found in checked if found is not None]
        encoded = dict(zip(kept, encode_rendered(self.tokenizer, texts), strict=True))
        rows = []
        for index, (one, found, place) in enumerate(zip(conversations, checked, places, strict=True)):
            if found is None:
                rows.append(EncodedRow(origins[place], 0, dropped="refused"))
                continue
            marker = next(filter(None, (self._in_turns.search(turn["content"]) for turn in one.turns)), None)
            answers = self._trained_answers(one.turns)
            ended = self._with_stop(encoded[index], found.rendered)
            row = self._finish(ended, origins[place], marker, answered=bool(answers))
            loss = found.loss or self._unpredicted(ended)
            rows.append(
                replace(row, empty=self._is_empty(answers), loss=loss, trimmed=is_trimmed(one.turns, found.rendered))
            )
        return rows

    def _check(self, one: Conversation, whole: Rendered, origin: str) -> "_Checked | None":
        """The rendering with the answers that are to be trained; None where a bad row may be skipped.

        Raises DataError where the template drops part of such an answer, or joins it with one that is not to be.
        """
        lost = losses(one.turns, whole)
        refused = [loss for loss in lost if self._is_refused(loss, one.turns)]
        if refused:
            problem = f"{origin}: the chat template drops {_listed(refused)}"
            self._refuse(DataError(problem, hint=_LOSS_HINT), origin)
            return None
        replies = [turn for turn in one.turns if turn["role"] == "assistant"]
        untrained: frozenset[int] = frozenset()
        if any(turn.get("untrained") for turn in replies):
            if self.rules.loss_on != "everything" and not self._trained_answers(one.turns):
                return _Checked(replace(whole, untrained=frozenset(range(len(whole.answers)))), _listed(lost))
            if self.rules.loss_on == "last-response":
                replies = replies[-len(whole.answers) :]
            if len(replies) != len(whole.answers):
                problem = f"{origin}: an untrained answer cannot be told from the trained text of this chat template"
                self._refuse(DataError(problem, hint=_LOSS_HINT), origin)
                return None
            untrained = frozenset(at for at, turn in enumerate(replies) if turn.get("untrained"))
        return _Checked(replace(whole, untrained=untrained), _listed(lost))

    def _unpredicted(self, encoded: Encoded) -> str:
        """Return the loss of an answer that begins the text: its first token follows nothing, so it is no target."""
        starts = encoded.answers and encoded.answers[-1 if self.rules.loss_on == "last-response" else 0][0] == 0
        return "the first token of the first answer" if starts and self.rules.loss_on != "everything" else ""

    def _is_refused(self, loss: Loss, turns: Sequence[Turn]) -> bool:
        """Return whether training on a row with this loss would teach an incomplete answer. Others are reported."""
        turn = turns[loss.turn - 1]
        if self.rules.loss_on == "everything" or turn["role"] != "assistant" or turn.get("untrained"):
            return False
        return not loss.earlier or (loss.part != "reasoning" and self.rules.loss_on == "responses")

    def _refuse(self, error: DataError, origin: str) -> None:
        """Count a row that cannot be used, or raise `error` when bad rows may not be skipped."""
        if not self.rules.skip_bad_rows:
            raise error
        self.bad.add(BadRow(origin, error.message.removeprefix(f"{origin}: ")))

    def _trained_answers(self, turns: Sequence[Turn]) -> list[Turn]:
        replies = [turn for turn in turns if turn["role"] == "assistant"]
        last_only = self.rules.loss_on == "last-response"
        return [turn for turn in (replies[-1:] if last_only else replies) if not turn.get("untrained")]

    def _is_empty(self, trained: list[Turn]) -> bool:
        return bool(trained) and not any(turn["content"].strip() or turn.get("tool_calls") for turn in trained)

    def _conversation(self, messages: Sequence[dict[str, Any]], tools: str | None) -> Conversation:
        available = json.loads(tools) if tools else ()
        turns = fit_turns(self.template, [unpacked(raw) for raw in messages], available, self.rules.system_prompt)
        return Conversation(turns, available if self.template.tools else ())

    def _render(self, conversations: list[Conversation], origins: list[str]) -> list[Rendered | None]:
        last_only = self.rules.loss_on == "last-response"
        if not conversations:
            return []
        try:
            return [*render_rows(self.template, self.tokenizer, conversations, origins, last_only=last_only)]
        except DataError:
            if not (self.rules.skip_bad_rows or self.rules.loss_on == "everything"):
                raise
        return [self._render_row(one, origin) for one, origin in zip(conversations, origins, strict=True)]

    def _render_row(self, one: Conversation, origin: str) -> Rendered | None:
        """None when the row is refused and bad rows are skipped. Of a row trained whole its last answer is enough."""
        wanted = (False, True) if self.rules.loss_on == "everything" else (self.rules.loss_on == "last-response",)
        for last_only in wanted:
            try:
                return render_rows(self.template, self.tokenizer, [one], [origin], last_only=last_only)[0]
            except DataError as error:
                if last_only == wanted[-1]:
                    self._refuse(error, origin)
        return None

    def _with_stop(self, encoded: Encoded, rendered: Rendered | None) -> Encoded:
        """The row with an end token after its last answer, when the template leaves that open."""
        if not (self._stop and rendered is not None and rendered.answers):
            return encoded
        first, end = rendered.answers[-1]
        if rendered.text[end:].strip() or len(rendered.answers) - 1 in rendered.untrained:
            return encoded  # Another turn follows, or what ends the row is not trained.
        # An empty answer has no tokens, so it has no place among those that have.
        empty = first == end or not encoded.answers
        earlier = encoded.answers if empty else encoded.answers[:-1]
        start, stop = encoded.answers[-1] if not empty else (self._end_of(rendered.text[:end], encoded.ids),) * 2
        ids = [*encoded.ids[:stop], *self._stop, *encoded.ids[stop:]]
        return replace(encoded, ids=ids, answers=(*earlier, (start, stop + len(self._stop))))

    def _end_of(self, prompt: str, ids: list[int]) -> int:
        """Return where an empty answer after `prompt` belongs: before what the template writes after it."""
        asked: list[int] = encode(self.tokenizer, [prompt])[0].ids
        return len(asked) if ids[: len(asked)] == asked else len(ids)

    def _finish(
        self,
        encoded: Encoded,
        origin: str,
        marker: re.Match[str] | None,
        *,
        is_text: bool = False,
        answered: bool = True,
    ) -> EncodedRow:
        row_labels = labels(encoded, loss_on="everything" if is_text else self.rules.loss_on)
        answer_at = encoded.answers[0][0] if encoded.answers else len(encoded.ids)
        limits = self.rules.limits
        fitted = fit(encoded.ids, row_labels, answer_at=answer_at, opening=self._opening, limits=limits)
        pieces = tuple(piece for piece in fitted.pieces if _is_trained(piece[1]))
        dropped: Dropped = ""
        if not pieces:
            if not fitted.pieces:
                dropped = "too long"
            elif _is_trained(row_labels):
                dropped = "cut away"
            else:
                dropped = "not marked" if answered and not is_text else "no answer"
        untrained = tuple(piece for piece in fitted.pieces if not _is_trained(piece[1]))
        lost = sum(len(ids) for ids, _ in untrained)
        return EncodedRow(
            origin=origin,
            full_tokens=len(encoded.ids),
            pieces=pieces,
            untrained=untrained,
            cut_tokens=fitted.cut_tokens + lost,
            unended=fitted.unended,
            is_text=is_text,
            marker=marker.group() if marker else "",
            dropped=dropped,
        )


def _listed(lost: Sequence[Loss]) -> str:
    named = " and ".join(map(str, lost[:_SHOWN_LOSSES]))
    return f"{named} and {len(lost) - _SHOWN_LOSSES} more" if len(lost) > _SHOWN_LOSSES else named


def _is_trained(labels_of_row: list[int]) -> bool:
    return labels_of_row.count(IGNORED) < len(labels_of_row)
