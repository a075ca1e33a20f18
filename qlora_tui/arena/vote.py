"""A blind vote: which pairs of answers are still to be shown to an annotator, on which side, and what was said.

Sides and order are random but fixed by the annotator's name, so an interrupted vote continues with the same sides.
Votes are kept in the format of the judge's verdicts, the annotator in the judge's place.
"""

import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from qlora_tui.arena.judge import Comparison, Contestants
from qlora_tui.arena.ratings import Outcome, Rating
from qlora_tui.evaluation.questions import Question, written_id
from qlora_tui.evaluation.row_log import RowLog

_SCORES: dict[Outcome, int] = {"1": 1, "2": 2, "tie": 3}


def ballots(questions: Sequence[Question], contestants: Contestants, annotator: str) -> list[Comparison]:
    """Every question for every pair of models once, in an order and with sides that the annotator's name decides."""
    found = []
    for question in questions:
        for pair in combinations(sorted(contestants), 2):
            chance = random.Random(_digest(annotator, question.question_id, *pair))  # noqa: S311
            first, second = pair if chance.random() < 0.5 else pair[::-1]
            answers = contestants[first][question.question_id], contestants[second][question.question_id]
            found.append(Comparison(question, first, second, *answers, "three-class"))
    random.Random(_digest(annotator, "order")).shuffle(found)  # noqa: S311
    return found


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "replace")).hexdigest()


@dataclass
class VotingSession:
    """One annotator at the ballots. A skipped ballot comes again in the next session."""

    ballots: list[Comparison]
    annotator: str
    log: RowLog
    _by_id: dict[str, Comparison] = field(init=False)
    _waiting: list[str] = field(init=False)
    _passed: list[tuple[str, bool]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._by_id = {ballot.review_id(f"person {self.annotator}"): ballot for ballot in self.ballots}
        voted = {row.get("review_id") for row in self.log.rows}
        self._waiting = [review_id for review_id in self._by_id if review_id not in voted]

    @property
    def current(self) -> Comparison | None:
        """The ballot to be voted on, or None when there are no more."""
        return self._by_id[self._waiting[0]] if self._waiting else None

    @property
    def votes(self) -> int:
        """Votes of this annotator on these ballots, now and before."""
        return sum(row.get("review_id") in self._by_id for row in self.log.rows)

    def vote(self, outcome: Outcome) -> None:
        """Keep a vote on the current ballot, on disk when this returns."""
        review_id = self._waiting[0]
        self.log.append(self._row(review_id, outcome))
        self._passed.append((self._waiting.pop(0), True))

    def skip(self) -> None:
        """Leave the current ballot for another session."""
        self._passed.append((self._waiting.pop(0), False))

    def undo(self) -> bool:
        """Go back one ballot of this session and forget what was said. False when there is none."""
        if not self._passed:
            return False
        review_id, voted = self._passed.pop()
        if voted:
            self.log.pop()
        self._waiting.insert(0, review_id)
        return True

    def result(self) -> list[Rating]:
        """What this annotator has said, with the sources."""
        said: dict[int, Outcome] = {score: outcome for outcome, score in _SCORES.items()}
        return [
            Rating(ballot.question.question_id, ballot.model_1, ballot.model_2, said[row["score"]], self.annotator)
            for row in self.log.rows
            if (ballot := self._by_id.get(str(row.get("review_id")))) and row.get("score") in said
        ]

    def _row(self, review_id: str, outcome: Outcome) -> dict[str, object]:
        ballot = self._by_id[review_id]
        return {
            "review_id": review_id,
            "question_id": written_id(ballot.question.question_id),
            "answer1_id": ballot.answer_1.id,
            "answer2_id": ballot.answer_2.id,
            "reviewer_id": self.annotator,
            "metadata": {"protocol": "blind vote", "category": ballot.question.category, "time_s": round(time.time())},
            "model_1": ballot.model_1,
            "model_2": ballot.model_2,
            "text": "",
            "score": _SCORES[outcome],
        }
