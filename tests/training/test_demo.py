"""What `make demo` shows: the bundled model knows nothing of answering before, and nearly every answer after."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qlora_tui.runs import jobs, store
from qlora_tui.starter import HELDOUT_DATA, demo


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_demo_goes_from_nothing_to_nearly_all(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qlora_tui", "demo", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    result, questions = shown["result"], HELDOUT_DATA.read_text(encoding="utf-8").splitlines()
    assert result["questions"] == len(questions)
    assert result["base_exact_match"] < 0.05
    assert result["adapter_exact_match"] >= 0.95
    assert len({sample["question"] for sample in shown["samples"]}) == 6
    kept = json.loads((store.find(shown["run"]).path / "eval" / "exact_match.json").read_text(encoding="utf-8"))
    right = [row["adapter"]["answer"] == row["expected"] for row in kept["per_row"]]
    assert sum(right) / len(right) == result["adapter_exact_match"]
    suggested = {row["question"]: row for row in kept["per_row"] if row["question"] in demo.QUESTIONS}
    assert set(suggested) == set(demo.QUESTIONS), "the chat suggests held-out questions"
    for row in suggested.values():
        assert row["adapter"]["answer"] == row["expected"] != row["base"]["answer"]
    samples = jobs.replay(store.find(shown["run"])).samples
    assert len({sample.step for sample in samples}) > 3, "answers while it trains"
    assert f"adapter: {len(questions)} questions answered" in done.stderr
