"""Why an estimate is what it is, and what the user should be warned of, in sentences."""

from collections.abc import Iterator

from qlora_tui.memory.module_names import Misnamed, misnamed, of_facts
from qlora_tui.memory.phases import Run
from qlora_tui.memory.trainable import PAGED_ELEMENTS


def reasons(run: Run, *, replayed: bool) -> tuple[str, ...]:
    """What the numbers rest on, the most important first."""
    return tuple(_reasons(run, replayed))


def warnings(run: Run) -> tuple[str, ...]:
    """What is unusual about the run, whether it fits or not."""
    return tuple(_warnings(run))


def _reasons(run: Run, replayed: bool) -> Iterator[str]:
    facts, step = run.facts, run.step
    if step.program is not None:
        versions = ", ".join(f"{name} {version}" for name, version in sorted(step.program.versions.items()))
        yield f"The step was recorded from a dry run of {facts.model_type} with {versions}."
    else:
        yield (
            f"No recorded step fits {facts.model_type} with these settings: the step is a closed form, "
            f"± {step.band:.0%} of its activations."
        )
    if facts.origin == "catalogue":
        yield "The shapes come from the shipped catalogue, not from the model's own files."
    if facts.family is None:
        yield f"Architecture {facts.model_type} has no entry of its own: which weights become 4-bit is a guess."
    if not run.device.context_measured and not run.on_gpu:
        yield "The libraries' memory is typical of the installed PyTorch build; the first run measures it here."
    elif not run.device.context_measured:
        yield "The CUDA context is assumed, ± 150 MiB; `--probe` measures it on the card itself."
    if replayed and step.program is not None:
        yield f"Fragmentation comes from a replay of PyTorch's caching allocator, ± {run.replay_uncertainty:.0%}."
    else:
        usual, high = run.fragmentation.usual, run.fragmentation.high
        yield f"Fragmentation is assumed: {usual:.0%} of what is allocated, {high:.0%} at most."
    if run.config.training.packing:
        yield "Packed rows are always as long as training.max_length_tokens, and need a 4-D attention mask."
    if run.state.unpaged_tensors and run.state.paged_bytes:
        yield f"{run.state.unpaged_tensors:,} trained tensors are below {PAGED_ELEMENTS:,} elements and never paged."
    elif run.state.unpaged_tensors:
        yield f"No trained tensor has {PAGED_ELEMENTS:,} elements, so the optimizer pages nothing."


def _warnings(run: Run) -> Iterator[str]:
    facts, limit = run.facts, run.config.training.max_length_tokens
    if facts.context_tokens and limit > facts.context_tokens:
        scaling = f" (its rope scaling, {facts.rope_scaling}, is counted already)" if facts.rope_scaling else ""
        yield (
            f"training.max_length_tokens = {limit:,} is beyond the {facts.context_tokens:,} tokens that {facts.id} was "
            f"made for{scaling}: without rope scaling it cannot tell positions after that apart."
        )
    if facts.encoder_decoder:
        yield f"{facts.id} is an encoder-decoder model, which cannot be trained here; the weights are counted anyway."
    experts = facts.parameters_by_class.get("expert", 0)
    if experts and run.config.quantization.kind != "none":
        yield f"{experts:,} parameters in experts stay unquantized: transformers 5 fuses them."
    if experts and run.original:
        yield "training.recipe = original makes float32 of what experts take as bfloat16, so the step fails: use lean."
    wrong = list(_misnamed(run))
    yield from (f"adapter.{one.key}: {one.entry} {one.problem}: the run will be refused. {one.hint}" for one in wrong)
    if not run.trained and not wrong:
        yield f"adapter.target_modules = {run.config.adapter.target_modules!r} matches no layer: nothing is trained."


def _misnamed(run: Run) -> Iterator[Misnamed]:
    adapter = run.config.adapter
    named = (
        adapter.exclude_modules, adapter.modules_to_save, adapter.layers_to_transform, adapter.rank_pattern,
        adapter.alpha_pattern,
    )  # fmt: skip
    if adapter.kind == "full" or (adapter.target_modules == "all-linear" and not any(named)):
        return
    modules = of_facts(run.facts)
    if modules is not None:
        yield from misnamed(adapter, modules)
