"""Throughput of data preparation beside a plain `datasets.map` with the same tokenizer, cold and from the caches.

The plain map renders the tokenizer's chat template and tokenizes, a batch at a time, and masks nothing. Ours also reads
and checks the file, hashes the rows, masks, cuts and counts; from its caches it hashes the whole file, where the plain
map looks at its date.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.bench.report import Ratio

_MEGABYTES = 20
_LARGE_MEGABYTES = 1000


def measure() -> list[Ratio]:
    """Rates of preparing 20 MB, and the seconds to the first answer about 1 GB."""
    with tempfile.TemporaryDirectory() as folder:
        # Read when the library is first imported; without it the plain map would find its cache of another day.
        os.environ["HF_DATASETS_CACHE"] = folder
        rates = _rates(Path(folder) / "rows.jsonl")
        first_s = _first_answer_s(Path(folder))
    goal = f"first answer about {_LARGE_MEGABYTES:,} MB, s / 2 s"
    return [*rates, Ratio(goal, first_s, 2, 1, at_least=False)]


def _rates(path: Path) -> list[Ratio]:
    import datasets
    from transformers import PreTrainedTokenizerFast

    from qlora_tui.starter import MODEL_DIR

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
    rows = _write_rows(path, _MEGABYTES)
    megabytes = path.stat().st_size / 1e6
    ratios = []
    for state, goal in (("cold", 0.65), ("cached", 0.25)):
        plain_s, _ = _timed(lambda: _plain_map(path, tokenizer))
        our_s, dataset = _timed(lambda: _ours(path, tokenizer))
        tokens = sum(dataset["length"])
        for unit, amount in (("rows", rows), ("MB", megabytes), ("tokens", tokens)):
            ratios.append(Ratio(f"{unit}/s prepared, {state} / plain map", amount / our_s, amount / plain_s, goal))
    return ratios


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began_s = time.perf_counter()
    result = work()
    return time.perf_counter() - began_s, result


def _plain_map(path: Path, tokenizer: Any) -> Any:
    """What a script does: load the file, render and tokenize in `map`."""
    import datasets

    def tokenize(batch: dict[str, Any]) -> Any:
        texts = tokenizer.apply_chat_template(batch["messages"], tokenize=False)
        return {"input_ids": tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]}

    rows = datasets.load_dataset("json", data_files=str(path), split="train")
    return rows.map(tokenize, batched=True, remove_columns=rows.column_names)


def _ours(path: Path, tokenizer: Any) -> Any:
    from qlora_tui.config.run import RunConfig
    from qlora_tui.data.prepare import prepare

    settings = {"data": {"source": str(path)}, "training": {"max_length_tokens": 4096}}
    return prepare(RunConfig.model_validate(settings), tokenizer).train


def _write_rows(path: Path, megabytes: int) -> int:
    """Conversations of made-up sentences, about `megabytes` of jsonl; returns how many."""
    lines = _lines(2000)
    count = size_bytes = 0
    with path.open("w") as file:
        while size_bytes < megabytes * 1_000_000:
            # The number makes each row another one.
            size_bytes += file.write(lines[count % len(lines)].replace("#", str(count)))
            count += 1
    return count


def _lines(count: int) -> list[str]:
    random = Random(3)
    words = [word for word in Path(__file__).read_text().split() if word.isascii()]
    lines = []
    for _ in range(count):
        question = " ".join(random.choices(words, k=random.randint(8, 60)))
        answer = " ".join(random.choices(words, k=random.randint(10, 200)))
        turns = [{"role": "user", "content": f"# {question}"}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": turns}) + "\n")
    return lines


def _first_answer_s(folder: Path) -> float:
    """Seconds until `data inspect` has shown format, sample and the numbers of the first rows."""
    path = folder / "large.jsonl"
    _write_rows(path, _LARGE_MEGABYTES)
    command = [sys.executable, "-m", "qlora_tui", "data", "inspect", str(path)]
    began_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        shown = any("tokens an epoch" in line or "rows longer than" in line for line in child.stdout)
        first_s = time.perf_counter() - began_s
        child.terminate()
    assert shown
    return first_s
