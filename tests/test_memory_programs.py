"""The shipped memory programs, without torch."""

import json
import statistics
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from typing import Any

import pytest

from qlora_tui.config.run import RunConfig
from qlora_tui.memory import program, step
from qlora_tui.memory.allocator import Trace
from qlora_tui.memory.choices import choose
from qlora_tui.memory.device import card
from qlora_tui.memory.estimate import estimate
from qlora_tui.memory.program import PROGRAMS, Program, ProgramKey, evaluate, expand, find
from qlora_tui.memory.recorded import from_json, to_json
from qlora_tui.models import catalogue
from qlora_tui.models.assemble import assemble

LLAMA_8B = {"h": 4096, "f": 14336, "L": 32, "H": 32, "K": 8, "d": 128, "V": 128256, "B": 2, "S": 2048, "r": 16}
FAMILIES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3_text", "phi3", "olmo2", "granite",
    "cohere", "cohere2", "smollm3", "qwen2_moe", "gpt_oss",
)  # fmt: skip
UNGROUPED = ("phi3", "stablelm", "phi", "gpt_neox", "gpt2", "opt", "bloom")
GRID = PROGRAMS / "grid.json"
USUAL = [
    ProgramKey(recipe, checkpointing, dropout)  # type: ignore[arg-type]
    for recipe, checkpointing, dropout in product(("lean", "original"), (True, False), (False, True))
]


def shipped(key: ProgramKey, family: str = "llama", *, grouped: bool = True) -> Program:
    found = find(family, key, grouped=grouped)
    assert found is not None, f"{family} {key.name}"
    return found


def grid() -> list[dict[str, Any]]:
    return list(json.loads(GRID.read_text())["rows"])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_usual_recipe_is_shipped(family: str) -> None:
    for key in USUAL:
        assert shipped(key, family).blocks["F2"]


@pytest.mark.parametrize("family", UNGROUPED)
def test_every_usual_recipe_is_shipped_for_heads_with_keys_of_their_own(family: str) -> None:
    for key in USUAL:
        assert shipped(key, family, grouped=False).blocks["F2"]


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_mixtures_whose_experts_are_adapted_have_no_dropout(family: str) -> None:
    for key in USUAL:
        assert (find(family, key) is None) is key.dropout


@pytest.mark.parametrize(
    ("model", "changed"),
    [
        ("EleutherAI/pythia-160m", {"use_parallel_residual": False}),
        ("openai-community/gpt2", {"activation_function": "gelu"}),
        ("openai-community/gpt2", {"resid_pdrop": 0.0}),
        ("facebook/opt-1.3b", {"do_layer_norm_before": False}),
        ("facebook/opt-1.3b", {"word_embed_proj_dim": 512}),
        ("bigscience/bloom-1b7", {"hidden_dropout": 0.1}),
    ],
)
def test_a_model_whose_layers_are_made_otherwise_than_its_familys_gets_the_closed_form(
    model: str, changed: dict[str, Any]
) -> None:
    known = catalogue.find(model)
    assert known is not None
    config = RunConfig.model_validate({"model": {"id": model}})
    for keys, source in (({}, "symbolic program"), (changed, "closed form")):
        facts = assemble(replace(known, config={**known.config, **keys}))
        assert estimate(config, facts, card(24), longest_tokens=512).source == source


def test_an_unknown_family_has_none() -> None:
    assert find("no_such_family", ProgramKey()) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_is_read_as_it_was_written(family: str) -> None:
    found = shipped(ProgramKey(), family)
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


def test_programs_are_of_the_installed_libraries() -> None:
    for family in FAMILIES:
        for library, recorded in shipped(ProgramKey(), family).versions.items():
            assert version(library).partition("+")[0] == recorded, f"`make programs`: {library} has changed"


@pytest.mark.parametrize("key", USUAL, ids=lambda key: key.name)
@pytest.mark.parametrize("accumulate", [False, True])
def test_the_unrolled_step_peaks_where_the_evaluation_says(key: ProgramKey, accumulate: bool) -> None:
    trace = Trace()
    expand(shipped(key), LLAMA_8B, trace, accumulate=accumulate)
    peak = evaluate(shipped(key), LLAMA_8B, accumulate=accumulate)
    assert trace.peak_bytes == pytest.approx(peak.peak_bytes, rel=1e-3)


@pytest.mark.parametrize("key", USUAL, ids=lambda key: key.name)
def test_categories_sum_up_to_the_peak(key: ProgramKey) -> None:
    for accumulate in (False, True):
        peak = evaluate(shipped(key), LLAMA_8B, accumulate=accumulate)
        assert sum(peak.by_category.values()) == peak.peak_bytes == max(peak.by_phase.values())


def test_the_part_of_a_head_that_is_rotated_counts() -> None:
    """Half of each head where phi-2's config says nothing; all of it saves more of the rotated queries."""
    known = catalogue.find("microsoft/phi-2")
    assert known is not None
    config = RunConfig.model_validate({"model": {"id": "phi"}, "training": {"gradient_checkpointing": "off"}})
    sizes = []
    for changed in ({"partial_rotary_factor": 0.4}, {}, {"rope_parameters": {"partial_rotary_factor": 1.0}}):
        facts = assemble(replace(known, config={**known.config, **changed}))
        batch = step.shape(config, 1024)
        key = step.program_key(config, facts, choose(config, card(80)), batch, checkpointing=False)
        dims = step.dims(config, facts, batch)
        trace = Trace()
        expand(shipped(key, "phi", grouped=False), dims, trace)
        sizes.append((dims["rot"], sum(trace.sizes)))
    assert [rotated for rotated, _ in sizes] == [32, 40, 80]
    assert sizes == sorted(sizes)


def test_nothing_is_left_when_the_step_is_over() -> None:
    trace = Trace()
    expand(shipped(ProgramKey()), LLAMA_8B, trace)
    left = list(trace.levels())[-1]
    assert left < 0.01 * trace.peak_bytes


@pytest.mark.parametrize("key", USUAL, ids=lambda key: key.name)
@pytest.mark.parametrize("name", ["B", "S", "L", "h", "f", "r"])
def test_more_of_anything_needs_no_less(key: ProgramKey, name: str) -> None:
    peaks = [evaluate(shipped(key), LLAMA_8B | {name: LLAMA_8B[name] * factor}).peak_bytes for factor in (1, 2, 4)]
    assert peaks == sorted(peaks)


def test_without_checkpointing_memory_is_linear_in_layers() -> None:
    peaks = [evaluate(shipped(ProgramKey(checkpointing=False)), LLAMA_8B | {"L": n}).peak_bytes for n in (20, 30, 40)]
    assert peaks[2] - peaks[1] == peaks[1] - peaks[0] > 0


def test_checkpointing_saves_most_of_the_activations() -> None:
    checkpointed = evaluate(shipped(ProgramKey()), LLAMA_8B).peak_bytes
    assert 4 * checkpointed < evaluate(shipped(ProgramKey(checkpointing=False)), LLAMA_8B).peak_bytes


def test_an_optimizer_that_copies_the_adapter_can_set_the_peak() -> None:
    short = LLAMA_8B | {"B": 1, "S": 16, "r": 256}
    plain = evaluate(shipped(ProgramKey()), short)
    copying = evaluate(shipped(ProgramKey()), short, optimizer_step_bytes=4 << 30)
    assert plain.phase != "step"
    assert copying.phase == "step"
    assert copying.by_category["optimizer"] == 4 << 30
    assert copying.layer is None


def test_gradients_live_through_the_forward_pass_when_they_accumulate() -> None:
    found = shipped(ProgramKey())
    once, again = evaluate(found, LLAMA_8B), evaluate(found, LLAMA_8B, accumulate=True)
    gradients = program.gradient_bytes(found, LLAMA_8B)
    weights = 2 * LLAMA_8B["r"] * LLAMA_8B["L"] * (7 * 4096 + 2 * 4096 + 2 * 1024 + 3 * 14336)
    assert gradients == pytest.approx(weights, rel=0.01)
    assert again.by_phase["forward"] == once.by_phase["forward"] + gradients


def test_layers_without_a_window_need_no_mask() -> None:
    """Gemma 3 on a row longer than its window: the fewer layers have one, the fewer masks are kept."""
    found = shipped(ProgramKey(checkpointing=False, windowed=True), "gemma3_text")
    long_row = LLAMA_8B | {"B": 1, "S": 8192}
    rarely, often = (evaluate(found, long_row | {"every": every}).peak_bytes for every in (6, 2))
    masked_everywhere = shipped(ProgramKey(checkpointing=False, masked=True), "gemma3_text")
    assert often < rarely < evaluate(masked_everywhere, long_row).peak_bytes


def test_one_row_keeps_the_fused_projection_alive_where_there_is_one() -> None:
    single = ProgramKey(checkpointing=False, attention="eager", single=True)
    row = LLAMA_8B | {"B": 1, "K": LLAMA_8B["H"]}
    alone = evaluate(shipped(single, "phi3", grouped=False), row).peak_bytes
    assert alone > 1.02 * evaluate(shipped(replace(single, single=False), "phi3", grouped=False), row).peak_bytes
    assert shipped(single) is shipped(replace(single, single=False))


def test_a_family_without_fused_attention_gets_the_eager_step() -> None:
    assert shipped(ProgramKey(masked=True), "gemma2") is shipped(ProgramKey(attention="eager"), "gemma2")


def test_gradients_are_added_before_the_next_operation() -> None:
    """The second micro-batch holds a gradient only beside the operation that made it."""
    found = shipped(ProgramKey())
    for name, events in found.accumulating().blocks.items():
        made = [event for event in events if event in found.gradients]
        freed = [-event for event in events if -event in found.gradients]
        assert sorted(made) == sorted(freed), name


def recorded(row: dict[str, Any]) -> Program:
    from qlora_tui.engine.simulation import grid as made

    config, (_, facts) = made.run_config(row), made.model(row)
    choices, batch = choose(config, card(1024)), step.shape(config, row["tokens"])
    found = step.recorded(config, facts, choices, batch, row["checkpointing"] == "on")
    assert found is not None, row
    assert found.family == row["family"]
    return found


def test_programs_are_as_close_to_full_dry_runs_as_is_claimed() -> None:
    """Each case of the stored grid again: peak of the program beside that of the full dry run."""
    errors = []
    for row in grid():
        peak = evaluate(
            recorded(row),
            row["dims"],
            accumulate=row["accumulate"] > 1,
            optimizer_step_bytes=row["optimizer_step_bytes"],
        )
        errors.append(abs((peak.peak_bytes + row["stored"]) / row["peak"] - 1))
    assert statistics.median(errors) <= 0.001
    assert max(errors) <= 0.02


def trains_all_weights(row: dict[str, Any]) -> bool:
    return row.get("adapter") == "full"


def test_the_smallest_capacity_is_within_five_percent() -> None:
    """Of one small model that is trained in full, whose fragmentation is a larger share, within ten."""
    for row in grid():
        assert abs(row["program_capacity"] / row["capacity"] - 1) <= (0.10 if trains_all_weights(row) else 0.05), row


def test_the_estimate_alone_is_close_to_the_smallest_capacity() -> None:
    """Without anything of the dry run: what is loaded and prepared before the step is counted, too."""
    rows = [row for row in grid() if "estimate_capacity" in row]
    errors = [abs(row["estimate_capacity"] / row["capacity"] - 1) for row in rows]
    assert statistics.median(errors) <= 0.01
    assert sum(error > 0.06 for error in errors) <= 1
    assert max(errors) <= 0.10


def test_whole_models_are_estimated_as_the_stored_table_says() -> None:
    """With the code as it is, so that loading or preparing counted in another order is noticed."""
    from qlora_tui.engine.simulation import grid as made

    rows = [row for row in grid() if "estimate_capacity" in row and row["depth"] is None]
    assert {row["recipe"] for row in rows} == {"lean", "original"}
    for row in rows:
        config, (_, facts) = made.run_config(row), made.model(row)
        found = estimate(config, facts, card(1024), longest_tokens=row["tokens"], replay=True)
        assert abs((found.need_bytes - found.device.context_bytes) / row["capacity"] - 1) <= 0.05, row


def test_any_list_of_linear_layers_and_any_base_is_as_close() -> None:
    """The sample of the whole catalogue: adapters on some linear layers, bases of 4, 8 and 16 bits."""
    rows = [row for row in grid() if "targets" in row]
    assert len(rows) >= 40
    assert {row["kind"] for row in rows} == {"nf4", "8bit", "none"}
    errors = [abs(row["program_peak"] / row["peak"] - 1) for row in rows]
    assert statistics.median(errors) <= 0.0001
    assert max(errors) <= 0.02


def partial(targets: frozenset[str], key: ProgramKey = USUAL[0], family: str = "llama") -> Program:
    found = find(family, key, wanted=targets)
    assert found is not None, targets
    return found


@pytest.mark.parametrize("key", USUAL, ids=lambda key: key.name)
def test_all_linear_layers_by_name_are_all_linear_layers(key: ProgramKey) -> None:
    names = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
    assert partial(names, key) is shipped(key)


@pytest.mark.parametrize("key", USUAL, ids=lambda key: key.name)
@pytest.mark.parametrize("targets", ["q_proj v_proj", "q_proj k_proj v_proj o_proj", "down_proj", "gate_proj up_proj"])
def test_fewer_adapters_need_no_more(key: ProgramKey, targets: str) -> None:
    found = partial(frozenset(targets.split()), key)
    assert evaluate(found, LLAMA_8B).peak_bytes <= evaluate(shipped(key), LLAMA_8B).peak_bytes
    gradients = program.gradient_bytes(found, LLAMA_8B)
    assert 0 < gradients < program.gradient_bytes(shipped(key), LLAMA_8B)
    trace = Trace()
    expand(found, LLAMA_8B, trace)
    assert trace.peak_bytes == pytest.approx(evaluate(found, LLAMA_8B).peak_bytes, rel=1e-3)
    assert list(trace.levels())[-1] < 0.01 * trace.peak_bytes


def test_a_linear_layer_that_a_family_lacks_has_no_program() -> None:
    assert find("llama", ProgramKey(), wanted=frozenset({"q_proj", "qkv_proj"})) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"layers_to_transform": [0, 1]},
        {"rank_pattern": ["q_proj=4"]},
        {"modules_to_save": ["lm_head"]},
        {"dora": True},
    ],
)
def test_layers_that_differ_get_the_closed_form(changes: dict[str, Any]) -> None:
    known = catalogue.find("meta-llama/Llama-3.1-8B")
    assert known is not None
    config = RunConfig.model_validate({"model": {"id": "llama"}, "adapter": {"target_modules": ["q_proj"], **changes}})
    assert estimate(config, assemble(known), card(24), longest_tokens=512).source == "closed form"


def test_the_grid_has_every_switch() -> None:
    rows = grid()
    assert len(rows) >= 60
    assert len({row["model"] for row in rows}) >= 35
    assert {row["tokens"] for row in rows} == {512, 1024, 2048, 4096, 8192}
    assert any(row["depth"] is None for row in rows)
    switches = ("rows", "rank", "dropout", "optimizer", "recipe", "checkpointing", "packing", "attention")
    for switch in switches:
        assert len({row[switch] for row in rows}) >= 2, switch


def test_every_family_is_in_the_grid_with_and_without_checkpointing() -> None:
    held = {(row["family"], row["checkpointing"]) for row in grid()}
    for archive in PROGRAMS.glob("*.xz"):
        assert {(archive.stem, "on"), (archive.stem, "off")} <= held, archive.stem


def test_the_grid_is_of_the_installed_libraries() -> None:
    for library, made_with in json.loads(GRID.read_text())["versions"].items():
        assert version(library).partition("+")[0] == made_with, f"`make memory-grid`: {library} has changed"
