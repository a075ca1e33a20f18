"""Our numbers beside those of lm-eval, on the same model and the same rows."""

import json
import random
from pathlib import Path

import pytest
from chat_material import make_run

from qlora_tui.engine.evaluation import harness, loss, mmlu
from qlora_tui.engine.evaluation.pair import Pair, load
from qlora_tui.evaluation.tasks import HarnessTask, LossTask, MmluTask
from qlora_tui.evaluation.text_scores import scores
from qlora_tui.starter import HELDOUT_DATA

pytestmark = pytest.mark.long

TASK = """\
task: little_mmlu
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{input}}}}"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: "{{{{['A', 'B', 'C', 'D'].index(output)}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def silent(*_: object, **__: object) -> None:
    pass


@pytest.fixture
def pair() -> Pair:
    return load(make_run("bird", "model.device=cpu"), LossTask(name="loss"), silent)


def test_multiple_choice(pair: Pair, tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [json.loads(line)["messages"] for line in HELDOUT_DATA.read_text().splitlines()][:80]
    file = tmp_path / "mmlu.jsonl"
    with file.open("w") as out:
        for question, answer in rows:
            choices = [*draw.sample([other["content"] for _, other in rows], 3), answer["content"]]
            draw.shuffle(choices)
            listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", choices, strict=True))
            row = {"subject": "facts", "input": f"{question['content']}\n{listed}Answer:",
                   "output": "ABCD"[choices.index(answer["content"])]}  # fmt: skip
            out.write(json.dumps(row) + "\n")
    (tmp_path / "little_mmlu.yaml").write_text(TASK.format(file=file))
    ours = mmlu.measure(pair, mmlu.read(file, None), MmluTask(name="mmlu", file=str(file)), silent)
    task = HarnessTask(name="harness", tasks=("little_mmlu",), include=str(tmp_path))
    theirs = harness.measure(pair, task, silent)
    for side in ("base", "adapter"):
        assert ours[side]["micro_accuracy"] == pytest.approx(theirs[side]["little_mmlu"]["acc"], abs=1e-3)


def test_perplexity(pair: Pair) -> None:
    from lm_eval.models.huggingface import HFLM

    config = make_run("other").load_config()
    rows = loss.rows_of(config, pair.tokenizer, LossTask(name="loss", data=str(HELDOUT_DATA), limit=30))
    ours = loss.measure(pair, rows, LossTask(name="loss"), silent)
    for side in ("base", "adapter"):
        with pair.side(side) as model:
            wrapped = HFLM(pretrained=model, tokenizer=pair.tokenizer, batch_size=4)
            requests = [(("", ""), *_split(ids, labels)) for ids, labels in rows]
            found = wrapped._loglikelihood_tokens(requests, disable_tqdm=True)
        nats = -sum(log_likelihood for log_likelihood, _ in found)
        assert ours[side]["trained_loss"] == pytest.approx(nats / ours[side]["trained_tokens"], abs=1e-3)


def _split(ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """The context and what is trained behind it, up to the last trained token."""
    trained = [number for number, label in enumerate(labels) if label != -100]
    return ids[: trained[0]], ids[trained[0] : trained[-1] + 1]


def test_scores_of_well_known_libraries() -> None:
    """ROUGE-L is the F-measure of the longest common subsequence: 3 of 3 words and 3 of 4."""
    assert scores("the cat sat", "the cat sat down")["rouge_l"] == pytest.approx(2 * 3 / (3 + 4))
    assert scores("the cat sat", "the cat sat")["chrf"] == pytest.approx(1)
    assert scores("xyz", "the cat sat")["chrf"] == 0
    assert 0.5 < scores("the cat sat", "the cat sits")["chrf"] < 1
