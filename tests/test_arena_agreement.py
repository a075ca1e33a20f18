"""Agreement: of annotators with each other, and of a judge with the majority of people."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from command_line import Cli, command

from qlora_tui.arena import agreement, ratings
from qlora_tui.arena.ratings import Rating

__all__ = ["command"]


def test_fleiss_kappa_of_the_textbook() -> None:
    """The worked example of Fleiss (1971) as it is taught: 10 subjects, 14 raters, 5 categories, kappa 0.210."""
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    items = [Counter(dict(enumerate(row))) for row in table]
    assert agreement.fleiss_kappa(items) == pytest.approx(0.210, abs=5e-4)


def test_rank_correlations_by_hand() -> None:
    assert agreement.kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert agreement.spearman_rho([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert agreement.kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))
    assert agreement.spearman_rho([1, 1, 1], [1, 2, 3]) is None


def test_annotators_who_agree_and_who_do_not() -> None:
    same = [Rating(str(n), "a", "b", "1" if n % 2 else "2", who) for n in range(6) for who in ("x", "y")]
    found = agreement.annotators(same)
    assert found is not None and found.fleiss_kappa == 1 and found.items == 6
    turned = [row if row.annotator == "x" else Rating(row.question_id, "b", "a", row.outcome, "y") for row in same]
    opposed = agreement.annotators(turned)
    assert opposed is not None and opposed.fleiss_kappa == -1
    assert agreement.annotators(same[::2]) is None


def judged_by(annotator: str, *winners: str | None) -> list[Rating]:
    """Verdicts of one annotator on questions 1, 2, ... about "a" and "b"."""
    outcomes: dict[str | None, ratings.Outcome] = {"a": "1", "b": "2", None: "tie"}
    return [Rating(str(n), "a", "b", outcomes[winner], annotator) for n, winner in enumerate(winners, start=1)]


def test_a_judge_against_the_majority_of_people_by_hand() -> None:
    """People say a, b, a, tie, of which the judge says a, b, b: observed 2/3, by chance (2*3*3)/36, kappa 1/3."""
    people = [*judged_by("x", "a", "b", "a", None), *judged_by("y", "a", "b", "b"), *judged_by("z", "a", None, "a")]
    judge = judged_by("judge", "a", "b", "b")
    found = agreement.with_majority([*people, *judge], "judge", ["judge", "other judge"])
    assert (found.items, found.unanimous) == (3, 2)
    assert found.fleiss_kappa == pytest.approx((2 / 3 - 1 / 2) / (1 / 2))
    (ranks,) = found.ranks
    assert {ranks.annotator_1, ranks.annotator_2} == {"judge", "majority of 3"}
    assert ranks.kendall == -1, "two of three for b with the judge, for a with the people"
    another = [Rating(str(n), "b", "a", "1", "other judge") for n in range(1, 4)]
    assert agreement.with_majority([*people, *judge, *another], "judge", ["judge", "other judge"]) == found


def test_agreement_in_one_command(command: Cli, tmp_path: Path) -> None:
    """The released human votes name a question by its text and the judge's file by its id."""
    human = tmp_path / "human.csv"
    rows = ["Why?,a,b,a,h1", "Why?,b,a,b,h2", "How?,a,b,c,h1", "How?,a,b,c,h2"]
    human.write_text("\n".join(["prompt,system_a,system_b,answer,worker_id_hash", *rows]) + "\n")
    verdicts = [{"question_id": n, "reviewer_id": n, "text": "..", "score": score} for n, score in ((7, 1), (8, 2))]
    judge = tmp_path / "a-vs-b-gpt-4-reviewer-threeclass.jsonl"
    judge.write_text("".join(json.dumps(row) + "\n" for row in verdicts))
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question_id": 7, "text": "Why?"}\n{"question_id": 8, "text": "How?"}\n')
    words = ("arena", "agreement", str(human), str(judge), "--judge", "gpt-4")
    found = json.loads(command(*words, "--questions", str(questions), "--json").out)
    assert (found["with_majority"]["gpt-4"]["items"], found["with_majority"]["gpt-4"]["unanimous"]) == (2, 1)
    assert (found["among_others"]["items"], found["among_others"]["fleiss_kappa"]) == (2, 1.0)
    shown = command(*words, "--questions", str(questions))
    assert "\ngpt-4\tmajority of 2\t2\t50.0%" in shown.out
    assert "Fleiss kappa 1.00 over 2 comparisons" in shown.err
    apart = command(*words)
    assert apart.code == 10 and "have no question of the same two models in common" in apart.err
    assert "Did you mean 'gpt-4'" in command("arena", "agreement", str(judge), "--judge", "gpt4").err
    assert "'gpt-4' is the only annotator" in command("arena", "agreement", str(judge)).err


def test_the_majority_of_three_and_a_tie_without_one() -> None:
    rows = [Rating("1", "a", "b", outcome, str(n)) for n, outcome in enumerate(("1", "1", "2"))]  # type: ignore[arg-type]
    rows += [Rating("2", "b", "a", outcome, str(n)) for n, outcome in enumerate(("1", "2", "tie"))]  # type: ignore[arg-type]
    assert [(row.winner, row.outcome) for row in ratings.majority(rows)] == [("a", "1"), (None, "tie")]
