"""Throughput of data preparation beside a plain `datasets.map` with the same tokenizer.

The plain map renders the tokenizer's chat template and tokenizes, a batch at a time, and masks nothing. Ours also reads
and checks the file, hashes the rows, masks, cuts and counts. Each is measured cold and then again with its cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def write_rows(path: Path, megabytes: int) -> int:
    """Conversations of made-up sentences, about `megabytes` of jsonl; returns how many."""
    import json

    random = Random(3)
    words = [word for word in Path(__file__).read_text().split() if word.isascii()]
    count = size_bytes = 0
    with path.open("w") as file:
        while size_bytes < megabytes * 1_000_000:
            question = " ".join(random.choices(words, k=random.randint(8, 60)))
            answer = " ".join(random.choices(words, k=random.randint(10, 200)))
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            size_bytes += file.write(json.dumps({"messages": turns}) + "\n")
            count += 1
    return count


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start_s = time.perf_counter()
    result = work()
    return time.perf_counter() - start_s, result


def plain_map(path: Path, tokenizer: Any) -> Any:
    """What a script does: load the file, render and tokenize in `map`."""
    import datasets

    def tokenize(batch: dict[str, Any]) -> Any:
        texts = tokenizer.apply_chat_template(batch["messages"], tokenize=False)
        return {"input_ids": tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]}

    rows = datasets.load_dataset("json", data_files=str(path), split="train")
    return rows.map(tokenize, batched=True, remove_columns=rows.column_names)


def ours(path: Path, tokenizer: Any) -> Any:
    from qlora_tui.config.run import RunConfig
    from qlora_tui.data.prepare import prepare

    settings = {"data": {"source": str(path)}, "training": {"max_length_tokens": 4096}}
    return prepare(RunConfig.model_validate(settings), tokenizer).train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=20)
    megabytes: int = parser.parse_args().megabytes
    home = Path(tempfile.mkdtemp(prefix="bench-data-"))
    os.environ["QLORA_TUI_HOME"] = str(home)
    os.environ["HF_DATASETS_CACHE"] = str(home / "plain")
    try:
        measure(home / "rows.jsonl", megabytes)
    finally:
        shutil.rmtree(home)


def measure(path: Path, megabytes: int) -> None:
    import datasets
    from transformers import PreTrainedTokenizerFast

    from qlora_tui.starter import MODEL_DIR

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
    rows = write_rows(path, megabytes)
    print(f"{rows} rows, {path.stat().st_size / 1e6:.1f} MB of jsonl", file=sys.stderr)
    print(f"{'':22}{'s':>8}{'rows/s':>12}{'MB/s':>8}{'tokens/s':>12}{'x plain':>9}")
    plain_s: dict[str, float] = {}
    for name, work in (("plain map", plain_map), ("qlora-tui", ours)):
        for state in ("cold", "cached"):
            taken_s, dataset = timed(partial(work, path, tokenizer))
            tokens = sum(len(ids) for ids in dataset["input_ids"])
            plain_s.setdefault(state, taken_s)
            rates = (rows / taken_s, path.stat().st_size / 1e6 / taken_s, tokens / taken_s)
            ratio = plain_s[state] / taken_s
            print(
                f"{name + ', ' + state:22}{taken_s:8.2f}{rates[0]:12,.0f}{rates[1]:8.1f}{rates[2]:12,.0f}{ratio:9.2f}"
            )


if __name__ == "__main__":
    main()
