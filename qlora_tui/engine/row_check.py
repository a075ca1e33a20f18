"""Views of a row: the row itself, the trained text, the prompt, and what is lost."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from qlora_tui.data.bad_rows import BadRow
from qlora_tui.data.mask import IGNORED
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.rows import Turn
from qlora_tui.data.turns import unpacked
from qlora_tui.engine.prompts import Prompts
from qlora_tui.errors import DataError, ModelError

_NO_LIMIT_TOKENS = 1 << 40
Status = Literal["equal", "loss reported", "refused", "not trained", "asked differently"]


@dataclass(frozen=True, slots=True)
class RowCheck:
    """JSON-able. Texts are foreign."""

    origin: str
    status: Status
    problem: str
    """Differences between row and training text, or truncation; empty if there are none."""

    turns: list[dict[str, Any]]
    """The row in normal form; empty for finished text."""

    text: str | None
    trained: str
    """The text of the trained tokens."""

    prompt: str
    """Prompt for the last answer; empty if there is none."""

    tokens: int
    trained_tokens: int

    @property
    def passes(self) -> bool:
        """Whether the row is trained and prompted unchanged, or its loss is one that training reports."""
        return self.status in {"equal", "loss reported"}


def unreadable(row: BadRow) -> RowCheck:
    """Return the check of a row that cannot be read: training would refuse it, or skip it where that is allowed."""
    return RowCheck(row.where, "refused", row.reason, [], None, "", "", 0, 0)


def check_rows(recipe: Recipe, batch: dict[str, list[Any]]) -> Iterator[RowCheck]:
    """Check each row of a batch of columns messages, text, tools and origin."""
    rules = replace(recipe.rules, skip_bad_rows=False)
    for at in range(len(batch["origin"])):
        row = {name: column[at : at + 1] for name, column in batch.items()}
        yield _check(replace(recipe, rules=rules), row)


def _check(recipe: Recipe, row: dict[str, list[Any]]) -> RowCheck:
    ((messages,), (text,), (origin,)) = row["messages"], row["text"], row["origin"]
    turns = [unpacked(turn) for turn in messages or ()]
    found = RowCheck(str(origin), "equal", "", [dict(turn) for turn in turns], text, "", "", 0, 0)
    try:
        (encoded,) = recipe.encoder().encode(row)
    except (DataError, ModelError) as error:
        return replace(found, status="refused", problem=error.message.removeprefix(f"{origin}: "))
    pieces = encoded.pieces or encoded.untrained
    decode = recipe.tokenizer.decode
    trained = [token for ids, labels in pieces for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    found = replace(
        found, trained=decode(trained), tokens=sum(len(ids) for ids, _ in pieces), trained_tokens=len(trained)
    )
    if encoded.dropped:
        return replace(found, status="not trained", problem=encoded.dropped)
    problems = [f"{encoded.cut_tokens:,} tokens are cut"] if encoded.cut_tokens else []
    if encoded.loss:
        problems.append(f"the chat template drops {encoded.loss}")
    if encoded.trimmed:
        problems.append("the chat template removes white space around an answer")
    asked = "" if text is not None else _difference(recipe, row, turns)
    if asked:
        problems.append(asked)
    status: Status = "asked differently" if asked else "loss reported" if encoded.loss or encoded.trimmed else "equal"
    return replace(found, status=status, problem="; ".join(problems), prompt=_prompt(recipe, row, turns))


def _asked_turns(turns: list[Turn]) -> list[Turn]:
    """Return the turns before the last answer, or before the consecutive answers that it ends."""
    last = max((at for at, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
    while last and turns[last - 1]["role"] == "assistant":
        last -= 1
    return turns[:last]


def _prompts(recipe: Recipe) -> Prompts:
    return Prompts(recipe.tokenizer, recipe.template.portable, recipe.template, recipe.rules.system_prompt)


def _prompt_ids(recipe: Recipe, row: dict[str, list[Any]], turns: list[Turn]) -> list[int]:
    import json

    (tools,) = row["tools"]
    return _prompts(recipe).ids(_asked_turns(turns), json.loads(tools) if tools else ())


def _prompt(recipe: Recipe, row: dict[str, list[Any]], turns: list[Turn]) -> str:
    try:
        return recipe.tokenizer.decode(_prompt_ids(recipe, row, turns)) if _asked_turns(turns) else ""
    except ModelError:
        return ""


def _difference(recipe: Recipe, row: dict[str, list[Any]], turns: list[Turn]) -> str:
    """Return how the prompt for the last answer differs from the start of the row; empty if it does not."""
    if not _asked_turns(turns):
        return ""
    limits = replace(recipe.rules.limits, max_tokens=_NO_LIMIT_TOKENS, source_max_tokens=None, target_max_tokens=None)
    (whole,) = replace(recipe, rules=replace(recipe.rules, limits=limits)).encoder().encode(row)
    (ids, _), *_ = whole.pieces or whole.untrained
    try:
        asked = _prompt_ids(recipe, row, turns)
    except ModelError as error:
        return f"it cannot be prompted: {error.message}"
    if ids[: len(asked)] == asked:
        return ""
    same = next((at for at, (one, other) in enumerate(zip(asked, ids, strict=False)) if one != other), len(ids))
    decode = recipe.tokenizer.decode
    start = max(0, same - 4)
    return f"prompt {decode(asked[start : same + 8])!r}, training text {decode(ids[start : same + 8])!r}"
