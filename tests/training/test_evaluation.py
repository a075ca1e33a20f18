"""Measuring a run beside its base: the numbers are those of a plain computation, and nothing is done twice."""

import json
import math
from pathlib import Path

import pytest
import torch
from chat_material import make_run

from qlora_tui.chat.protocol import Sampling
from qlora_tui.engine.evaluation import answers, loss, mmlu, quantization_study
from qlora_tui.engine.evaluation.pair import Pair, load
from qlora_tui.errors import DataError
from qlora_tui.evaluation import row_log
from qlora_tui.evaluation.predictions import answers_file
from qlora_tui.evaluation.questions import Question
from qlora_tui.evaluation.tasks import AnswersTask, GenerateTask, LossTask, MmluTask
from qlora_tui.runs import store
from qlora_tui.starter import HELDOUT_DATA


def silent(*_: object, **__: object) -> None:
    pass


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QLORA_TUI_HOME", str(tmp_path_factory.mktemp("home")))
        run = make_run("bird", "model.device=cpu")
        return load(run, LossTask(name="loss"), silent)


def test_loss_is_that_of_plain_transformers(pair: Pair) -> None:
    config = make_run("other").load_config()
    task = LossTask(name="loss", data=str(HELDOUT_DATA), limit=7, batch_rows=3)
    rows = loss.rows_of(config, pair.tokenizer, task)
    found = loss.measure(pair, rows, task, silent)
    for side in ("base", "adapter"):
        nats, tokens = 0.0, 0
        with pair.side(side) as model:
            for ids, labels in rows:
                here = sum(label != -100 for label in labels[1:])
                mean = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
                nats, tokens = nats + float(mean) * here, tokens + here
        assert found[side]["trained_tokens"] == tokens
        assert found[side]["trained_loss"] == pytest.approx(nats / tokens, abs=1e-3)
        assert found[side]["trained_perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-3)
        assert found[side]["all_tokens"] > tokens
    assert found["base"] != found["adapter"]


def test_a_run_without_held_out_rows_says_what_to_do(pair: Pair) -> None:
    with pytest.raises(DataError, match="no held-out rows") as raised:
        loss.rows_of(make_run("other").load_config(), pair.tokenizer, LossTask(name="loss"))
    assert "--data" in raised.value.hint


def test_the_letter_is_the_likeliest_continuation_in_any_batch(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "mmlu.jsonl"
    lines = [
        {"subject": subject, "input": f"{text}\nA. red\nB. blue\nC. old\nD. new\nAnswer:", "output": letter}
        for subject, text, letter in (
            ("colours", "What is the colour of the lamp?", "A"), ("colours", "Sky?", "B"), ("ages", "How old?", "C"),
        )
    ]  # fmt: skip
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    questions = mmlu.read(file, None)
    together = mmlu.measure(pair, questions, MmluTask(name="mmlu", file=str(file), batch_rows=3), silent)
    alone = mmlu.measure(pair, questions, MmluTask(name="mmlu", file=str(file), batch_rows=1), silent)
    assert together == alone
    with pair.side("adapter") as model:
        for question, row in zip(questions, together["per_row"], strict=True):
            encoded = mmlu._encode(pair.tokenizer, question, 2048)
            assert row["adapter"] == mmlu._likeliest(model, encoded, pair.tokenizer.pad_token_id)


def test_macro_is_over_subjects_and_micro_over_questions() -> None:
    questions = [mmlu.Question("a", "", "A"), mmlu.Question("a", "", "A"), mmlu.Question("b", "", "B")]
    found = mmlu.accuracy(questions, ["A", "C", "B"])
    assert found["macro_accuracy"] == 0.75
    assert found["micro_accuracy"] == pytest.approx(2 / 3)
    assert found["subjects"] == {"a": 0.5, "b": 1.0}


@pytest.mark.parametrize(
    ("row", "said"),
    [({"subject": "a", "input": "x"}, "no multiple-choice row"),
     ({"subject": "a", "input": "x", "output": "E"}, "'E' is none of")],
)  # fmt: skip
def test_a_row_that_is_no_question_is_named(tmp_path: Path, row: dict[str, str], said: str) -> None:
    file = tmp_path / "mmlu.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=said) as raised:
        mmlu.read(file, None)
    assert "mmlu.jsonl:1" in raised.value.message


def test_answers_are_scored_for_both_sides(pair: Pair) -> None:
    rows = answers.read(str(HELDOUT_DATA), 3)
    found = answers.measure(pair, rows, AnswersTask(name="qa", data=str(HELDOUT_DATA), max_tokens=6), silent)
    assert found["questions"] == 3
    for side in ("base", "adapter"):
        marks = [row[side]["exact_match"] for row in found["per_row"]]
        assert found[side]["exact_match"] == sum(marks) / 3


def test_an_interrupted_generation_goes_on_with_the_same_answers(pair: Pair) -> None:
    run = make_run("asked")
    questions = [Question(str(number), f"Question {number}?") for number in range(4)]
    task = GenerateTask(
        name="four", questions="", sampling=Sampling(max_tokens=5), seed=3, sides=("adapter",), batch_rows=2
    )
    answers.generate_all(run, pair, questions, task, silent)
    path = answers_file(run, "four", "adapter")
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]) + b'{"torn')
    answers.generate_all(run, pair, questions, task, silent)
    assert path.read_bytes() == whole
    with row_log.opened(path) as log:
        assert [row["question_id"] for row in log.rows] == [0, 1, 2, 3]


def test_the_command_names_a_bad_side(capsys: pytest.CaptureFixture[str]) -> None:
    from qlora_tui.cli import evaluate
    from qlora_tui.errors import UsageError

    store.create("one", make_run("other").load_config(), {})
    with pytest.raises(UsageError, match="bsae"):
        evaluate.loss("one", side="bsae")


def test_nf4_is_the_best_of_the_four_bit_types_and_double_quantization_is_free() -> None:
    found = quantization_study.study("starter", None, silent)
    errors = {one["scheme"]: one for one in found["schemes"]}
    for key in ("relative_error", "normal_relative_error"):
        nf4 = errors["nf4"][key]
        assert nf4 < errors["int4"][key]
        assert nf4 < errors["fp4"][key]
        assert errors["nf4, double quantization"][key] == pytest.approx(nf4, rel=0.01)
        assert errors["8-bit"][key] < nf4 / 10
    saved = errors["nf4"]["bits_per_parameter"] - errors["nf4, double quantization"]["bits_per_parameter"]
    assert saved == pytest.approx(0.373, abs=1e-3)  # QLoRA, section 3: from 0.5 to 0.127 bits
