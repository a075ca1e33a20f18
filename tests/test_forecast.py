"""Steps, tokens and time of a run before it starts."""

import json
from pathlib import Path

import pytest

from qlora_tui.config.overrides import edited, resolve
from qlora_tui.data.volume import Volume, volume
from qlora_tui.forecast import speed as speeds
from qlora_tui.forecast.duration import Observed, duration, pass_s
from qlora_tui.forecast.forecast import forecast
from qlora_tui.forecast.speed import Kind, Speed
from qlora_tui.forecast.work import Rows, rows_of, work_of
from qlora_tui.memory.device import card
from qlora_tui.models import describe
from qlora_tui.units import approximate_duration

SPEED = Speed(weight_s=1e-9, flop_s=1e-11, call_s=1e-4, op_s=1e-4)


def write_rows(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"say {n}", "completion": "so " * 10}) + "\n" for n in range(count)))
    return path


def test_rows_of_a_small_file_are_counted_and_of_a_large_one_extrapolated(tmp_path: Path) -> None:
    few, many = write_rows(tmp_path / "few.jsonl", 30), write_rows(tmp_path / "many.jsonl", 20_000)
    found = volume(resolve(overrides=[f"data.source={few}"]).data)
    assert found is not None and (found.rows, found.exact) == (30, True)
    found = volume(resolve(overrides=[f"data.source={many}"]).data)
    assert found is not None and not found.exact
    assert found.rows == pytest.approx(20_000, rel=0.1)


def test_rows_of_a_known_set_are_known_without_a_download() -> None:
    assert volume(resolve(overrides=["data.source=alpaca"]).data) == Volume(52_002, True, None)
    assert volume(resolve(overrides=["data.source=some/thing"]).data) is None
    assert volume(resolve(overrides=["data.source=missing.jsonl"]).data) is None


def test_rows_held_out_are_not_trained() -> None:
    config = resolve(overrides=["data.source=alpaca", "data.eval_rows=1000", "data.max_eval_rows=100"])
    rows = rows_of(config, Volume(5_000, True, 400.0))
    assert rows == Rows(4_000, 116.0, 100, False)
    assert rows_of(edited(config, ["data.max_train_rows=10"]), Volume(5_000, True, 400.0)).train == 10  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("overrides", "steps", "micro_batches", "tokens"),
    [
        (["training.micro_batch_size=4", "training.gradient_accumulation_steps=2"], 13, 25, 5_000),
        (
            ["training.micro_batch_size=4", "training.gradient_accumulation_steps=2", "training.epochs=2"],
            26,
            50,
            10_000,
        ),
        (["training.micro_batch_size=2", "training.gradient_accumulation_steps=1", "training.max_steps=7"], 7, 7, 700),
    ],
)
def test_steps_are_counted_as_the_trainer_does(
    overrides: list[str], steps: int, micro_batches: int, tokens: int
) -> None:
    work = work_of(resolve(overrides=overrides), Rows(100, 50.0, 0, True))
    assert work is not None
    assert (work.steps, work.micro_batches, work.tokens) == (steps, micro_batches, tokens)


def test_without_rows_only_given_steps_are_known() -> None:
    assert work_of(resolve(), None) is None
    work = work_of(resolve(overrides=["training.max_steps=5"]), None)
    assert work is not None and (work.steps, work.longest_assumed) == (5, True)


def test_a_run_that_was_seen_decides_and_other_settings_are_accounted_for() -> None:
    facts, config = describe("starter"), resolve("starter")
    work = work_of(config, Rows(1_600, 30.0, 0, True))
    assert work is not None
    seen = Observed("one", config, False, 0.5, 16 * 30.0)
    same = duration(config, facts, False, work, seen, None)
    assert same is not None and same.step_s == pytest.approx(0.5) and same.seconds == pytest.approx(50)
    assert "run one" in same.basis
    recomputed = duration(config, facts, True, work, seen, None)
    assert recomputed is not None and recomputed.step_s == pytest.approx(0.75)


def test_a_larger_model_takes_longer_by_its_weights() -> None:
    config = resolve("starter")
    small, large = describe("Qwen/Qwen3-0.6B", network=False), describe("Qwen/Qwen3-8B", network=False)
    ratio = pass_s(config, large, False, 512, SPEED) / pass_s(config, small, False, 512, SPEED)
    assert 10 < ratio < 16


def test_small_operations_are_counted_with_every_micro_batch() -> None:
    slow_ops = Speed(weight_s=0.0, flop_s=0.0, call_s=1e-3, op_s=1e-4)
    config, facts = resolve("starter"), describe("starter")
    rows = Rows(1_600, 30.0, 0, True)
    split = edited(config, ["training.micro_batch_size=4", "training.gradient_accumulation_steps=4"])
    whole, parts = (
        duration(each, facts, False, work, None, slow_ops)
        for each in (config, split)
        if (work := work_of(each, rows)) is not None
    )
    assert whole is not None and parts is not None
    assert whole.step_s == pytest.approx(28 * (1e-3 + 5 * 1e-4))  # the tied output layer is not a layer of its own
    assert parts.step_s == pytest.approx(4 * whole.step_s)


def test_rows_are_padded_to_the_longest_of_their_batch() -> None:
    only_flops = Speed(weight_s=0.0, flop_s=1e-11, call_s=0.0, op_s=0.0)
    facts, config = describe("starter"), resolve("starter")

    def per_token(*overrides: str) -> float:
        found = edited(config, list(overrides))
        tokens = 26.0 * found.training.micro_batch_size
        return pass_s(found, facts, False, tokens, only_flops) / tokens

    alone = per_token("training.micro_batch_size=1")
    assert per_token() == pytest.approx(2.1 * alone, rel=0.1)
    assert per_token("training.micro_batch_size=4") == pytest.approx(1.5 * alone, rel=0.1)
    assert per_token("training.group_by_length=true") == pytest.approx(alone)
    assert per_token("training.max_length_tokens=30") == pytest.approx(30 / 26 * alone, rel=0.01)


def test_without_a_run_or_a_measurement_there_is_no_time() -> None:
    found = forecast(
        resolve("starter"),
        describe("starter"),
        checkpointing=False,
        rows=Rows(16, 10.0, 0, True),
        seen=None,
        speed=None,
    )
    assert found.duration is None and found.steps == "1 step, 160 tokens"


def test_a_measurement_is_kept_for_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind.of(resolve(), card(24))
    assert speeds.known(kind) is None
    answer = json.dumps({"weight_s": 1e-9, "flop_s": 1e-11, "call_s": 1e-4, "op_s": 1e-4})

    class Done:
        stdout = answer

    monkeypatch.setattr(speeds.subprocess, "run", lambda *_, **__: Done)
    assert speeds.measure(kind, card(24)) == SPEED == speeds.known(kind)
    assert speeds.known(Kind.of(resolve(overrides=["quantization.kind=8bit"]), card(24))) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (57, "57 s"),
        (100, "1.7 min"),
        (3000, "50 min"),
        (8000, "2.2 h"),
        (2e5, "2.3 days"),
        (1e9, "32 years"),
    ],
)
def test_a_time_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert approximate_duration(seconds) == text
