"""What preparation did to the data, in numbers and in words: shown before training and written to plan.json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qlora_tui.data.load import Loaded
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.row_encoder import Rules
from qlora_tui.data.selection import Selection
from qlora_tui.data.tally import Tally, percentiles
from qlora_tui.data.templates import ChatTemplate
from qlora_tui.errors import DataError

_TALLIED = (
    "truncated_rows",
    "cut_tokens",
    "unended_rows",
    "split_rows",
    "too_long_rows",
    "untrained_rows",
    "lossy_rows",
    "tokens",
    "trained_tokens",
    "longest_tokens",
    "longest_origin",
)
"""What the report takes from the tally under the same name."""

_SHOWN_BAD_ROWS = 3
MANY = 0.5
"""Share of rows from which on a sign of trouble is no accident."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """JSON-able. Counts are rows or tokens; lengths are tokens."""

    source: str
    commits: dict[str, str]
    """Of every hub dataset in it, by its name."""
    format: str
    evidence: list[str]
    template: str
    loss_on: str
    rows_read: int
    bad_rows: int
    bad_row_examples: list[str]
    duplicate_rows: int
    removed_duplicates: int
    kept_apart_rows: int
    train_rows: int
    """Rows as the trainer gets them: after dropping and splitting."""
    eval_rows: int
    truncated_rows: int
    cut_tokens: int
    unended_rows: int
    """Answers that lost their end token to the cut."""
    split_rows: int
    too_long_rows: int
    untrained_rows: int
    """Rows dropped because no token of them would be trained."""
    lossy_rows: int
    """Rows of which the template left out a part, such as the reasoning before earlier answers."""
    tokens: int
    trained_tokens: int
    full_length_percentiles: dict[str, int]
    """Before anything is cut."""
    length_percentiles: dict[str, int]
    longest_tokens: int
    longest_origin: str
    rows_fingerprint: str
    """Of the content and order of the training rows alone."""
    fingerprint: str
    """Of the content and order of training and evaluation rows and of everything that decides their tokens."""
    notes: list[str]
    """What was decided and why."""
    warnings: list[str]
    """What one should look at before starting."""
    complete: bool
    """False when rows are streamed: the counts are of the first rows only."""

    @property
    def trained_share(self) -> float:
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "trained_share": self.trained_share}


def refuse_untrainable(tally: Tally, template: ChatTemplate, rules: Rules) -> None:
    """Raise DataError when training on these rows would teach nothing or the wrong thing."""
    refuse_formatted(tally, rules)
    if tally.says_nothing and rules.loss_on != "everything":
        raise DataError(
            f"every answer of {counted(tally.empty_rows)} is empty: only that it ends would be learned",
            hint="Check data.format and data.columns: are the answers in another column?",
        )
    if tally.kept_rows or not tally.rows:
        return
    rows = counted(tally.rows)
    longest = f"training.max_length_tokens = {rules.limits.max_tokens}"
    reasons = [
        (
            tally.unmarked_rows,
            f"the template {template.name!r} marks no token of the answers in {rows}: every label would be -100",
            'Choose another template, such as data.template = "chatml".',
        ),
        (
            tally.no_answer_rows,
            f"no answer to learn in any of {rows}: every label would be -100",
            "Check data.format and data.columns: answers must become assistant turns. "
            'training.loss_on = "everything" trains prompts too.',
        ),
        (
            tally.cut_away_rows,
            f"{longest} cuts the answers away in all of {rows}, the prompts alone fill it: every label would be -100",
            'Raise it, or cut the other end with data.truncation_side = "left".',
        ),
        (
            tally.too_long_rows,
            f"all of {rows} are longer than {longest} and dropped",
            'Raise it, or cut rows with data.length_policy = "truncate".',
        ),
        (tally.refused_rows, f"the template {template.name!r} cannot render any of {rows}", "Choose another template."),
    ]
    _, message, hint = max(reasons, key=lambda reason: reason[0])
    raise DataError(message, hint=hint)


def refuse_formatted(tally: Tally, rules: Rules) -> None:
    """Raise DataError when most rows are formatted already, so that a template would be written twice or unseen."""
    turns = tally.rows - tally.text_rows
    if tally.marked_rows - tally.marked_text_rows > MANY * turns:
        raise DataError(
            f"the turns already hold a chat template's markers ({tally.first_marked}): "
            "the template would be written around them a second time",
            hint='Give turns without markers, or keep the text whole: data.format = "text" with data.columns.text.',
        )
    if rules.loss_on != "everything" and tally.marked_text_rows > MANY * tally.text_rows:
        raise DataError(
            f"the rows are finished text that holds a chat template's markers ({tally.first_marked}): nothing says "
            "which part is the answer, so the prompts would be trained too",
            hint='Give the conversations as turns, or train all of the text with training.loss_on = "everything".',
        )


def build_report(
    loaded: Sequence[Loaded],
    selection: Selection,
    tally: Tally,
    recipe: Recipe,
    *,
    eval_rows: int,
    fingerprint: str,
    complete: bool = True,
) -> DataReport:
    """The report of a finished preparation."""
    main, template = loaded[0], recipe.template
    # A stream has no length: its report is about the rows read ahead.
    rows_read = sum(len(one.dataset) for one in loaded) if len(selection.train) else tally.rows
    return DataReport(
        source=main.label,
        commits={one.label: one.commit for one in loaded if one.commit},
        format=main.detection.format,
        evidence=list(main.detection.evidence),
        template=template.name,
        loss_on=recipe.rules.loss_on,
        rows_read=rows_read,
        bad_rows=sum(one.bad_row_count for one in loaded) + tally.refused_rows,
        bad_row_examples=[f"{bad.where}: {bad.reason}" for one in loaded for bad in one.bad_rows][:10],
        duplicate_rows=selection.duplicate_rows,
        removed_duplicates=selection.removed_duplicates,
        kept_apart_rows=selection.kept_apart_rows,
        train_rows=tally.kept_rows,
        **{name: getattr(tally, name) for name in _TALLIED},
        eval_rows=eval_rows,
        full_length_percentiles=percentiles(tally.full_lengths),
        length_percentiles=percentiles(tally.lengths),
        rows_fingerprint=selection.train_fingerprint,
        fingerprint=fingerprint,
        notes=[note for one in loaded for note in one.notes]
        + list(template.notes)
        + _notes(selection, tally, recipe.rules),
        warnings=[*source_warnings(loaded), *warnings(tally, selection)],
        complete=complete,
    )


def _notes(selection: Selection, tally: Tally, rules: Rules) -> list[str]:
    notes = []
    if tally.text_rows and rules.loss_on != "everything":
        notes.append(f"{counted(tally.text_rows)} of finished text without turns: all of it is trained")
    if selection.repeated_rows:
        notes.append(f"{counted(selection.repeated_rows)} of mixed sources repeated to reach their weight")
    if selection.unused_rows:
        unused = counted(selection.unused_rows)
        notes.append(f"{unused} of mixed sources are not used: their weights ask for fewer; which are is drawn by seed")
    return notes


def source_warnings(loaded: Sequence[Loaded]) -> list[str]:
    """Rows and columns that were skipped or are not trained, per source."""
    found = []
    for one in loaded:
        if one.bad_row_count:
            examples = "; ".join(f"{bad.where}: {bad.reason}" for bad in one.bad_rows[:_SHOWN_BAD_ROWS])
            found.append(f"{one.label}: {counted(one.bad_row_count)} skipped as bad, such as {examples}")
        found += [f"{one.label}: {warning}" for warning in one.warnings]
    return found


def warnings(tally: Tally, selection: Selection | None = None) -> list[str]:
    """What one should look at before starting, most serious first."""
    found = []
    of_all = f"of {counted(tally.rows)}"
    if tally.untrained_rows:
        fates = {
            "without an answer": tally.no_answer_rows,
            "with the answer cut away": tally.cut_away_rows,
            "not marked by the template": tally.unmarked_rows,
        }
        why = ", ".join(f"{rows:,} {fate}" for fate, rows in fates.items() if rows)
        found.append(f"{tally.untrained_rows:,} {of_all} dropped: no token of them would be trained ({why})")
    if tally.empty_rows:
        found.append(f"{tally.empty_rows:,} {of_all} with nothing but empty answers: only their end is trained")
    if tally.too_long_rows:
        found.append(f"{tally.too_long_rows:,} {of_all} dropped for their length")
    if tally.lossy_rows:
        found.append(
            f"{tally.lossy_rows:,} {of_all} lose content in the chat template, such as {tally.first_loss} "
            f"in {tally.first_lossy_origin}"
        )
    if tally.trimmed_rows:
        found.append(f"{tally.trimmed_rows:,} {of_all} lose white space around answers in the chat template")
    found += _fitted(tally, of_all)
    if tally.marked_rows:
        found.append(
            f"{counted(tally.marked_rows)} whose text holds a template's markers, the first {tally.first_marked}"
        )
    if selection is not None and selection.duplicate_rows > selection.removed_duplicates:
        found.append(
            f"{counted(selection.duplicate_rows)} equal to an earlier one; data.drop_duplicates = true removes them"
        )
    if selection is not None and selection.kept_apart_rows:
        found.append(
            f"{counted(selection.kept_apart_rows)} left out because an equal one is on the other side of the split"
        )
    return found


def _fitted(tally: Tally, of_all: str) -> list[str]:
    """What was split and cut to fit the longest length."""
    said = []
    if tally.split_rows:
        said.append(f"{tally.split_rows:,} {of_all} split into {tally.pieces:,} pieces")
    if tally.truncated_rows:
        lost = f"cut by {tally.cut_tokens:,} tokens in all"
        if tally.split_rows:
            lost = f"lost {tally.cut_tokens:,} tokens, in pieces without a trained one or cut"
        unended = f"{tally.unended_rows:,} of them without the end of the last answer"
        said.append(f"{tally.truncated_rows:,} {of_all} {lost}; {unended}")
    return said


def counted(rows: int) -> str:
    """The number with its noun."""
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"
