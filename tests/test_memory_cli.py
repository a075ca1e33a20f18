"""`qlora-tui estimate`: one clear answer, in text, in JSON and as an exit code."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Cli, command
from nvml_material import install_cards

from qlora_tui import hardware
from qlora_tui.cli import estimate_measure
from qlora_tui.config.overrides import resolve
from qlora_tui.errors import ExitCode
from qlora_tui.forecast import speed
from qlora_tui.forecast.speed import Speed
from qlora_tui.memory.device import automatic, card
from qlora_tui.memory.estimate import estimate
from qlora_tui.memory.record import before_start
from qlora_tui.models import describe
from qlora_tui.runs import events, store
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.starter import MODEL_DIR
from qlora_tui.ui import pricing

__all__ = ["command"]
LLAMA = "meta-llama/Llama-3.1-8B"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_estimate_prints_steps_tokens_and_time(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Speed(weight_s=1e-9, flop_s=1e-11, call_s=1e-4, op_s=1e-4)
    starter = ("estimate", "starter")
    unknown = json.loads(command(*starter, "--json").out)["forecast"]
    assert (unknown["steps"], unknown["training_s"], unknown["basis"]) == (
        245,
        None,
        "this machine could not be measured",
    )
    monkeypatch.setattr(speed, "measure", lambda *_: measured)
    forecast = json.loads(command(*starter, "--json").out)["forecast"]
    assert forecast["steps"] == 245
    assert forecast["tokens"] == pytest.approx(102_000, rel=0.3)
    assert forecast["training_s"] == pytest.approx(245 * forecast["step_s"], rel=0.01)
    assert "single layers" in forecast["basis"]
    assert "245 steps, about 120,000 tokens, about " in command(*starter).out
    elsewhere = command(*starter, "--gpu", "24GB")
    assert "245 steps" in elsewhere.out and "not in this machine" in " ".join(elsewhere.out.split())
    assert (
        json.loads(command("estimate", LLAMA, "--gpu", "24GB", "--set", "data.source=some/rows", "--json").out)[
            "forecast"
        ]["steps"]
        is None
    )


@pytest.mark.parametrize(
    ("gpu", "code", "answer"),
    [("24GB", ExitCode.OK, "fits"), ("4GB", ExitCode.DOES_NOT_FIT, "does not fit")],
)
def test_the_exit_code_says_whether_it_fits(command: Cli, gpu: str, code: int, answer: str) -> None:
    done = command("estimate", LLAMA, "--gpu", gpu)
    assert done.code == code
    assert f"\n{answer}: " in done.out
    assert "Traceback" not in done.err


def test_a_tight_fit_has_an_exit_code_of_its_own(command: Cli) -> None:
    same = ("--set", "training.gradient_checkpointing=on", "--set", "training.optimizer=adamw_bnb_8bit")
    need = json.loads(command("estimate", LLAMA, "--gpu", "24GB", "--json", *same).out)["need_bytes"]
    done = command("estimate", LLAMA, "--gpu", f"{need / 0.985 / 2**30:.3f}GB", *same)
    assert done.code == ExitCode.TIGHT and "tight" in done.err


def test_text_stays_within_eighty_columns_and_names_the_peak(command: Cli) -> None:
    done = command("estimate", LLAMA, "--gpu", "24GB")
    lines = done.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert sum("<- the peak" in line for line in lines) == 1
    assert any("nf4 weights" in line and "█" in line for line in lines)
    assert "GiB" in done.out and "double quantization" in done.out


def test_json_is_whole_and_adds_up(command: Cli) -> None:
    done = command("estimate", LLAMA, "--gpu", "6GB", "--json")
    content = json.loads(done.out)
    assert content["verdict"] == "does not fit" and done.code == ExitCode.DOES_NOT_FIT
    assert sum(term["bytes"] for term in content["terms"]) == content["full_bytes"]
    assert list(content["phases"]) == ["load", "prepare", "first_step", "steady", "eval", "save"]
    assert content["suggestions"] and content["savings"]


def test_what_does_not_fit_names_the_change_that_would(command: Cli) -> None:
    done = command("estimate", LLAMA, "--gpu", "12GB", "--set", "training.gradient_checkpointing=off",
                   "--set", "training.max_length_tokens=4096")  # fmt: skip
    assert done.code == ExitCode.DOES_NOT_FIT
    assert "--set training.gradient_checkpointing=on" in done.out
    assert "--set training.gradient_checkpointing=on" in done.err.splitlines()[-1]


def test_explain_prints_every_formula_with_its_numbers(command: Cli) -> None:
    done = command("estimate", LLAMA, "--gpu", "24GB", "--explain")
    assert "nf4 weights = 3,489,660,928 bytes" in done.out and "elements = 6,979,321,856" in done.out
    assert re.search(r"activations = [\d,]+ bytes\n  \d+ x 2 x n x [hf] ", done.out)
    assert "h (hidden size) = 4,096" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_the_range_is_around_what_is_needed_and_says_what_paging_leaves_of_it(command: Cli) -> None:
    same = ("estimate", LLAMA, "--gpu", "24GB", "--set", "adapter.rank=64")
    content = json.loads(command(*same, "--json").out)
    assert content["paged_bytes"] > 0
    assert content["low_bytes"] <= content["need_bytes"] <= content["high_bytes"]
    lines = command(*same).out.splitlines()
    sizes = [float(size) for size in re.findall(r"([\d.]+) GiB", lines[2])]
    paged = content["paged_bytes"]
    told = (content["low_bytes"] + paged, content["high_bytes"] + paged, content["need_bytes"])
    assert "paged" in lines[2] and sizes == pytest.approx([size / 2**30 for size in told], abs=0.06)
    total = next(line for line in lines if line.startswith("total")).split()[1]
    assert f"needs {total} GiB" in lines[1]
    assert any(total in line and "<- the peak" in line for line in lines)


def test_the_highest_phase_is_the_peak_where_an_earlier_one_needs_more_than_what_is_not_paged(command: Cli) -> None:
    """Preparing Mistral 7B needs more than its steps without their optimizer's state, and less than with it."""
    mistral = ("--set", "model.id=mistralai/Mistral-7B-v0.1")
    content = json.loads(command("estimate", "guanaco-7b", *mistral, "--gpu", "24GB", "--json").out)
    phases = content["phases"]
    assert content["need_bytes"] == phases["prepare"] < phases["steady"] == content["full_bytes"]
    assert sum(term["bytes"] for term in content["terms"]) == phases["steady"]


@pytest.mark.parametrize("quantity", ["batch", "length", "rank"])
def test_fit_prints_a_setting_that_can_be_used(command: Cli, quantity: str) -> None:
    small = "meta-llama/Llama-3.2-1B"
    done = command("estimate", small, "--gpu", "8GB", "--fit", quantity)
    assert done.code == 0
    setting = done.out.strip()
    assert command("estimate", small, "--gpu", "8GB", "--set", setting).code == 0


def test_fit_says_where_it_ends_when_more_would_fit(command: Cli) -> None:
    done = command("estimate", "openai-community/gpt2", "--gpu", "24GB", "--fit", "length")
    assert done.out == "training.max_length_tokens=1024\n"
    assert "the search ends at the model's context" in done.err


def test_fit_of_what_never_fits(command: Cli) -> None:
    done = command("estimate", LLAMA, "--gpu", "4GB", "--fit", "batch")
    assert done.code == ExitCode.DOES_NOT_FIT and "nothing fits" in done.out


def test_the_table_has_a_line_for_every_card(command: Cli) -> None:
    rows = json.loads(command("estimate", "starter", "--table", "--json").out)["cards"]
    assert [row["card_gb"] for row in rows] == [8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 192]
    assert len(command("estimate", "starter", "--table").out.splitlines()) == 12


def test_a_preset_a_file_a_folder_and_a_model_are_all_understood(command: Cli, tmp_path: Path) -> None:
    file, folder = tmp_path / "run.toml", tmp_path / "model"
    file.write_text('[model]\nid = "starter"\n')
    shutil.copytree(MODEL_DIR, folder)
    for target in ("guanaco-7b", str(file), str(folder), LLAMA, "starter"):
        assert command("estimate", target, "--gpu", "24GB").code == 0, target


def test_without_a_gpu_it_is_about_ram(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_read_gpus", lambda: (None, ()))
    done = command("estimate", "starter", "--set", "model.device=auto")
    assert done.code == 0 and " on RAM" in done.out
    assert "--gpu 24GB" in done.err
    refused = command("estimate", "starter", "--set", "model.device=cuda")
    assert refused.code == ExitCode.ENVIRONMENT and "no NVIDIA GPU" in refused.err


class Driver:
    """NVML of a machine with two cards, of which the first may be lost."""

    class NVMLError(Exception):
        pass

    def __init__(self, lost: bool = False, free_bytes: int = 23 << 30) -> None:
        self.lost, self.free_bytes = lost, free_bytes

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if self.lost and index == 0:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=24 << 30, free=self.free_bytes - (2 * handle << 30))

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return f"card {handle}"

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvmlDeviceGet"):
            return self._unknown
        return lambda *_: None

    def _unknown(self, *_: Any) -> None:
        raise self.NVMLError("not supported")


def test_free_memory_of_the_card_counts_and_a_lost_card_is_said(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert "of 23.0 GiB free" in command("estimate", LLAMA, "--gpu", "0").out
    assert " on card 0" in command("estimate", LLAMA).out
    monkeypatch.setitem(sys.modules, "pynvml", Driver(lost=True))
    assert "of 21.0 GiB free" in command("estimate", LLAMA).out
    refused = command("estimate", LLAMA, "--gpu", "0")
    assert refused.code == ExitCode.ENVIRONMENT
    assert "there is no such GPU" in refused.err and "1 (card 1)" in refused.err


def test_the_workbench_and_a_queued_run_have_the_answer_of_the_command(
    command: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the usual fragmentation would let it fit and what a replay finds does not."""
    settings = ("training.gradient_checkpointing=on", "training.max_length_tokens=1024")
    config = resolve(overrides=["model.id=google/gemma-2-2b", *settings])
    facts = describe(config.model.id, network=False)
    usual, replayed = (estimate(config, facts, card(24), replay=replay).high_bytes for replay in (False, True))
    assert usual < replayed
    monkeypatch.setitem(sys.modules, "pynvml", Driver(free_bytes=(usual + replayed) // 2))
    flags = [word for setting in settings for word in ("--set", setting)]
    done = command("estimate", facts.id, "--json", *flags)
    content = json.loads(done.out)
    assert done.code == ExitCode.TIGHT and content["verdict"] == "tight"
    machine = hardware.snapshot()
    shown = pricing.price(config, facts, machine, replay=True)
    assert (shown.verdict.answer, shown.estimate.need_bytes) == ("tight", content["need_bytes"])
    assert pricing.badge(config, facts, automatic(machine)) == "tight"
    kept = before_start(config, machine)
    assert kept is not None and (kept["verdict"], kept["need_bytes"]) == ("tight", content["need_bytes"])


def altered(folder: Path, **keys: Any) -> Path:
    """A copy of the starter model whose config.json says something else."""
    shutil.copytree(MODEL_DIR, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | keys))
    return folder


@pytest.mark.parametrize(
    ("keys", "word"),
    [({"num_attention_heads": 7}, "heads"), ({"hidden_size": 0}, "hidden_size"), ({"num_hidden_layers": -2}, "layers"),
     ({"intermediate_size": 99}, "99"), ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq")],
)  # fmt: skip
def test_a_config_that_lies_or_is_quantized_is_refused_by_name(
    command: Cli, tmp_path: Path, keys: dict[str, Any], word: str
) -> None:
    done = command("estimate", str(altered(tmp_path / "model", **keys)), "--gpu", "24GB")
    assert done.code == ExitCode.MODEL
    assert word in done.err.lower() and "Traceback" not in done.err and not done.out


def test_what_is_no_base_model_is_refused(command: Cli, tmp_path: Path) -> None:
    adapter, gguf, shards = tmp_path / "adapter", tmp_path / "gguf", tmp_path / "shards"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}')
    gguf.mkdir()
    (gguf / "model.gguf").write_bytes(b"GGUF")
    shutil.copytree(MODEL_DIR, shards)
    (shards / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    for folder, word in ((adapter, "adapter"), (gguf, "gguf"), (shards, "model-00002-of-00002")):
        done = command("estimate", str(folder), "--gpu", "24GB")
        assert done.code == ExitCode.MODEL, folder
        assert word in done.err.lower() and "hint:" in done.err


def test_an_architecture_of_its_own_has_a_wide_band(command: Cli, tmp_path: Path) -> None:
    folders = altered(tmp_path / "a", model_type="unheard_of", architectures=["UnheardOf"]), altered(tmp_path / "b")
    content, known = (json.loads(command("estimate", str(folder), "--gpu", "24GB", "--json").out) for folder in folders)
    assert content["stored_bytes"] == known["stored_bytes"]
    assert content["high_bytes"] - content["low_bytes"] > known["high_bytes"] - known["low_bytes"]
    assert any("guess" in sentence for sentence in content["reasons"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("estimate",), ExitCode.USAGE, "nothing to estimate"),
        (("estimate", "guanaco-7"), ExitCode.NOT_FOUND, "guanaco-7b"),
        (("estimate", "gemma-2-9b"), ExitCode.NOT_FOUND, "google/gemma-2-9b"),
        (("estimate", "no/such-model"), ExitCode.MODEL, "no/such-model"),
        (("estimate", "meta-llama/Llama-3.1-8"), ExitCode.MODEL, "Did you mean meta-llama/Llama-3.1-8B?"),
        (("estimate", "starter", "--gpu", "99"), ExitCode.ENVIRONMENT, "24GB"),
        (("estimate", "starter", "--gpu", "huge"), ExitCode.USAGE, "huge"),
        (("estimate", "starter", "--gpu", "²"), ExitCode.USAGE, "not a card"),
        (("estimate", "no/such-model", "--gpu", "huge"), ExitCode.USAGE, "huge"),
        (("estimate", "no/such-model", "--fit", "speed"), ExitCode.USAGE, "speed"),
        (("estimate", "starter", "--fit", "speed"), ExitCode.USAGE, "batch, length, rank"),
        (("estimate", "starter", "--gpu", "2x24GB", "--strategy", "magic"), ExitCode.USAGE, "ddp"),
        (("estimate", "starter", "--gpu", "24GB", "--strategy", "fsdp"), ExitCode.USAGE, "2x24GB"),
        (("estimate", LLAMA, "--gpu", "99x24GB", "--strategy", "layer-split"), ExitCode.USAGE, "32 layers"),
        (("estimate", LLAMA, "--table", "--fit", "rank"), ExitCode.USAGE, "one at a time"),
        (("estimate", "starter", "--set", "training.micro_batch_size=0"), ExitCode.CONFIG, "micro_batch_size"),
        (("estimate", "starter", "--set", "training.max_length_tokens=-5"), ExitCode.CONFIG, "max_length_tokens"),
        (("estimate", LLAMA, "--probe", "--gpu", "24GB"), ExitCode.USAGE, "--probe"),
    ],
)
def test_mistakes_have_one_answer(command: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    done = command(*words)
    assert done.code == code
    assert said in done.err and "Traceback" not in done.err


def test_absurd_lengths_are_estimated_with_a_warning(command: Cli) -> None:
    done = command("estimate", LLAMA, "--gpu", "24GB", "--set", "training.max_length_tokens=10000000")
    assert done.code == ExitCode.DOES_NOT_FIT and "rope scaling" in done.err


PROBED = """
import json, os, sys
asked = json.load(sys.stdin)
sizes = {"peak_bytes": 1 << 30, "reserved_bytes": 1 << 30, "context_bytes": 0, "rows": 1, "row_tokens": 16}
print(json.dumps({"result": {"device": os.environ["CUDA_VISIBLE_DEVICES"], **sizes}}))
"""
"""A child in the place of the real one: it answers with the card it was given."""


def test_the_card_that_is_named_is_measured_and_no_other(
    command: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_cards(monkeypatch, 8, 20)
    (tmp_path / "probed.py").write_text(PROBED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(estimate_measure, "PROBE", "probed")
    for asked, card_name in ((("--gpu", "0"), "GPU-0"), ((), "GPU-1")):
        done = command("estimate", str(MODEL_DIR), "--probe", "--json", *asked)
        assert done.code == ExitCode.OK, done.err
        assert json.loads(done.out)["device"] == card_name
    for elsewhere in ("24GB", "cpu"):
        done = command("estimate", str(MODEL_DIR), "--probe", "--gpu", elsewhere)
        assert done.code == ExitCode.USAGE and "--probe measures on this machine's card" in done.err


def finished(name: str, estimated: int, measured: int) -> None:
    plan = {
        "model": "starter",
        "estimate": {"peak_bytes": estimated, "kind": "cpu", "device": "RAM", "source": "closed form"},
    }
    run = store.create(name, resolve(), plan)
    writer = EventWriter(run.events)
    writer.write(events.Created(name=name, program_version="1"))
    writer.write(events.Finished(step=1, train_seconds=1.0, peak_bytes=measured))
    writer.close()


def test_history_holds_estimates_against_what_was_measured(command: Cli) -> None:
    assert "no finished run" in command("estimate", "--history").err
    finished("first", 1100, 1000)
    finished("second", 950, 1000)
    store.create("unfinished", resolve(), {"estimate": {"peak_bytes": 5, "kind": "cpu"}})
    history = json.loads(command("estimate", "--history", "--json").out)["runs"]
    errors = {row["run"]: row["error"] for row in history}
    assert errors == {"first": pytest.approx(0.1), "second": pytest.approx(-0.05)}
    assert "+10.0%" in command("estimate", "--history").out
    told = command("estimate", "starter", "--gpu", "cpu").err
    assert "Checked here by 2 finished runs: off by 7.5% in the median, 10.0% at most" in told


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "layer-split"])
def test_what_several_cards_need_is_said_to_be_of_another_trainer(command: Cli, strategy: str) -> None:
    asked = ("estimate", "guanaco-65b", "--gpu", "2x48GB", "--strategy", strategy)
    told = command(*asked)
    assert told.code == ExitCode.OK and max(map(len, told.out.splitlines())) <= 80
    plain = " ".join(told.out.split())
    for said in (plain, json.loads(command(*asked, "--json").out)["reason"], command(*asked, "--fit", "batch").err):
        assert "qlora-tui trains on one card" in said and "--gpu 48GB" in said
    alone = command("estimate", "guanaco-65b", "--gpu", "80GB", "--json")
    assert "another trainer" not in alone.out


def test_what_does_not_fit_several_cards_is_said_to_be_of_another_trainer(command: Cli) -> None:
    refused = command("estimate", "guanaco-65b", "--gpu", "2x8GB", "--strategy", "fsdp")
    assert refused.code == ExitCode.DOES_NOT_FIT
    assert "qlora-tui trains on one card" in refused.err and "--gpu 8GB" in refused.err
