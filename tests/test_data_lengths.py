"""What happens to long rows, and that every row and token that is lost is counted."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from data_material import ask, byte_level_tokenizer, columns, starter_tokenizer

from qlora_tui.config.training import TrainingSpec
from qlora_tui.data.lengths import Limits, fit
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.report import refuse_untrainable, warnings
from qlora_tui.data.row_encoder import RowEncoder, Rules
from qlora_tui.data.statistics import epochs, histogram
from qlora_tui.data.tally import Tally, percentiles
from qlora_tui.data.templates import resolve
from qlora_tui.errors import DataError

BOS, EOS = 1, 2
PROMPT, ANSWER = [BOS, 10, 11, 12], [20, 21, 22, 23, EOS]
IDS = PROMPT + ANSWER
LABELS = [-100] * 4 + ANSWER


def cut(**limits: Any) -> Any:
    return fit(IDS, LABELS, answer_at=4, opening=BOS, limits=Limits(**limits))


def encoder(limits: Limits, *, template: str = "plain", tokenizer: Any = None, **rules: Any) -> RowEncoder:
    tokenizer = tokenizer or starter_tokenizer()
    return Recipe(tokenizer, resolve(template, tokenizer), Rules(limits, **rules)).encoder()


def test_a_row_that_fits_is_left_alone() -> None:
    fitted = cut(max_tokens=9)
    assert fitted.pieces == ((IDS, LABELS),)
    assert (fitted.cut_tokens, fitted.unended) == (0, False)


def test_cut_at_the_right_the_answer_loses_its_end_and_says_so() -> None:
    fitted = cut(max_tokens=7)
    assert fitted.pieces == ((IDS[:7], LABELS[:7]),)
    assert (fitted.cut_tokens, fitted.unended) == (2, True)


def test_cut_at_the_left_the_opening_and_the_end_stay() -> None:
    fitted = cut(max_tokens=6, side="left")
    assert fitted.pieces == (([BOS, *ANSWER], [-100, *ANSWER]),)
    assert (fitted.cut_tokens, fitted.unended) == (3, False)


def test_prompt_and_answer_are_cut_alone_as_in_qlora_py() -> None:
    fitted = cut(max_tokens=100, source_max_tokens=2, target_max_tokens=3)
    assert fitted.pieces == (([BOS, 10, 20, 21, 22], [-100, -100, 20, 21, 22]),)
    assert (fitted.cut_tokens, fitted.unended) == (4, True)
    fitted = cut(max_tokens=100, source_max_tokens=2)
    assert fitted.pieces == (([BOS, 10, *ANSWER], [-100, -100, *ANSWER]),)
    assert (fitted.cut_tokens, fitted.unended) == (2, False)


def test_the_original_guanaco_limits_keep_only_the_opening_of_the_prompt() -> None:
    """The paper's runs: source 16, target 512, with the whole text as the target."""
    tokenizer = byte_level_tokenizer(markers=False)
    made = encoder(Limits(1024, source_max_tokens=16, target_max_tokens=40), tokenizer=tokenizer)
    ids, labels = made.encode(columns(texts=["### Human: Hi### Assistant: " + "word " * 60]))[0].pieces[0]
    assert ids[0] == tokenizer.bos_token_id
    assert (len(ids), labels) == (41, [-100, *ids[1:]])


def test_drop_drops_the_row_whole() -> None:
    fitted = cut(max_tokens=8, policy="drop")
    assert (fitted.pieces, fitted.cut_tokens) == ((), 9)


def test_split_keeps_every_token_in_pieces() -> None:
    fitted = cut(max_tokens=4, policy="split")
    assert [ids for ids, _ in fitted.pieces] == [IDS[:4], IDS[4:8], IDS[8:]]
    assert [labels for _, labels in fitted.pieces] == [[-100] * 4, [-100, 21, 22, 23], [-100]]
    assert (fitted.cut_tokens, fitted.unended) == (0, False)


def test_counts_of_a_mixed_set_add_up() -> None:
    made = encoder(Limits(12))
    rows = [ask("Hi ", "Yes"), ask("Hi ", "word " * 30), ask("word " * 30, "Yes"), [{"role": "user", "content": "Hi"}]]
    made(columns(rows))
    tally = made.tally
    assert (tally.rows, tally.kept_rows) == (4, 2)
    assert (tally.truncated_rows, tally.unended_rows) == (1, 1)
    assert (tally.cut_away_rows, tally.no_answer_rows) == (1, 1)
    assert tally.tokens == sum(length * count for length, count in tally.lengths.items())
    full = made.encode(columns(rows))
    assert tally.cut_tokens == full[1].full_tokens - 12
    said = " ".join(warnings(tally))
    assert "2 of 4 rows dropped" in said
    assert "(1 without an answer, 1 with the answer cut away)" in said
    assert "1 of them without the end of the last answer" in said


def test_rows_that_the_template_refuses_have_no_length() -> None:
    tokenizer = copy.deepcopy(starter_tokenizer())
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.content == 'no' %}{{ raise_exception('never') }}{% endif %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    )
    made = encoder(Limits(64), template="auto", tokenizer=tokenizer, skip_bad_rows=True)
    made(columns([ask("no", "b"), ask("yes", "b"), ask("yes", "b")]))
    assert (made.tally.refused_rows, made.tally.rows) == (1, 3)
    assert made.tally.full_lengths == made.tally.lengths
    assert percentiles(made.tally.full_lengths)["p5"] > 0


@pytest.mark.parametrize("loss_on", ["responses", "last-response"])
def test_a_set_of_empty_answers_is_refused_and_a_few_of_them_are_told(loss_on: str) -> None:
    """Their end token is trained, so nothing else catches that the answers are in another column."""
    empty, said = [ask("Hi", " \n"), ask("Ho", "")], [ask("Hi", "Yes")]
    made = encoder(Limits(64), loss_on=loss_on)
    made(columns(empty))
    with pytest.raises(DataError, match="every answer of 2 rows is empty") as refused:
        refuse_untrainable(made.tally, made.template, made.rules)
    assert "data.columns" in refused.value.hint
    made(columns(said))
    refuse_untrainable(made.tally, made.template, made.rules)
    assert "2 of 3 rows with nothing but empty answers" in " ".join(warnings(made.tally))


def test_empty_answers_are_no_reason_to_refuse_when_prompts_are_trained_too() -> None:
    made = encoder(Limits(64), loss_on="everything")
    made(columns([ask("Hi", "")]))
    refuse_untrainable(made.tally, made.template, made.rules)


def test_split_pieces_without_a_trained_token_are_left_out_and_counted() -> None:
    made = encoder(Limits(8, policy="split"))
    row = made.encode(columns([ask("word " * 40, "yes " * 10)]))[0]
    assert len(row.pieces) > 1
    assert all(any(label != -100 for label in labels) for _, labels in row.pieces)
    assert sum(len(ids) for ids, _ in row.pieces) + row.cut_tokens == row.full_tokens


def test_split_rows_and_what_is_lost_of_them_are_told_as_such() -> None:
    made = encoder(Limits(8, policy="split"))
    out = made(columns([ask("Hi", "Yes"), ask("Hi", "yes " * 20), ask("word " * 40, "yes " * 10)]))
    pieces = len(out["length"]) - 1
    told = warnings(made.tally)
    assert f"2 of 3 rows split into {pieces} pieces" in told
    (lost,) = (one for one in told if "lost" in one)
    assert lost.startswith(f"1 of 3 rows lost {made.tally.cut_tokens} tokens")
    assert not any("cut by" in one for one in told)


@pytest.mark.parametrize(
    ("rows", "limits", "reason", "fix"),
    [
        ([ask("word " * 30, "Yes")], Limits(12), "cuts the answers away", "max_length|truncation_side"),
        ([[{"role": "user", "content": "Hi"}]], Limits(12), "no answer to learn", "data.columns"),
        ([ask("word " * 30, "Yes")], Limits(12, policy="drop"), "longer than", "length_policy"),
    ],
    ids=["cut away", "no answer", "too long"],
)
def test_a_set_in_which_nothing_would_be_trained_is_refused(rows: Any, limits: Limits, reason: str, fix: str) -> None:
    made = encoder(limits)
    made(columns(rows * 3))
    with pytest.raises(DataError, match=reason) as refused:
        refuse_untrainable(made.tally, made.template, made.rules)
    assert any(word in refused.value.hint for word in fix.split("|"))


def test_percentiles_are_lengths_of_real_rows() -> None:
    lengths = Counter({10: 98, 50: 1, 900: 1})
    assert percentiles(lengths) == {"p5": 10, "p25": 10, "p50": 10, "p75": 10, "p95": 10, "p99": 50, "p100": 900}
    assert percentiles(Counter()) == {}


def test_histogram_bins_are_round_and_hold_every_row() -> None:
    bins = histogram(Counter({3: 5, 17: 2, 119: 1}))
    assert [(one.from_tokens, one.rows) for one in bins if one.rows] == [(0, 5), (10, 2), (110, 1)]
    assert len(bins) == 12


def test_one_huge_row_does_not_hide_how_long_the_others_are() -> None:
    bins = histogram(Counter({**dict.fromkeys(range(40, 240), 3), 5043: 1}))
    assert sum(one.rows for one in bins) == 601
    assert all(after.from_tokens == before.to_tokens + 1 for before, after in pairwise(bins))
    assert sum(one.rows > 0 for one in bins) >= 8
    assert (bins[-1].to_tokens, bins[-1].rows) == (5043, 1)


def test_a_tally_of_an_older_form_is_not_taken_for_one_that_counted_nothing() -> None:
    stored = Tally().to_json()
    del stored["empty_rows"]
    with pytest.raises(ValueError, match="another form"):
        Tally.from_json(stored)


def test_tallies_survive_being_stored() -> None:
    import json

    made = encoder(Limits(12))
    made(columns([ask("Hi", "Yes"), ask("Hi", "word " * 30)]))
    assert Tally.from_json(json.loads(json.dumps(made.tally.to_json()))) == made.tally


def test_steps_are_counted_as_the_trainer_does() -> None:
    tally = Tally(rows=985, kept_rows=985, tokens=26_387)
    assert epochs(tally, TrainingSpec()).steps_per_epoch == 62
    assert epochs(tally, TrainingSpec(micro_batch_size=4, gradient_accumulation_steps=4)).steps_per_epoch == 62
    assert epochs(tally, TrainingSpec(epochs=2.5)).total_steps == 155
    assert epochs(tally, TrainingSpec(max_steps=7)).total_steps == 7
    packed = epochs(tally, TrainingSpec(packing=True, max_length_tokens=512))
    assert (packed.packed_rows, packed.steps_per_epoch) == (52, 4)


def test_rows_of_like_length_are_told_apart() -> None:
    bins = histogram(Counter({1000: 2, 1003: 5}))
    assert [(one.from_tokens, one.rows) for one in bins] == [(1000, 2), (1001, 0), (1002, 0), (1003, 5)]
