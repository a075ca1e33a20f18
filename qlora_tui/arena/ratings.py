"""Ratings: who was compared with whom on which question, and who won. Reads csv, our verdicts and the original files.

csv: question_id, model_1, model_2, outcome (1, 2 or tie; model_1 was shown first), and perhaps annotator.
jsonl: rows of the original repository with a score, 1, 2, 3 (tie), -1 (unparsed) or a pair of scores. They name answers
and no models, so the models come from the row (ours), from the answer files (`answer_owners`), or from the file's name.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from qlora_tui.errors import DataError, nearest
from qlora_tui.evaluation.questions import Question, row_id

Outcome = Literal["1", "2", "tie", "unparsed"]
Owners = dict[str, set[str]]
"""Models by the id of an answer they gave; two models may have given the same answer."""

Duplicates = Literal["refuse", "first", "last", "keep"]

_OUTCOMES: dict[str, Outcome] = {"1": "1", "2": "2", "3": "tie", "tie": "tie", "-1": "unparsed", "unparsed": "unparsed"}
_COLUMNS = ("question_id", "model_1", "model_2", "outcome")
_REVIEWER = re.compile(r"[-_](?P<judge>gpt-?[0-9.]+(?:-turbo)?|[^-_]+)[-_]reviewer(?:[-_].*)?$")


@dataclass(frozen=True, slots=True)
class Rating:
    """One verdict on one question. `model_1` was shown first."""

    question_id: str
    model_1: str
    model_2: str
    outcome: Outcome
    annotator: str = ""
    scores: tuple[float, float] | None = None
    """What each was given, where the verdict was a pair of scores."""

    text: str = ""
    """What the judge wrote."""

    where: str = ""
    answer_ids: tuple[str, str] = ("", "")

    @property
    def models(self) -> tuple[str, str]:
        """Both, in alphabetical order: the pair whatever the order of showing."""
        return (self.model_1, self.model_2) if self.model_1 <= self.model_2 else (self.model_2, self.model_1)

    @property
    def score_of_first(self) -> float:
        """1 when `model_1` won, 0 when it lost, 0.5 for a tie. Unparsed ratings have none: ValueError."""
        return {"1": 1.0, "2": 0.0, "tie": 0.5}[self.outcome]

    @property
    def winner(self) -> str | None:
        """The model that won, or None."""
        return {"1": self.model_1, "2": self.model_2}.get(self.outcome)


def read(paths: Sequence[Path], *, duplicates: Duplicates = "refuse", owners: Owners | None = None) -> list[Rating]:
    """The ratings of all files. `owners` tells whose an answer is and wins over file names.

    Raises NotFoundError; DataError for wrong columns, an unknown outcome or a duplicate verdict, naming file and line.
    """
    found = [rating for path in paths for rating in _read_file(path, owners or {})]
    if not found:
        raise DataError(f"no ratings in {', '.join(map(str, paths))}")
    return _deduplicated(found, duplicates)


def _read_file(path: Path, owners: Owners) -> Iterable[Rating]:
    from qlora_tui.evaluation.row_log import located_rows

    names, judge = models_of_name(path), judge_of_name(path)
    for number, (where, row) in enumerate(located_rows(path), start=1):
        if "score" in row:
            yield _original(row, number, where, names, judge, owners)
        elif "system_a" in row and "answer" in row:
            yield _human_form(row, where)
        else:
            yield _table_row(row, where)


def _table_row(row: dict[str, Any], where: str) -> Rating:
    missing = [column for column in _COLUMNS if row.get(column) in (None, "")]
    if missing:
        raise DataError(
            f"{where}: no {missing[0]!r} in this row, which has {', '.join(map(str, row)) or 'nothing'}",
            hint="Ratings need the columns question_id, model_1, model_2 and outcome (1, 2 or tie).",
        )
    outcome = _OUTCOMES.get(str(row["outcome"]).strip().lower())
    if outcome is None:
        raise DataError(
            f"{where}: unknown outcome {str(row['outcome'])!r}", hint="An outcome is 1 (model_1 won), 2 or tie."
        )
    first, second = str(row["model_1"]).strip(), str(row["model_2"]).strip()
    return _checked(
        Rating(str(row["question_id"]).strip(), first, second, outcome, str(row.get("annotator") or ""), where=where)
    )


def _human_form(row: dict[str, Any], where: str) -> Rating:
    """A row of the human votes that the original work released: system_a, system_b, and a, b or c (the same)."""
    said = str(row["answer"]).strip().lower()
    outcomes: dict[str, Outcome] = {"a": "1", "b": "2", "c": "tie", "tie": "tie", "same": "tie"}
    outcome = outcomes.get(said)
    if outcome is None:
        raise DataError(f"{where}: unknown answer {str(row['answer'])!r}", hint="Expected a, b or c (the same).")
    question = str(row.get("question_id") or row.get("prompt") or "")
    annotator = str(row.get("worker_id_hash") or "")
    return _checked(Rating(question, str(row["system_a"]), str(row["system_b"]), outcome, annotator, where=where))


def _original(
    row: dict[str, Any], number: int, where: str, names: tuple[str, str] | None, judge: str | None, owners: Owners
) -> Rating:
    outcome, scores = _score(row["score"], where)
    ids = (str(row.get("answer1_id")), str(row.get("answer2_id")))
    if "model_1" in row and "model_2" in row:
        models: tuple[str, str] | None = (str(row["model_1"]), str(row["model_2"]))
    else:
        models = _by_answers(ids, names, owners) or names
    if models is None:
        raise DataError(
            f"{where}: this row does not say which models it compares",
            hint="Name the file A-vs-B-JUDGE-reviewer.jsonl, or give the answers with --answers NAME=FILE.",
        )
    # In the original files reviewer_id is a number for each category's prompt; who judged is in the name alone.
    text, annotator = row.get("text"), row.get("annotator") or judge or row.get("reviewer_id")
    return _checked(
        Rating(
            row_id(row, number), *models, outcome, "" if annotator is None else str(annotator), scores,
            text if isinstance(text, str) else "", where, ids,
        )
    )  # fmt: skip


def _by_answers(ids: tuple[str, str], names: tuple[str, str] | None, owners: Owners) -> tuple[str, str] | None:
    """Who was shown first and second, by whose answers they are; those of the file's name before others.

    With a file's name, one known answer is enough: the other one is of the other model.
    """
    first, second = owners.get(ids[0], set()), owners.get(ids[1], set())
    if names is not None:
        fitting = [
            pair
            for pair in (names, names[::-1])
            if (pair[0] in first or not first) and (pair[1] in second or not second) and (first or second)
        ]
        if len(fitting) == 1:
            return fitting[0]
    found = [(one, other) for one in first for other in second if one != other]
    return found[0] if len(found) == 1 else None


def _score(score: Any, where: str) -> tuple[Outcome, tuple[float, float] | None]:
    if isinstance(score, list | tuple) and len(score) == 2 and all(_is_number(item) for item in score):
        first, second = float(score[0]), float(score[1])
        if first < 0 or second < 0:
            return "unparsed", None
        return ("tie" if first == second else "1" if first > second else "2"), (first, second)
    outcome = _OUTCOMES.get(str(score).strip().lower()) if not isinstance(score, bool) else None
    if outcome is None:
        raise DataError(f"{where}: unknown score {score!r}", hint="A score is 1, 2, 3 (tie), -1, or a pair of numbers.")
    return outcome, None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _checked(rating: Rating) -> Rating:
    if rating.model_1 == rating.model_2:
        raise DataError(f"{rating.where}: {rating.model_1!r} is compared with itself", hint="Take the row out.")
    return rating


def models_of_name(path: Path) -> tuple[str, str] | None:
    """(shown first, shown second) by a file name such as A-vs-B-gpt-4-reviewer-threeclass.jsonl, or None."""
    stem = path.name.partition(".jsonl")[0]
    for versus in ("-vs-", "_vs_"):
        first, found, second = stem.partition(versus)
        if found and first and second:
            return first, _REVIEWER.sub("", second)
    return None


def judge_of_name(path: Path) -> str | None:
    """The judge by such a name: gpt-4 in A-vs-B-gpt-4-reviewer-threeclass.jsonl. None without one."""
    found = _REVIEWER.search(path.name.partition(".jsonl")[0])
    return found["judge"] if found else None


def _deduplicated(ratings: list[Rating], duplicates: Duplicates) -> list[Rating]:
    if duplicates == "keep":
        return ratings
    kept: dict[tuple[str, str, str, str], Rating] = {}
    for rating in ratings:
        key = (rating.question_id, rating.model_1, rating.model_2, rating.annotator)
        if key not in kept or duplicates == "last":
            kept[key] = rating
        elif duplicates == "refuse":
            raise DataError(
                f"{rating.where}: {rating.model_1} against {rating.model_2} on question {rating.question_id} "
                f"was rated in {kept[key].where} already",
                hint=f"Give each annotator a name (column annotator), or choose with --duplicates "
                f"{'|'.join(get_args(Duplicates)[1:])}.",
            )
    return list(kept.values())


def disputed_files(ratings: Iterable[Rating]) -> list[str]:
    """Files that give most of their answers to other models than files before them do: whose names are at odds.

    Released files are known that name their two models in the wrong order; only the answers tell who was shown first.
    Single answers prove nothing, since two models may say the same.
    """
    owner: dict[tuple[str, str], str] = {}
    rows: Counter[str] = Counter()
    disputed: Counter[str] = Counter()
    for rating in ratings:
        file = rating.where.rpartition(":")[0]
        rows[file] += 1
        known = [
            owner.setdefault((rating.question_id, answer_id), model) == model
            for model, answer_id in zip((rating.model_1, rating.model_2), rating.answer_ids, strict=True)
            if answer_id
        ]
        disputed[file] += not all(known)
    return [file for file, count in disputed.items() if count * 2 > rows[file]]


def only(ratings: list[Rating], models: Sequence[str]) -> list[Rating]:
    """The ratings among `models`. Raises DataError naming the nearest for a model that was never rated."""
    known = sorted({model for rating in ratings for model in rating.models})
    for model in models:
        if model not in known:
            raise DataError(f"no rating of {model!r}", hint=nearest(model, known))
    return [rating for rating in ratings if rating.model_1 in models and rating.model_2 in models]


def reparsed(ratings: list[Rating]) -> list[Rating]:
    """`ratings` with unparsed verdicts read again from what the judge wrote, where that is known."""
    from qlora_tui.arena.verdict import three_class

    return [
        replace(rating, outcome=three_class(rating.text)) if rating.outcome == "unparsed" and rating.text else rating
        for rating in ratings
    ]


def majority(ratings: list[Rating]) -> list[Rating]:
    """One rating for each question and pair: what most verdicts say, and a tie when none has the most.

    The method of the original work for its three human votes. The alphabetically first model counts as shown first.
    """
    votes: dict[tuple[str, str, str], Counter[str | None]] = {}
    for rating in ratings:
        if rating.outcome != "unparsed":
            votes.setdefault((rating.question_id, *rating.models), Counter())[rating.winner] += 1
    return [
        Rating(question, first, second, _most(counts, first, second), "majority")
        for (question, first, second), counts in votes.items()
    ]


def _most(counts: "Counter[str | None]", first: str, second: str) -> Outcome:
    ranked = counts.most_common()
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        return "tie"
    outcomes: dict[str | None, Outcome] = {first: "1", second: "2"}
    return outcomes.get(ranked[0][0], "tie")


def known_by_id(ratings: Iterable[Rating], questions: Iterable[Question]) -> list[Rating]:
    """`ratings` whose question is given by its text, as in the released human votes, with the question's id instead."""
    ids = {question.text.strip(): question.question_id for question in questions}
    return [replace(rating, question_id=ids.get(rating.question_id.strip(), rating.question_id)) for rating in ratings]


def to_csv(ratings: Iterable[Rating]) -> str:
    """`ratings` as csv with the columns question_id, model_1, model_2, outcome, annotator."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, "annotator"])
    for rating in ratings:
        writer.writerow(as_row(rating).values())
    return text.getvalue()


def as_row(rating: Rating) -> dict[str, str]:
    """Return a rating by the columns of `to_csv`."""
    row = (rating.question_id, rating.model_1, rating.model_2, rating.outcome, rating.annotator)
    return dict(zip((*_COLUMNS, "annotator"), row, strict=True))
