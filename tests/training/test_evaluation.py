"""Measuring a run beside its base: the numbers are those of a plain computation, and nothing is done twice."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_material import make_run
from command_line import Cli, command
from transformers import LlamaForCausalLM

from qlora_tui.arena import judge_local
from qlora_tui.chat.protocol import Sampling
from qlora_tui.config.data import SourceSpec
from qlora_tui.data.rows import Turn
from qlora_tui.data.spans import Conversation
from qlora_tui.engine import generate
from qlora_tui.engine.evaluation import answers, loss, mmlu, partial, quantization_study
from qlora_tui.engine.evaluation.__main__ import Teller, run_task
from qlora_tui.engine.evaluation.pair import Pair, load
from qlora_tui.errors import DataError, ExitCode, ModelError, RunConflictError
from qlora_tui.evaluation import results, row_log
from qlora_tui.evaluation.measured import measured
from qlora_tui.evaluation.predictions import answers_file, predictions_file, read_answers
from qlora_tui.evaluation.questions import Question, questions_of
from qlora_tui.evaluation.tasks import AnswersTask, GenerateTask, LossTask, MmluTask
from qlora_tui.runs.store import RunFolder
from qlora_tui.starter import HELDOUT_DATA, MODEL_DIR

__all__ = ["command"]


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
    rows = answers.read(SourceSpec(source=str(HELDOUT_DATA)), 3)
    found = answers.measure(pair, rows, AnswersTask(name="qa", data=str(HELDOUT_DATA), max_tokens=6), silent)
    assert found["questions"] == 3
    for side in ("base", "adapter"):
        marks = [row[side]["exact_match"] for row in found["per_row"]]
        assert found[side]["exact_match"] == sum(marks) / 3


def test_a_question_is_asked_with_what_it_is_about(tmp_path: Path) -> None:
    file = tmp_path / "alpaca.jsonl"
    file.write_text('{"instruction": "Add.", "input": "1 and 2", "output": "3"}\n' * 2)
    asked = Conversation((Turn(role="user", content="Add.", context="1 and 2"),))
    assert answers.read(SourceSpec(source=str(file)), None) == [answers.Expected(asked, "3")] * 2
    assert answers.Expected(asked, "3").question == "Add.\n\n1 and 2"


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampling": Sampling(max_tokens=5, temperature=0)}, "temperature 0.7, now 0.0"),
        ({"seed": 4}, "seed 3, now 4"),
        ({"checkpoint": 500}, "checkpoint none, now 500"),
    ],
)
def test_answers_made_with_other_settings_are_not_taken_for_new_ones(
    pair: Pair, change: dict[str, Any], said: str
) -> None:
    run = make_run("asked", checkpoint=500)
    questions = [Question(str(number), f"Question {number}?") for number in range(2)]
    task = GenerateTask(name="two", questions="", sampling=Sampling(max_tokens=5), seed=3, batch_rows=2)
    answers.generate_all(run, pair, questions[:1], task, silent)
    files = {path: path.read_bytes() for path in (run.path / "eval" / "answers").iterdir()}
    with pytest.raises(RunConflictError, match=said) as raised:
        answers.generate_all(run, pair, questions, task.model_copy(update=change), silent)
    assert "--name" in raised.value.hint
    assert {path: path.read_bytes() for path in (run.path / "eval" / "answers").iterdir()} == files
    other = answers.generate_all(run, pair, questions, task.model_copy(update={**change, "name": "other"}), silent)
    assert len(Path(other["files"]["adapter"]).read_bytes().splitlines()) == 2
    more = answers.generate_all(run, pair, questions, task.model_copy(update={"batch_rows": 1}), silent)
    assert len(Path(more["files"]["adapter"]).read_bytes().splitlines()) == 2


def test_answers_of_an_adapter_that_trained_on_or_to_other_questions_are_not_taken_for_new_ones(pair: Pair) -> None:
    run = make_run("asked")
    task = GenerateTask(name="one", questions="", sampling=Sampling(max_tokens=2), sides=("adapter", "base"))
    answers.generate_all(run, pair, [Question("1", "Who?")], task, silent)
    with pytest.raises(RunConflictError, match=r"question 1 'Who\?', now 'What\?'"):
        answers.generate_all(run, pair, [Question("1", "What?")], task, silent)
    weights = run.adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes())
    with pytest.raises(RunConflictError, match="other weights"):
        answers.check_kept(run, ("base", "adapter"), [Question("1", "Who?")], task)
    answers.check_kept(run, ("base",), [Question("1", "Who?")], task)


def test_a_conflict_with_earlier_answers_is_said_before_the_model_is_loaded(pair: Pair, tmp_path: Path) -> None:
    run = make_run("asked")
    file = tmp_path / "q.txt"
    file.write_text("Who?\n")
    task = GenerateTask(name="q", questions=str(file), sampling=Sampling(max_tokens=2), sides=("adapter",))
    answers.generate_all(run, pair, questions_of(task.source, None), task, silent)
    teller = Teller(run, "q")
    with pytest.raises(RunConflictError, match="seed 0, now 1"):
        run_task(run, task.model_copy(update={"seed": 1}), teller, lambda download: False)
    assert "loading" not in (run.path / "eval" / "events.jsonl").read_text()


def test_a_base_model_without_a_run_says_what_the_base_of_a_run_says(pair: Pair) -> None:
    from qlora_tui.engine import chat_model

    model = judge_local.of_model(judge_local.config_of("starter"), "cpu", 8, allow_download=False)
    run = model.choice.run
    alone = chat_model.load(run, checkpoint=None, device="cpu", on_stage=str, on_notice=str, base_only=True)
    asked = [Conversation([Turn(role="user", content="Where does Anna live?")])]
    assert alone.ready.sides == ("base",)
    with pair.side("base") as base:
        expected = list(generate.answer(base, pair.prompts, asked, max_tokens=8))
    assert list(generate.answer(alone.model, alone.prompts, asked, max_tokens=8)) == expected


def test_a_base_model_without_a_chat_template_cannot_judge(tmp_path: Path) -> None:
    from qlora_tui.engine import chat_model

    folder = tmp_path / "silent"
    shutil.copytree(MODEL_DIR, folder)
    (folder / "chat_template.jinja").unlink()
    model = judge_local.of_model(judge_local.config_of(str(folder)), "cpu", 8, allow_download=False)
    with pytest.raises(ModelError, match="has no chat template"):
        chat_model.load(model.choice.run, checkpoint=None, device="cpu", on_stage=str, on_notice=str, base_only=True)


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


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("kind", ["loss", "answers", "mmlu"])
def test_a_measurement_that_was_ended_goes_on_where_it_was(pair: Pair, tmp_path: Path, kind: str) -> None:
    run = make_run("measured")
    file = tmp_path / "mmlu.jsonl"
    choices = "\nA. red\nB. blue\nC. old\nD. new\nAnswer:"
    file.write_text(
        "".join(json.dumps({"subject": "s", "input": f"{n}?{choices}", "output": "A"}) + "\n" for n in range(7))
    )
    tasks: dict[str, Any] = {
        "loss": (loss, LossTask(name="x", data=str(HELDOUT_DATA), limit=7, batch_rows=2)),
        "answers": (answers, AnswersTask(name="x", data=str(HELDOUT_DATA), limit=7, batch_rows=2, max_tokens=4)),
        "mmlu": (mmlu, MmluTask(name="x", file=str(file), batch_rows=2)),
    }
    module, task = tasks[kind]
    rows = {
        "loss": lambda: loss.rows_of(run.load_config(), pair.tokenizer, task),
        "answers": lambda: answers.read(task.source, 7),
        "mmlu": lambda: mmlu.read(file, None),
    }[kind]()  # type: ignore[no-untyped-call]
    whole = module.measure(pair, rows, task, silent)
    told: list[tuple[str, int, int]] = []

    def until_the_tenth(*progress: Any) -> None:
        told.append(progress)
        if len(told) == 10:
            raise Interrupted

    with pytest.raises(Interrupted):
        module.measure(pair, rows, task, until_the_tenth, partial.on_disk(run, task, rows))
    module.measure(pair, rows[:3], task, silent, partial.on_disk(run, task, rows[:3]))
    told.clear()
    again = module.measure(pair, rows, task, lambda *progress: told.append(progress), partial.on_disk(run, task, rows))
    assert told == [("adapter", number, 7) for number in (4, 5, 6, 7)]
    assert again == whole
    partial.remove(run, "x")
    assert not list((run.path / "eval" / "partial").iterdir())


def test_answers_are_kept_in_the_format_of_predictions_too(pair: Pair) -> None:
    run = make_run("predicting")
    task = GenerateTask(name="one", questions="", sampling=Sampling(max_tokens=4), sides=("base",))
    answers.generate_all(run, pair, [Question("7", "Where does Anna live?", "knowledge")], task, silent)
    (row,) = [json.loads(line) for line in predictions_file(run, "one", "base").read_text().splitlines()]
    (answer,) = [json.loads(line) for line in answers_file(run, "one", "base").read_text().splitlines()]
    assert (row["question_id"], row["text"], row["category"]) == (7, "Where does Anna live?", "knowledge")
    assert row["prediction"] == answer["generation"]
    assert row["prediction_with_input"] == answer["prompt"] + answer["generation"]
    assert read_answers(predictions_file(run, "one", "base"))["7"].text == answer["generation"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (['{"question_id": "a", "text": "Why?", "category": "math"}'], [Question("a", "Why?", "math")]),
        (['{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}'],
         [Question("1", "Why?")]),
        (['{"instruction": "Add.", "input": "1 and 2", "output": "3"}'] * 2,
         [Question(number, "Add.\n\n1 and 2") for number in "12"]),
        (['{"text": "### Human: Why?### Assistant: So."}'], [Question("1", "Why?")]),
    ],
)  # fmt: skip
def test_questions_come_from_question_files_and_from_any_dataset(
    tmp_path: Path, rows: list[str], expected: list[Question]
) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text("".join(row + "\n" for row in rows))
    found = questions_of(SourceSpec(source=str(file)), None)
    assert [replace(one, turns=()) for one in found] == expected


def test_dataset_question_keeps_system_turn_and_input(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text('{"instruction": "Add.", "input": "1 and 2", "output": "3", "system": "Be brief."}\n' * 2)
    (first, _) = questions_of(SourceSpec(source=str(file)), None)
    assert first.conversation == (
        Turn(role="system", content="Be brief."),
        Turn(role="user", content="Add.", context="1 and 2"),
    )


def test_a_dataset_that_is_not_here_is_named_with_its_way_before_anything_is_loaded(command: Cli) -> None:
    make_run("asking")
    result = command("eval", "generate", "asking", "nobody/questions")
    assert result.code != 0 and "nobody/questions" in result.err
    assert "importing PyTorch" not in result.err
    result = command("eval", "answers", "asking", "no-such-file.jsonl")
    assert result.code == ExitCode.NOT_FOUND and "no file or folder" in result.err


def test_an_unknown_side_is_named(command: Cli) -> None:
    make_run("sided")
    result = command("eval", "loss", "sided", "--side", "bsae")
    assert result.code == ExitCode.USAGE and "'bsae' is not one of" in result.err


def test_nothing_is_generated_beyond_the_context(pair: Pair) -> None:
    run = make_run("long")
    task = GenerateTask(name="long", questions="", sampling=Sampling(max_tokens=64, temperature=0), sides=("base",))
    asked = Question("7", "full " * (pair.context_max_tokens - 40))
    prompt = len(pair.prompts.ids(asked.conversation))
    assert pair.context_max_tokens - 64 < prompt < pair.context_max_tokens
    answers.generate_all(run, pair, [asked], task, silent)
    (answer,) = [json.loads(line) for line in answers_file(run, "long", "base").read_text().splitlines()]
    read_back = len(pair.tokenizer.encode(answer["generation"]))  # may be a token more than was written
    assert prompt + read_back <= pair.context_max_tokens + 1
    with pytest.raises(DataError, match=r"question 8 takes \d+ tokens, and the model's context has 512"):
        answers.generate_all(run, pair, [Question("8", "full " * 600)], task, silent)


def test_long_multiple_choice_prompts_keep_their_end_within_the_context(pair: Pair, tmp_path: Path) -> None:
    seen = []
    with pair.side("base") as model:
        hook = model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        question = mmlu.Question("s", "full " * 600 + "\nA. red\nB. blue\nC. old\nD. new\nAnswer:", "A")
        list(mmlu.letters(model, pair.tokenizer, [question], 1))
        hook.remove()
    assert 500 < max(seen) <= pair.context_max_tokens


QUESTIONS = [
    mmlu.Question("s", f"{'full ' * words}lamp?\nA. red\nB. blue\nC. old\nD. new\nAnswer:", "A")
    for words in (1, 30, 7, 30)
]


def test_multiple_choice_computes_the_logits_of_the_last_places_alone(pair: Pair) -> None:
    """Those of every place of a batch would take gigabytes with a large vocabulary."""
    heads: list[torch.Size] = []
    with pair.side("adapter") as model:
        hook = model.get_output_embeddings().register_forward_hook(lambda *call: heads.append(call[2].shape))
        list(mmlu.letters(model, pair.tokenizer, QUESTIONS, batch_rows=4))
        mmlu._likeliest(model, mmlu._encode(pair.tokenizer, QUESTIONS[0], 2048), pair.tokenizer.pad_token_id)
        hook.remove()
    assert [(rows, places) for rows, places, _ in heads] == [(4, 3), (4, 1)]


def test_a_model_that_computes_every_logit_chooses_the_same_letters(pair: Pair) -> None:
    class EveryLogit(LlamaForCausalLM):
        def forward(self, input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
            return super().forward(input_ids, attention_mask, use_cache=use_cache)

    rows = [mmlu._encode(pair.tokenizer, question, 2048).prompt for question in QUESTIONS]
    ends = [range(len(row) - 2, len(row)) for row in rows]
    found = []
    for kind in (LlamaForCausalLM, EveryLogit):
        model = kind.from_pretrained(MODEL_DIR, dtype=torch.float32)
        with torch.inference_mode():
            logits = torch.stack(mmlu._logits(model, rows, ends, pair.tokenizer.pad_token_id))
            found.append((list(mmlu.letters(model, pair.tokenizer, QUESTIONS, batch_rows=4)), logits))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1])


def kept(pair: Pair, monkeypatch: pytest.MonkeyPatch, weight: str, value: float) -> tuple[RunFolder, dict[str, Any]]:
    """The loss of a run whose weights were destroyed, measured twice from the rows on disk, and its result file."""
    run = make_run("diverged")
    task = LossTask(name="loss", data=str(HELDOUT_DATA), limit=4, batch_rows=2)
    rows = loss.rows_of(run.load_config(), pair.tokenizer, task)
    tensor = next(tensor for name, tensor in pair.model.named_parameters() if weight in name)
    monkeypatch.setattr(tensor, "data", torch.full_like(tensor, value))
    for _ in range(2):
        found = loss.measure(pair, rows, task, silent, partial.on_disk(run, task, rows))
    monkeypatch.undo()
    return run, json.loads(results.write(run, task.name, found).read_text())


def test_an_adapter_of_no_numbers_has_no_loss_and_its_base_keeps_its_own(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = kept(pair, monkeypatch, "lora_B", math.nan)
    assert found["adapter"]["trained_loss"] is None and found["adapter"]["all_perplexity"] is None
    assert found["adapter"]["trained_tokens"] == found["base"]["trained_tokens"] > 0
    assert found["base"]["trained_loss"] > 0
    metrics = {one.side: one.metrics for one in measured(run)}
    assert "trained_loss" in metrics["base"] and "trained_loss" not in metrics["adapter"]


def test_a_model_that_diverged_cannot_be_sampled_from(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("diverged")
    norm = next(tensor for name, tensor in pair.model.named_parameters() if "model.norm" in name)
    monkeypatch.setattr(norm, "data", torch.full_like(norm, math.nan))
    task = GenerateTask(name="q", questions="", sampling=Sampling(max_tokens=2))
    with pytest.raises(ModelError, match="not finite numbers") as raised:
        answers.generate_all(run, pair, [Question("1", "Who?")], task, silent)
    assert "--checkpoint" in raised.value.hint


def test_a_perplexity_too_large_for_a_number_leaves_the_loss(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = kept(pair, monkeypatch, "model.norm", 1e5)
    assert found["adapter"]["trained_loss"] > 700
    assert found["adapter"]["trained_perplexity"] is None
