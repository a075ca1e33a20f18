"""`runs compare`: on the terminal, as JSON and as a page that opens offline."""

import json
import os
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, command

from qlora_tui.config.overrides import resolve
from qlora_tui.evaluation import comparison
from qlora_tui.evaluation.paired import difference
from qlora_tui.runs import events, store
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.store import RunFolder

__all__ = ["command"]
EVIL = "<script>alert(1)</script>\x1b[31m"


def made_run(name: str, rank: int, losses: list[float], marks: list[float], base: list[float]) -> RunFolder:
    config = resolve("starter", overrides=[f"adapter.rank={rank}"])
    run = store.create(name, config, {"estimate": {"need_bytes": 5_000_000, "terms": {"weights": 3_000_000}}})
    writer = EventWriter(run.events)
    writer.write(events.Created(name=name, program_version="0"))
    writer.write(events.Started(attempt=1, pid=1, process_start_s=0.0))
    for step, loss in enumerate(losses, start=1):
        writer.write(
            events.Step(
                step=step, epoch=0.1, loss=loss, learning_rate=1e-3, grad_norm=1.0, tokens=10 * step,
                tokens_per_s=160 / 2**step,
                peak_bytes=4_000_000,
            )
        )  # fmt: skip
    writer.write(events.Eval(step=len(losses), loss=losses[-1] + 0.5, metrics={"exact_match": 0.25}))
    writer.write(events.Sample(step=1, prompt="Why?", answer=EVIL))
    writer.write(events.Warned(code="x", message=EVIL))
    writer.write(events.Finished(step=len(losses), train_seconds=2.5, peak_bytes=4_000_000, adapter_bytes=1000))
    writer.close()
    rows = [
        {"question": f"q{n}", "adapter": {"f1": mark}, "base": {"f1": before}}
        for n, (mark, before) in enumerate(zip(marks, base, strict=True))
    ]
    result = {"adapter": {"f1": sum(marks) / len(marks)}, "base": {"f1": sum(base) / len(base)}, "per_row": rows}
    (run.path / "eval").mkdir()
    (run.path / "eval" / "answers.json").write_text(json.dumps({"version": 1, **result}))
    return run


@pytest.fixture
def runs() -> list[RunFolder]:
    chance = random.Random(0)
    low = [chance.random() * 0.4 for _ in range(60)]
    high = [min(1.0, mark + 0.3 + chance.random() * 0.2) for mark in low]
    return [made_run("small", 4, [3.0, 2.0, 1.5], low, low), made_run("big", 16, [3.0, 1.5, 1.0], high, low)]


def test_only_different_settings_are_listed(command: Cli, runs: list[RunFolder]) -> None:
    found = json.loads(command("runs", "compare", "small", "big", "--json").out)
    assert found["names"] == ["small", "big"]
    assert found["settings"]["adapter.rank"] == [4, 16]
    assert all(one != other for one, other in found["settings"].values())
    assert found["facts"]["train_loss"] == pytest.approx([6.5 / 3, 5.5 / 3]), "the mean of all steps"
    small, big = found["facts"]["smoothed_train_loss"]
    assert 1.5 < small < 6.5 / 3 and 1.0 < big < 5.5 / 3
    assert found["facts"]["mean_tokens_per_s"] == pytest.approx([30 / (10 / 80 + 10 / 40 + 10 / 20)] * 2)
    assert found["facts"]["best_eval_loss"] == [2.0, 1.5]
    assert found["facts"]["peak_bytes"] == [4_000_000] * 2
    assert found["curves"]["big"]["loss"] == [[1, 3.0], [2, 1.5], [3, 1.0]]


def test_a_difference_beyond_noise_is_told_from_none(command: Cli, runs: list[RunFolder]) -> None:
    found = json.loads(command("runs", "compare", "small", "big", "--json").out)
    (row,) = [row for row in found["evaluations"] if row["metric"] == "f1"]
    by_pair = {(one["from"], one["to"]): one for one in row["differences"]}
    better = by_pair["small", "big"]
    assert better["better"] == "big" and better["low"] > 0.25 and better["questions"] == 60
    same = by_pair["small (base)", "small"]
    assert same["better"] is None and same["difference"] == 0
    assert ("small (base)", "big") not in by_pair and ("small (base)", "big (base)") not in by_pair
    result = command("runs", "compare", "small", "big")
    assert "big is better" in result.out and "within noise" in result.out


def test_for_a_loss_less_is_better_and_tokens_are_the_weights(command: Cli, runs: list[RunFolder]) -> None:
    for run, nats in zip(runs, (2.0, 1.0), strict=True):
        rows = [{"nats": nats * tokens, "tokens": tokens} for tokens in range(1, 30)]
        result = {"adapter": {"trained_loss": nats}, "per_row": {"adapter": rows}}
        (run.path / "eval" / "loss.json").write_text(json.dumps(result))
    found = json.loads(command("runs", "compare", "small", "big", "--json").out)
    (row,) = [row for row in found["evaluations"] if row["metric"] == "trained_loss"]
    (only,) = row["differences"]
    assert (only["better"], only["difference"], only["low"]) == ("big", -1.0, -1.0)


def test_the_paired_bootstrap_knows_chance_and_covers_the_truth() -> None:
    chance = random.Random(1)
    covered = 0
    for _ in range(60):
        first = {str(n): (chance.gauss(0, 1), 1.0) for n in range(40)}
        second = {key: (mark + 0.5 + chance.gauss(0, 1), 1.0) for key, (mark, _) in first.items()}
        found = difference(first, second, samples=500)
        assert found is not None
        covered += found.low <= 0.5 <= found.high
    assert 50 <= covered <= 60
    assert difference({"a": (1.0, 1.0)}, {"b": (1.0, 1.0)}) is None


def test_losses_of_other_rows_are_not_paired() -> None:
    """Rows are known by their number and their tokens alone; other numbers of tokens are other rows."""
    first = {str(n): (1.0, 10.0 + n) for n in range(5)}
    second = {str(n): (1.0, 11.0 + n) for n in range(5)}
    assert difference(first, first) is not None
    assert difference(first, second) is None


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_inert_and_needs_nothing_else(command: Cli, runs: list[RunFolder], tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert command("runs", "compare", "small", "big", "--html", str(file)).code == 0
    source = file.read_text()
    page = _Page()
    page.feed(source)
    names = [tag for tag, _ in page.tags]
    assert names.count("svg") == 2 and "polyline" in names
    assert not {"script", "img", "link", "iframe"} & set(names)
    assert not [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert "://" not in re.sub(r"<pre>.*?</pre>", "", source, flags=re.DOTALL)
    assert "<script>alert(1)</script>" in page.text and "\x1b" not in source
    for shown in ("adapter.rank", "3.81 MiB", "weights", "big is better", "rank = 16"):
        assert shown in page.text


def test_one_run_alone_makes_a_report_too(command: Cli, runs: list[RunFolder], tmp_path: Path) -> None:
    file = tmp_path / "one.html"
    assert command("runs", "compare", "big", "--html", str(file)).code == 0
    assert "Configuration" in file.read_text()


def test_a_run_without_a_step_compares_and_an_unknown_one_is_named(command: Cli, runs: list[RunFolder]) -> None:
    store.create("fresh", resolve("starter"), {})
    found = json.loads(command("runs", "compare", "big", "fresh", "--json").out)
    assert found["facts"]["train_loss"] == [pytest.approx(5.5 / 3), None] and found["curves"]["fresh"]["loss"] == []
    result = command("runs", "compare", "big", "smal")
    assert result.code == 4 and "Did you mean 'small'" in result.err


def test_a_damaged_result_is_named(command: Cli, runs: list[RunFolder]) -> None:
    (runs[0].path / "eval" / "answers.json").write_text("{")
    result = command("runs", "compare", "small", "big")
    assert result.code == 10 and "answers.json" in result.err


def verdict_file(path: Path, *winners: str) -> str:
    """Verdicts on "small" and "big:base", which the second of the two was shown first in half of."""
    rows = ["question_id,model_1,model_2,outcome"]
    for number, winner in enumerate(winners):
        first, second = ("small", "big:base") if number % 2 else ("big:base", "small")
        rows.append(f"{number},{first},{second},{'tie' if not winner else 1 if first == winner else 2}")
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_verdicts_become_elo_and_win_rates_with_their_noise(
    command: Cli, runs: list[RunFolder], tmp_path: Path
) -> None:
    clear = verdict_file(tmp_path / "clear.csv", *["small"] * 11, "")
    found = json.loads(command("runs", "compare", "small", "big", "--verdicts", clear, "--json").out)
    (row,) = [row for row in found["evaluations"] if row["metric"] == "win rate"]
    assert row["values"] == {"big (base)": pytest.approx(1 / 24), "small": pytest.approx(23 / 24)}
    assert row["differences"][0]["better"] == "small" and row["differences"][0]["questions"] == 12
    standings = found["ranking"]["standings"]
    assert [(one["model"], one["wins"], one["ties"]) for one in standings] == [("small", 11, 1), ("big:base", 0, 1)]
    chance = verdict_file(tmp_path / "chance.csv", *["small", "big:base"] * 5)
    result = command("runs", "compare", "small", "big", "--verdicts", chance)
    assert "judged: big (base) and small" in result.out and "Elo: mean of 10,000 orders" in result.err
    assert "within noise" in next(line for line in result.out.splitlines() if "small - big (base)" in line)
    file = tmp_path / "report.html"
    assert command("runs", "compare", "small", "--verdicts", clear, "--html", str(file)).code == 0
    page = _Page()
    page.feed(file.read_text())
    for shown in ("Judged answers", "big:base", "12 verdicts on 12 questions", "small is better"):
        assert shown in page.text


def test_verdicts_on_other_models_are_refused(command: Cli, runs: list[RunFolder], tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("question_id,model_1,model_2,outcome\n1,left,right,1\n")
    result = command("runs", "compare", "small", "--verdicts", str(other))
    assert result.code == 10 and "on none of these runs, but on left, right" in result.err


def test_a_measurement_is_set_beside_the_base_and_the_run_that_had_it_last(runs: list[RunFolder]) -> None:
    small, big = runs
    older = made_run("older", 8, [3.0], [0.5] * 60, [0.5] * 60)
    for run, time_s in ((older, 1), (small, 2), (big, 3)):
        os.utime(run.path / "eval" / "answers.json", (time_s, time_s))
    (row,) = comparison.with_last_run(big, "answers")
    assert {(one["from"], one["to"]) for one in row.differences} == {
        ("small", "big"),
        ("big (base)", "big"),
    }
    assert comparison.with_last_run(big, "another") == []
