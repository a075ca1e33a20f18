"""The dry run: against real tensors, against the shipped programs, and as a child process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ExitCode
from qlora_tui.memory.program import ProgramKey, evaluate, find, named
from qlora_tui.memory.recorded import to_json

MIB = 1 << 20
TINY = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_7B = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "tie_word_embeddings": False,
}  # fmt: skip


def configured(**training: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"id": "tiny", "attention": "eager"},
            "adapter": {"rank": 8},
            "training": {
                "micro_batch_size": 2,
                "gradient_accumulation_steps": 1,
                "gradient_checkpointing": "on",
                "optimizer": "adamw_torch",
            }
            | training,
        }
    )


def hf_config(keys: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(**keys)


def grown_bytes(config: RunConfig, *, real: bool, observe: Any = None) -> int:
    """Peak of the step above what is stored, without the scratch that only a GPU takes."""
    from contextlib import nullcontext

    from qlora_tui.engine.simulation.scratch import Gpu
    from qlora_tui.engine.simulation.simulate import Workload, simulate

    workload = Workload(tokens=256, gpu=Gpu(multiprocessors=0), real=real, full_loss=True)
    found = simulate(config, hf_config(TINY), workload, observe=observe or nullcontext)
    return found.peak_bytes - found.stored_bytes


def outlasting(event: Any, *, is_operation: bool = False) -> Iterator[Any]:
    """What was allocated and freed, without what an operation takes and gives back: CPU kernels convert their arguments
    and lay matrices out anew, which those of a GPU do not."""
    if event.name == "[memory]":
        yield event
    elif is_operation:
        taken: dict[int, Any] = {}
        for each in sorted(allocations(event), key=lambda one: one.start_time_ns):
            if each.extra_fields.alloc_size > 0:
                taken[each.extra_fields.ptr] = each
            elif taken.pop(each.extra_fields.ptr, None) is None:
                yield each
        yield from taken.values()
    else:
        for child in event.children:
            yield from outlasting(child, is_operation=event.name == "PythonDispatchMode")


def allocations(event: Any) -> Iterator[Any]:
    """All that was allocated and freed within an event of the profiler."""
    if event.name == "[memory]":
        yield event
    for child in event.children:
        yield from allocations(child)


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"kind": "8bit"},
        pytest.param({"gradient_checkpointing": "off"}, marks=pytest.mark.long),
        pytest.param({"recipe": "original"}, marks=pytest.mark.long),
        pytest.param({"gradient_accumulation_steps": 2}, marks=pytest.mark.long),
    ],
)
def test_tensors_without_data_take_what_real_ones_take(training: dict[str, Any]) -> None:
    """The ledger of both, and the trace of the allocator beneath the real ones."""
    import torch

    kind, training = training.get("kind", "nf4"), {name: value for name, value in training.items() if name != "kind"}
    config = with_kind(configured(**training), kind)
    fake = grown_bytes(config, real=False)
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    real = grown_bytes(config, real=True, observe=lambda: profiler)
    level = traced = 0
    tree = profiler.profiler.kineto_results.experimental_event_tree()
    for event in sorted((one for root in tree for one in outlasting(root)), key=lambda one: one.start_time_ns):
        level += event.extra_fields.alloc_size
        traced = max(traced, level)
    if config.training.gradient_checkpointing == "on":
        # Checkpointing keeps the random state at each layer, in RAM even when training is on a GPU.
        traced -= torch.get_rng_state().nbytes * TINY["num_hidden_layers"]
    assert abs(fake - real) <= 0.01 * MIB
    assert abs(real - traced) <= 0.01 * MIB


def with_kind(config: RunConfig, kind: str) -> RunConfig:
    return config.model_copy(update={"quantization": config.quantization.model_copy(update={"kind": kind})})


def test_an_8_bit_base_keeps_no_more_than_a_4_bit_one_with_checkpointing() -> None:
    """The inputs of its products least of all, which bitsandbytes keeps where checkpointing cannot drop them."""
    from qlora_tui.engine.simulation.simulate import Workload, simulate

    deep = TINY | {"num_hidden_layers": 12}
    grown = {}
    for kind in ("nf4", "8bit"):
        found = simulate(with_kind(configured(), kind), hf_config(deep), Workload(tokens=256))
        grown[kind] = found.peak_bytes - found.stored_bytes
        assert found.by_category["packed weights"] > 0
    inputs_bytes = 12 * 2 * 256 * 2 * (6 * 256 + 704)
    assert grown["8bit"] < grown["nf4"] + inputs_bytes // 4


@pytest.mark.parametrize("model", ["google/gemma-3-4b-pt", "meta-llama/Llama-4-Scout-17B-16E"])
def test_config_of_a_multimodal_model_is_made_from_the_catalogue(model: str) -> None:
    """Despite the missing rope scaling of `text_config` in the catalogue."""
    from qlora_tui.config.model import ModelSpec
    from qlora_tui.engine.simulation.hf_config import of_model
    from qlora_tui.models import describe

    text = of_model(ModelSpec(id=model)).get_text_config()
    facts = describe(model, network=False)
    assert (text.hidden_size, text.num_hidden_layers) == (facts.hidden_size, facts.layers)


def test_llama_4_trains_without_an_adapter_on_its_router() -> None:
    """The router returns two tensors, and layers and experts have other names than TRL's loss expects."""
    from qlora_tui.engine.simulation.simulate import Workload, simulate

    text = TINY | {
        "model_type": "llama4_text", "head_dim": 32, "intermediate_size_mlp": 704, "num_local_experts": 4,
        "interleave_moe_layer_step": 2,
    }  # fmt: skip
    found = simulate(configured(), hf_config({"model_type": "llama4", "text_config": text}), Workload(tokens=64))
    sizes = [(256, 256), (256, 64), (256, 64), (256, 256), (256, 704), (256, 704), (704, 256)]
    assert found.trainable_parameters == 2 * 8 * sum(map(sum, sizes))


def test_libraries_are_put_back() -> None:
    import torch

    from qlora_tui.engine.simulation.cuda_paths import cuda_paths

    before = (torch.nn.functional.dropout, torch.nn.Module._apply, torch.cuda.is_bf16_supported)
    with cuda_paths(padded=False, autocast=torch.bfloat16):
        assert torch.nn.functional.dropout is not before[0]
    assert (torch.nn.functional.dropout, torch.nn.Module._apply, torch.cuda.is_bf16_supported) == before


def test_no_dimension_of_a_miniature_is_like_another_or_like_a_number_in_a_program() -> None:
    """A size is named by its value: a dimension of 2 would be taken for any pair."""
    from qlora_tui.engine.simulation import generate, miniature
    from qlora_tui.memory.program import texts

    for family in generate.FAMILIES:
        numbers: set[int] = set()
        for text in texts(family).values():
            for _, names in json.loads(text)["symbols"]:
                numbers |= {side for side in names if isinstance(side, int)}
        for single in (False, True):
            sizes = miniature.named_sizes(family, single=single)
            assert min(sizes.values()) > 4
            assert numbers.isdisjoint(sizes.values()), family
            assert miniature.confused(family, single=single) == [], family


@pytest.mark.long
@pytest.mark.parametrize("family", ["llama", "olmo2", "cohere2", "phi_ungrouped", "qwen3_moe"])
def test_a_shipped_program_is_what_a_dry_run_gives_today(family: str) -> None:
    from qlora_tui.engine.simulation.derive import derive

    key = ProgramKey(checkpointing=False)
    shipped = named(family, key.name)
    assert shipped is not None
    assert json.loads(json.dumps(to_json(derive(family, key)))) == json.loads(json.dumps(to_json(shipped)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("recipe", "tokens", "gib"), [("lean", 512, 4.42), ("original", 512, 4.48), ("lean", 2048, 5.01)]
)
def test_llama_7b_as_the_paper_trained_it(recipe: str, tokens: int, gib: float) -> None:
    """r = 64 on all linear layers, batch 1, paged AdamW: the dry run, and the program beside it."""
    from qlora_tui.engine.simulation.simulate import Workload, simulate

    config = configured(recipe=recipe, micro_batch_size=1, optimizer="paged_adamw_32bit")
    config = config.model_copy(
        update={
            "model": config.model.model_copy(update={"attention": "sdpa"}),
            "adapter": config.adapter.model_copy(update={"rank": 64, "dropout": 0.1}),
        }
    )
    found = simulate(config, hf_config(LLAMA_7B), Workload(tokens=tokens))
    assert found.peak_bytes / (1 << 30) == pytest.approx(gib, abs=0.01)
    shipped = find("llama", ProgramKey(recipe=recipe, dropout=True))
    assert shipped is not None
    dims = {"h": 4096, "f": 11008, "L": 32, "H": 32, "K": 32, "d": 128, "V": 32000, "B": 1, "S": tokens, "r": 64}
    assert evaluate(shipped, dims).peak_bytes + found.stored_bytes == pytest.approx(found.peak_bytes, rel=1e-3)


def ask(request: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    child = subprocess.run(
        [sys.executable, "-m", "qlora_tui.engine.simulation"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    return child.returncode, [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]


@pytest.mark.long
def test_the_child_answers_in_json_lines() -> None:
    code, lines = ask({"config": configured().model_dump(mode="json"), "tokens": 64, "hf_config": TINY})
    assert code == ExitCode.OK
    assert [line["stage"] for line in lines[:-1]] == ["importing", "building", "quantizing", "attaching", "step"]
    result = lines[-1]["result"]
    assert result["stored_bytes"] < result["step_peak_bytes"] <= result["peak_bytes"] <= result["capacity_bytes"]
    assert sum(result["by_category"].values()) == result["step_peak_bytes"]
    assert result["largest"][0]["bytes"] > 0


@pytest.mark.long
def test_the_child_explains_a_model_it_cannot_find() -> None:
    code, lines = ask({"config": configured().model_dump(mode="json") | {"model": {"id": "no/such"}}, "tokens": 64})
    assert code == ExitCode.MODEL
    assert "no/such" in lines[-1]["error"]
