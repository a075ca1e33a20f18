"""How many held-out questions a run answers word for word, its base and its adapter on one loaded copy.

`python -m qlora_tui.engine.exact_match RUN_FOLDER QUESTIONS.jsonl` prints JSON lines: progress, samples, the result.
The questions are conversations of one user turn and one assistant turn, which is the expected answer.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from qlora_tui import atomic
from qlora_tui.engine import environment
from qlora_tui.errors import DataError, NotFoundError, QloraError
from qlora_tui.runs.fingerprint import pinned
from qlora_tui.runs.store import RunFolder

_BATCH_ROWS = 32
_MAX_TOKENS = 32
_SAMPLES = 6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m qlora_tui.engine.exact_match")
    parser.add_argument("run", type=lambda text: RunFolder(Path(text)))
    parser.add_argument("questions", type=Path)
    options = parser.parse_args()
    environment.prepare(allow_download=False)
    try:
        environment.choose_gpu(options.run.load_config().model.device)
        measure(options.run, read_questions(options.questions))
    except QloraError as error:
        _say("error", message=error.message, hint=error.hint, exit_code=int(error.exit_code))
        return error.exit_code
    return 0


def read_questions(path: Path) -> list[tuple[str, str]]:
    """Question and expected answer of each line. Raises DataError naming the line."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            question, answer = json.loads(line)["messages"]
            pairs.append((question["content"], answer["content"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: not a conversation of one question and one answer",
                hint='Expected {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}.',
            ) from error
    return pairs


def measure(run: RunFolder, pairs: list[tuple[str, str]]) -> None:
    """Answer every question twice, print what was found, and keep it in `eval/exact_match.json`."""
    base, adapter = _answers(run, [question for question, _ in pairs])
    rows = [
        {"question": question, "expected": expected, "base": base_answer, "adapter": adapter_answer}
        for (question, expected), base_answer, adapter_answer in zip(pairs, base, adapter, strict=True)
    ]
    result = {
        "questions": len(rows),
        "base_exact_match": sum(row["base"] == row["expected"] for row in rows) / len(rows),
        "adapter_exact_match": sum(row["adapter"] == row["expected"] for row in rows) / len(rows),
    }
    stride = max(1, len(rows) // _SAMPLES)
    for row in rows[::stride][:_SAMPLES]:
        _say("sample", **row)
    folder = run.path / "eval"
    with atomic.storage_errors(folder):
        folder.mkdir(exist_ok=True)
    atomic.write_json(folder / "exact_match.json", {**result, "rows": rows})
    _say("result", **result)


def _answers(run: RunFolder, questions: list[str]) -> tuple[list[str], list[str]]:
    from peft import PeftModel
    from transformers import AutoTokenizer

    from qlora_tui.engine import loading
    from qlora_tui.engine.resolve import resolve

    if not run.adapter.is_dir():
        raise NotFoundError(
            f"run {run.name!r} has no adapter yet", hint=f"`qlora-tui watch {run.name}` shows its state."
        )
    config = pinned(run, run.load_config())
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    base = loading.load_model(config, resolve(config), tokenizer)
    if config.adapter.kind == "full":
        base_answers = _answer_all(base, tokenizer, questions, "base")
        own = config.model_copy(update={"model": config.model.model_copy(update={"id": str(run.adapter)})})
        tuned = loading.load_model(own, resolve(own), tokenizer)
        return base_answers, _answer_all(tuned, tokenizer, questions, "adapter")
    model = PeftModel.from_pretrained(base, str(run.adapter))
    with model.disable_adapter():
        base_answers = _answer_all(model, tokenizer, questions, "base")
    return base_answers, _answer_all(model, tokenizer, questions, "adapter")


def _answer_all(model: Any, tokenizer: Any, questions: list[str], side: str) -> list[str]:
    from qlora_tui.engine.generate import answer

    conversations = [[{"role": "user", "content": question}] for question in questions]
    answers = []
    for text in answer(model, tokenizer, conversations, max_tokens=_MAX_TOKENS, batch_size=_BATCH_ROWS):
        answers.append(text)
        if len(answers) % _BATCH_ROWS == 0 or len(answers) == len(questions):
            _say("progress", side=side, done=len(answers), total=len(questions))
    return answers


def _say(kind: str, **facts: Any) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps({"kind": kind, **facts}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())
