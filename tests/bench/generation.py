"""Answers to a question file by batches against one question at a time, as a process of its own."""

import json
import subprocess
import sys
import time

from qlora_tui.starter import HELDOUT_DATA
from tests.bench.report import Ratio

_QUESTIONS = 24
_MAX_TOKENS = 48
_BATCH_ROWS = 8
_PAIRS = 3


def measure() -> list[Ratio]:
    """Tokens per second on the starter in NF4 with an adapter; of the pair with the middle ratio."""
    output = subprocess.run([sys.executable, "-m", __name__], check=True, capture_output=True, text=True).stdout
    pairs = [tuple(pair) for pair in json.loads(output.splitlines()[-1])]
    batched, alone = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    return [Ratio(f"generation, tokens/s: batches of {_BATCH_ROWS} / one by one", batched, alone, 2)]


def _answer_all() -> list[tuple[float, float]]:
    from qlora_tui.chat.protocol import Sampling
    from qlora_tui.engine.evaluation import answers, pair
    from qlora_tui.evaluation.predictions import answers_file, read_answers
    from qlora_tui.evaluation.questions import Question
    from qlora_tui.evaluation.tasks import GenerateTask
    from tests.chat_material import make_run

    run = make_run("answering", "model.device=cpu", "quantization.compute_dtype=float32")
    rows = [json.loads(line)["messages"] for line in HELDOUT_DATA.read_text().splitlines()[:_QUESTIONS]]
    questions = [Question(str(number), turns[0]["content"]) for number, turns in enumerate(rows)]
    sampling = Sampling(temperature=0, max_tokens=_MAX_TOKENS)

    def tokens_per_s(name: str, batch_rows: int, count: int) -> float:
        task = GenerateTask(name=name, questions="", sampling=sampling, sides=("adapter",), batch_rows=batch_rows)
        began_s = time.perf_counter()
        answers.generate_all(run, loaded, questions[:count], task, lambda *_: None)
        seconds = time.perf_counter() - began_s
        written = read_answers(answers_file(run, name, "adapter")).values()
        return sum(len(loaded.tokenizer.encode(one.text)) for one in written) / seconds

    loaded = pair.load(run, GenerateTask(name="any", questions="", sides=("adapter",)), lambda _: None)
    tokens_per_s("first", _BATCH_ROWS, _BATCH_ROWS)  # what is set up once is not counted
    return [
        (tokens_per_s(f"batched-{number}", _BATCH_ROWS, _QUESTIONS), tokens_per_s(f"alone-{number}", 1, _QUESTIONS))
        for number in range(_PAIRS)
    ]


if __name__ == "__main__":
    print(json.dumps(_answer_all()))
