"""Scores of an answer against the expected one, by hand."""

import pytest

from qlora_tui.evaluation.text_scores import exact_match, scores, token_f1


@pytest.mark.parametrize(
    ("answer", "expected", "exact", "f1"),
    [
        (" The lamp is red.\n", "The lamp is red.", 1, 1),
        ("the LAMP is red", "A lamp is red.", 0, 1),
        ("The lamp is red and old.", "The lamp is red.", 0, 2 * 3 / (5 + 3)),
        ("Blue.", "The lamp is red.", 0, 0),
        ("", "The lamp is red.", 0, 0),
        ("", "", 1, 1),
        ("the", "A", 0, 1),
    ],
)
def test_exact_match_and_token_f1(answer: str, expected: str, exact: float, f1: float) -> None:
    """F1 as SQuAD counts it: words without case, punctuation and articles."""
    assert exact_match(answer, expected) == exact
    assert token_f1(answer, expected) == pytest.approx(f1)
    assert {"exact_match", "token_f1"} <= scores(answer, expected).keys()
