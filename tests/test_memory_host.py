"""What a run takes in RAM on a CPU: the imports of the installed wheel, the tokenizer, and mapped weight files."""

from dataclasses import replace
from pathlib import Path

import pytest

from qlora_tui import hardware
from qlora_tui.config.overrides import resolve
from qlora_tui.memory import context, device
from qlora_tui.memory.estimate import Estimate, estimate, verdict
from qlora_tui.models import describe

MIB = 1 << 20


@pytest.fixture(autouse=True)
def forgotten() -> None:
    context.has_cuda_build.cache_clear()
    context._installed.cache_clear()


def cpu_estimate(*overrides: str, vocab: int | None = None, checkpoint_bytes: int | None = None) -> Estimate:
    config = resolve("starter", None, ["model.device=cpu", *overrides])
    facts = describe(config.model.id)
    facts = replace(facts, vocab_size=vocab or facts.vocab_size)
    facts = replace(facts, checkpoint_bytes=checkpoint_bytes or facts.checkpoint_bytes)
    return estimate(config, facts, device.host(hardware.snapshot()), longest_tokens=64)


def test_interval_of_the_demo_holds_what_it_took() -> None:
    """As measured in three runs with the CPU build of PyTorch."""
    found = cpu_estimate()
    for measured_bytes in (799e6, 809e6, 822e6):
        assert found.low_bytes < measured_bytes < found.high_bytes


def test_a_cuda_build_counts_what_its_libraries_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "has_cuda_build", lambda: True)
    found = cpu_estimate()
    for measured_mib in (1055, 1136, 1290):
        assert found.low_bytes < measured_mib * MIB < found.high_bytes
    assert "PyTorch build" in " ".join(found.reasons)


def test_cuda_build_is_told_by_its_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "torch", raising=False)
    assert not context.has_cuda_build()
    context.has_cuda_build.cache_clear()
    (tmp_path / "torch" / "lib" / "libtorch_cuda.so").touch()
    assert context.has_cuda_build()


def test_measured_imports_replace_the_assumption() -> None:
    before = cpu_estimate()
    context.remember_imports(700 * MIB)
    assert context.imported_bytes() == (700 * MIB, True)
    after = cpu_estimate()
    assert after.need_bytes - before.need_bytes == pytest.approx((700 - 494) * MIB, abs=MIB)
    assert "PyTorch build" not in " ".join(after.reasons)
    context.remember_imports(701 * MIB)
    assert context.imported_bytes() == (700 * MIB, True), "about the same is not written again"


def test_a_large_vocabulary_takes_memory_for_its_tokenizer() -> None:
    terms = {term.key: term.bytes for term in cpu_estimate(vocab=262_144).terms}
    assert 250 * MIB < terms["tokenizer"] < 400 * MIB


def test_mapped_weight_files_count_into_the_peak_and_not_into_the_need() -> None:
    small, large = cpu_estimate(), cpu_estimate(checkpoint_bytes=3 << 30)
    assert large.need_bytes == small.need_bytes
    assert large.peak_bytes == large.full_bytes > 3 << 30
    assert large.peak_phase == "load"
    free_bytes = small.high_bytes + MIB
    assert verdict(large, free_bytes).answer == "fits"
    assert "weight files" in verdict(large, free_bytes).reason
