"""The dry run beside the GPU's own counters. Run with `make test-gpu`; fails at once on a machine without a GPU."""

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.2-1B", "huggyllama/llama-7b"])
@pytest.mark.parametrize("recipe", ["lean", "original"])
@pytest.mark.parametrize("tokens", [512, 1024, 2048])
def test_the_dry_run_predicts_what_the_gpu_allocates_and_reserves(model: str, recipe: str, tokens: int) -> None:
    from qlora_tui.engine.simulation.gpu_check import compare

    row = compare(model, recipe, tokens)
    print(row)
    assert abs(row["allocated_error_percent"]) <= 3
    assert abs(row["reserved_error_percent"]) <= 5
