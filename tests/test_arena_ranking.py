"""Elo, Bradley-Terry and ratio to a reference: against hand-computed tournaments and their properties."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from command_line import Cli, command
from hypothesis import given, settings
from hypothesis import strategies as st

from qlora_tui.arena import agreement, bradley_terry, elo, ratings, ratio
from qlora_tui.arena.matches import groups, matches_of
from qlora_tui.arena.ratings import Rating

__all__ = ["command"]
A_BEATS_B = Rating("1", "a", "b", "1")
FEW = elo.EloSettings(orders=500)


def tournament(strengths: dict[str, float], questions: int, seed: int = 0) -> list[Rating]:
    """Every pair in both orders on every question, won as Bradley-Terry has it for these Elo strengths."""
    rng = np.random.default_rng(seed)
    found = []
    for question, (one, other) in itertools.product(range(questions), itertools.permutations(strengths, 2)):
        chance = elo.expected(strengths[one], strengths[other], 400)
        found.append(Rating(str(question), one, other, "1" if rng.random() < chance else "2"))
    return found


def test_one_match_between_equals_moves_half_of_k() -> None:
    assert elo.one_pass(matches_of([A_BEATS_B]), elo.EloSettings()).tolist() == [1016.0, 984.0]


def test_a_small_tournament_by_hand() -> None:
    """a beats b, b beats c, c draws with a; K 32: the expected scores are worked out match by match."""
    rows = [A_BEATS_B, Rating("1", "b", "c", "1"), Rating("1", "c", "a", "tie")]
    b, c = 984 + 32 * (1 - 1 / (1 + 10 ** (16 / 400))), 1000 - 32 * (1 - 1 / (1 + 10 ** (16 / 400)))
    change = 32 * (0.5 - 1 / (1 + 10 ** ((1016 - c) / 400)))
    assert elo.one_pass(matches_of(rows), elo.EloSettings()).tolist() == pytest.approx([1016 - change, b, c + change])


def test_the_mean_over_all_orders_is_that_of_every_permutation() -> None:
    """Four matches have 24 orders, which can all be played; the mean of many random ones must come to theirs."""
    rows = [A_BEATS_B, Rating("2", "b", "a", "1"), Rating("3", "b", "c", "1"), Rating("4", "a", "c", "tie")]
    every = [elo.one_pass(matches_of(order), elo.EloSettings()) for order in itertools.permutations(rows)]
    found = elo.over_orders(matches_of(rows), elo.EloSettings(orders=20_000))
    assert np.abs(found.mean - np.mean(every, axis=0)).max() < 6 * found.monte_carlo_error.max()
    assert found.order_sd == pytest.approx(np.std(every, axis=0), rel=0.05)


def test_hundreds_of_different_matches_are_told_apart() -> None:
    """More kinds of matches than a byte has values."""
    rows = tournament({f"m{number:02}": 1000 + 20 * number for number in range(20)}, 2)
    rng = np.random.default_rng(1)
    some = [elo.one_pass(matches_of([rows[at] for at in rng.permutation(len(rows))]), FEW) for _ in range(200)]
    found = elo.over_orders(matches_of(rows), elo.EloSettings(orders=2000)).mean
    error = np.std(some, axis=0, ddof=1) / 200**0.5
    assert (np.abs(found - np.mean(some, axis=0)) < 6 * error).all()


outcomes = st.sampled_from(["1", "2", "tie"])
models = st.sampled_from("abcde")
rows_of = st.lists(
    st.tuples(st.integers(0, 5), models, models, outcomes).filter(lambda row: row[1] != row[2]), min_size=1, max_size=25
)


def linked(rows: list[tuple[int, str, str, str]]) -> list[Rating]:
    found = [Rating(str(question), one, other, outcome) for question, one, other, outcome in rows]  # type: ignore[arg-type]
    return ratings.only(found, groups(found)[0])


@settings(deadline=None, max_examples=30)
@given(rows_of)
def test_nothing_is_won_that_is_not_lost(rows: list[tuple[int, str, str, str]]) -> None:
    matches = matches_of(linked(rows))
    for found in (
        elo.one_pass(matches, FEW),
        elo.over_orders(matches, elo.EloSettings(orders=20)).mean,
    ):
        assert found.sum() == pytest.approx(1000 * len(matches.models))


@settings(deadline=None, max_examples=20)
@given(rows_of)
def test_which_side_was_shown_first_changes_no_rating(rows: list[tuple[int, str, str, str]]) -> None:
    straight = linked(rows)
    swap = {"1": "2", "2": "1", "tie": "tie"}
    turned = [Rating(row.question_id, row.model_2, row.model_1, swap[row.outcome]) for row in straight]  # type: ignore[arg-type]
    assert elo.one_pass(matches_of(turned), FEW) == pytest.approx(elo.one_pass(matches_of(straight), FEW))


def test_start_and_scale_shift_and_stretch() -> None:
    matches = matches_of(tournament({"a": 1100, "b": 1000, "c": 900}, 10))
    plain = elo.over_orders(matches, elo.EloSettings(orders=50)).mean
    stretched = elo.over_orders(matches, elo.EloSettings(k=64, start=0, scale=800, orders=50)).mean
    assert stretched == pytest.approx((plain - 1000) * 2)


def test_blocks_and_seeds_decide_the_orders_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    matches = matches_of(tournament({"a": 1100, "b": 1000, "c": 900}, 10))
    first, again = (elo.over_orders(matches, FEW).mean for _ in range(2))
    assert (first == again).all()
    assert (first != elo.over_orders(matches, elo.EloSettings(orders=500, seed=1)).mean).all()
    monkeypatch.setattr(elo, "_BLOCK_ORDERS", 7)
    blocks = elo.over_orders(matches, FEW)
    assert np.abs(blocks.mean - first).max() < 8 * blocks.monte_carlo_error.max()


def test_the_order_average_ranks_as_bradley_terry_and_both_find_the_truth() -> None:
    truth = {"a": 1200.0, "b": 1100.0, "c": 1000.0, "d": 900.0, "e": 800.0}
    matches = matches_of(tournament(truth, 200))
    fitted = bradley_terry.fit(matches, start=1000, scale=400, samples=50, seed=0, level=0.95)
    assert fitted is not None
    averaged = elo.over_orders(matches, FEW).mean
    assert list(np.argsort(averaged)) == list(np.argsort(fitted.strength)) == [4, 3, 2, 1, 0]
    assert fitted.strength == pytest.approx(list(truth.values()), abs=40)
    assert averaged == pytest.approx(fitted.strength, abs=25)


def test_bradley_terry_by_hand() -> None:
    """3 of 4 won: odds of three to one, so 400 x log10(3) apart."""
    wins = np.array([[0.0, 3.0], [1.0, 0.0]])
    found = bradley_terry.strengths(wins, start=1000, scale=400)
    assert found is not None
    assert found[0] - found[1] == pytest.approx(400 * math.log10(3))
    assert bradley_terry.strengths(np.array([[0.0, 3.0], [0.0, 0.0]]), start=1000, scale=400) is None


def test_the_prompt_interval_is_wider_than_the_order_error_and_shrinks_with_questions() -> None:
    strengths = {"a": 1100.0, "b": 1000.0, "c": 900.0}
    widths = []
    for questions in (20, 320):
        matches = matches_of(tournament(strengths, questions))
        found = elo.bootstrap_interval(matches, elo.EloSettings(), samples=200, orders=20)
        widths.append(float((found.high - found.low).mean()))
    assert widths[0] > 2.5 * widths[1] > 10 * float(elo.over_orders(matches, FEW).monte_carlo_error.max())


def test_questions_with_unequal_numbers_of_matches_are_drawn_whole() -> None:
    rows = [Rating("1", "a", "b", "1")] * 30 + [Rating("2", "a", "b", "2")]
    found = elo.bootstrap_interval(matches_of(rows), elo.EloSettings(), samples=300, orders=5)
    assert found.low[0] < 1000 < found.high[0]  # a quarter of the draws hold question 2 alone
    assert found.low + found.high[::-1] == pytest.approx([2000, 2000], abs=1e-6)


def test_agreement_by_hand() -> None:
    rows = [
        Rating("1", "a", "b", "1"), Rating("1", "b", "a", "2"),  # agree on a
        Rating("2", "a", "b", "1"), Rating("2", "b", "a", "1"),  # the first both times
        Rating("3", "a", "b", "tie"), Rating("3", "b", "a", "tie"),
        Rating("4", "a", "b", "unparsed"), Rating("4", "b", "a", "2"),
    ]  # fmt: skip
    pair = agreement.pair_records(rows)[0]
    assert (pair.wins_1, pair.wins_2, pair.ties, pair.unparsed) == (4, 1, 2, 1)
    assert (pair.both_orders, pair.orders_agree, pair.win_rate_1) == (3, 2, 5 / 7)
    bias = agreement.order_bias(rows)
    assert (bias.first_wins, bias.second_wins, bias.both_decided, bias.contradict, bias.first_both_times) == (
        3,
        2,
        2,
        1,
        1,
    )
    assert bias.first_share == 0.6


def test_relative_scores_per_order_and_pooled() -> None:
    rows = [
        Rating("1", "ref", "m", "1", scores=(8, 4)), Rating("1", "m", "ref", "1", scores=(9, 6)),
        Rating("2", "ref", "m", "1", scores=(10, 5)), Rating("2", "m", "ref", "unparsed"),
    ]  # fmt: skip
    (found,) = ratio.relative_scores(rows, "ref")
    assert (found.reference_first, found.model_first) == (50.0, 150.0)
    assert found.pooled == pytest.approx(100 * 18 / 24)
    assert found.unscored == 1 and found.low <= found.pooled <= found.high


def csv_file(folder: Path, *rows: str, head: str = "question_id,model_1,model_2,outcome") -> str:
    path = folder / "ratings.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (("1,a,b,1", "2,a,b,won"), "ratings.csv:3: unknown outcome 'won'"),
        (("1,a,a,1",), "ratings.csv:2: 'a' is compared with itself"),
        (("1,a,b,1", "1,a,b,2"), "ratings.csv:3: a against b on question 1 was rated in"),
        (("1,a,b,1", "1,c,d,2"), "never compared with each other: (1) a, b; (2) c, d"),
        (("1,a,b,-1",), "no rating has an outcome"),
        (("1,a,,1",), "ratings.csv:2: no 'model_2' in this row"),
        ((), "no ratings in"),
    ],
)
def test_bad_ratings_are_named(command: Cli, tmp_path: Path, rows: tuple[str, ...], says: str) -> None:
    result = command("arena", "elo", csv_file(tmp_path, *rows))
    assert result.code == 10 and says in result.err


def test_wrong_columns_and_missing_files_are_named(command: Cli, tmp_path: Path) -> None:
    result = command("arena", "elo", csv_file(tmp_path, "1,a,b", head="question,left,right"))
    assert result.code == 10 and "no 'question_id' in this row, which has question, left, right" in result.err
    assert command("arena", "elo", str(tmp_path / "none.csv")).code == 4
    one = csv_file(tmp_path, "1,alpha,beta,1")
    assert "Did you mean 'alpha'" in command("arena", "elo", one, "--only", "alpa").err
    assert "hold no scores" in command("arena", "ratio", one, "-r", "alpha").err
    assert "nothing was compared with 'alpa'" in command("arena", "ratio", one, "-r", "alpa").err


def test_a_fixed_order_is_one_pass(command: Cli, tmp_path: Path) -> None:
    result = command("arena", "elo", csv_file(tmp_path, "1,a,b,1", "2,b,c,tie"), "--fixed-order", "--json")
    standings = json.loads(result.out)["standings"]
    assert [(row["model"], round(row["elo"], 2)) for row in standings] == [("a", 1016.0), ("c", 999.26), ("b", 984.74)]
    assert standings[0]["monte_carlo_error"] is None


def test_files_of_the_original_repository(command: Cli, tmp_path: Path) -> None:
    """Models by file name, -1 as unparsed and read again on request, and pairs of scores."""
    rows = [
        {
            "review_id": "x",
            "question_id": 1,
            "answer1_id": "i",
            "answer2_id": "j",
            "reviewer_id": 1,
            "text": "..\n1",
            "score": 1,
        },
        {
            "review_id": "y",
            "question_id": 2,
            "answer1_id": "k",
            "answer2_id": "l",
            "text": "Best answer: 2",
            "score": -1,
        },
    ]
    path = tmp_path / "answer-bard-vs-7b-guanaco-topp0.9-gpt-4-reviewer-threeclass.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(command("arena", "elo", str(path), "--orders", "10", "--json").out)
    assert [row["model"] for row in found["standings"]] == ["answer-bard", "7b-guanaco-topp0.9"]
    assert (found["matches"], found["unparsed"]) == (1, 1)
    again = json.loads(command("arena", "elo", str(path), "--orders", "10", "--reparse", "--json").out)
    assert (again["matches"], again["unparsed"]) == (2, 0)
    assert again["standings"][0]["losses"] == again["standings"][1]["losses"] == 1


def test_answers_tell_whose_they_are_when_a_file_name_is_backwards(command: Cli, tmp_path: Path) -> None:
    answers = tmp_path / "right.jsonl"
    answers.write_text('{"question_id": 1, "answer_id": "mine", "text": "good"}\n')
    rows = {"question_id": 1, "answer1_id": "mine", "answer2_id": "other", "score": [9, 3]}
    ratings_file = tmp_path / "left-vs-right-gpt-4-reviewer.jsonl"
    ratings_file.write_text(json.dumps(rows) + "\n")
    words = ("arena", "ratio", str(ratings_file), "-r", "left", "--json")
    assert json.loads(command(*words).out)["scores"][0]["pooled"] == pytest.approx(100 / 3)
    told = json.loads(command(*words, "--answers", f"right={answers}").out)["scores"][0]
    assert (told["pooled"], told["reference_first"], told["model_first"]) == (300.0, None, 300.0)


def test_files_at_odds_about_their_answers_are_named(command: Cli, tmp_path: Path) -> None:
    """The second file shows the same two answers in the same order, and yet its name has them swapped."""
    rows = [
        {"question_id": n, "answer1_id": f"left{n}", "answer2_id": f"right{n}", "reviewer_id": n, "score": 1}
        for n in range(3)
    ]
    for name in ("left-vs-right", "right-vs-left"):
        path = tmp_path / f"{name}-gpt-4-reviewer-threeclass.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = sorted(map(str, tmp_path.glob("*.jsonl")))
    result = command("arena", "elo", *files, "--orders", "10")
    assert "right-vs-left-gpt-4-reviewer-threeclass.jsonl: gives answers to other models" in result.err
    assert "warning" not in command("arena", "elo", files[0], "--orders", "10").err


def test_ratings_written_as_csv_read_back_the_same(command: Cli, tmp_path: Path) -> None:
    rows = [*tournament({"a": 1000, "b, with a comma": 1000}, 3), Rating("q", "a", "c", "unparsed", "me")]
    path = tmp_path / "r.csv"
    path.write_text(ratings.to_csv(rows))
    assert command("arena", "csv", str(path)).out == path.read_text()
    kept = [(row.question_id, row.model_1, row.model_2, row.outcome, row.annotator) for row in ratings.read([path])]
    assert kept == [(row.question_id, row.model_1, row.model_2, row.outcome, row.annotator) for row in rows]
