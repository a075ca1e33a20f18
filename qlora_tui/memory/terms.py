"""The lines of an estimate: what each is called, how many bytes it is, and by which formula."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qlora_tui.config.run import RunConfig
from qlora_tui.memory import stored, trainable
from qlora_tui.memory.choices import Choices
from qlora_tui.memory.device import Device
from qlora_tui.memory.program import StepPeak
from qlora_tui.memory.stored import Dtypes
from qlora_tui.memory.trainable import State, Trained
from qlora_tui.models.facts import ModelFacts

CUBLAS_BYTES = 8_519_680
"""Workspace of cuBLAS before Hopper; there is one for the forward thread and one for autograd's."""

CUBLAS_HOPPER_BYTES = 32 << 20

Numbers = Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True)
class Term:
    """One line of a breakdown."""

    key: str
    """Stable name for scripts and screens."""

    label: str
    bytes: int
    formula: str
    numbers: Numbers
    """What stands in the formula for this model and these settings."""

    paged: bool = False
    """In managed memory: it leaves the card when the room is needed."""


def weights(facts: ModelFacts, config: RunConfig, dtypes: Dtypes, *, on_gpu: bool) -> list[Term]:
    """The base model as it is stored."""
    parts = stored.weights(facts, config.quantization, dtypes, charged=on_gpu)
    spec, classes = config.quantization, facts.parameters_by_class
    quantized = sum(group.weight_elements for group in facts.modules if group.quantized) if spec.kind != "none" else 0
    constants = sum(parts.get(part, 0) for part in ("absmax", "nested_absmax", "tables", "scb"))
    rest = sum(parts.get(part, 0) for part in ("norm", "bias", "other", "plain_linear"))
    bits, constant = _quantization_formulas(config)
    return _present(
        Term("packed_weights", f"{spec.kind} weights", parts.get("packed", 0), bits, {"elements": quantized}),
        Term("quantization_constants", "quantization constants", constants, constant, {"elements": quantized}),
        Term(
            "tables",
            "embeddings" if facts.tied else "embeddings and head",
            parts.get("embedding", 0) + parts.get("head", 0),
            "elements x bytes each",
            {"elements": classes.get("embedding", 0) + classes.get("head", 0), "bytes each": dtypes.table},
        ),
        Term(
            "experts",
            "experts, not quantized",
            parts.get("expert", 0),
            "elements x bytes each: transformers 5 fuses experts, which bitsandbytes does not quantize",
            {"elements": classes.get("expert", 0), "bytes each": dtypes.plain},
        ),
        Term(
            "other_weights",
            "other weights" if spec.kind == "none" else "norms, biases, other",
            rest,
            "elements x bytes each",
            {"bytes each": dtypes.plain},
        ),
    )


def _quantization_formulas(config: RunConfig) -> tuple[str, str]:
    spec = config.quantization
    if spec.kind == "8bit":
        return "elements x 1 byte", "outputs x 4 bytes: a float32 absmax for each output"
    if spec.double_quantization:
        return (
            "(elements + 1) // 2 a weight",
            "elements / 64 bytes of absmax + 4 / 256 of that + 1,092 bytes of offset and code tables a weight",
        )
    return "(elements + 1) // 2 a weight", "4 x elements / 64 bytes of absmax + 64 bytes of code table a weight"


def adapter(trained: list[Trained], config: RunConfig, *, on_gpu: bool, item_bytes: int) -> list[Term]:
    """The weights that are trained, beside the base model; nothing of its own in full finetuning."""
    if config.adapter.kind == "full":
        return []
    formula = "sum over targeted layers of rank x (inputs + outputs) x bytes each"
    numbers: Numbers = {
        "rank": config.adapter.rank,
        "parameters": trainable.parameters(trained),
        "bytes each": item_bytes,
    }
    size = trainable.total_bytes(trained, charged=on_gpu)
    return _present(Term("adapter", "LoRA adapter", size, formula, numbers))


def optimizer(state: State, choices: Choices, trained: list[Trained]) -> list[Term]:
    """What the optimizer keeps between steps."""
    name = choices.optimizer
    numbers: Numbers = {"parameters": trainable.parameters(trained)}
    small = f"; {state.unpaged_tensors:,} tensors are too small for it" if state.unpaged_tensors else ""
    return _present(
        Term("optimizer", f"optimizer ({name})", state.device_bytes, _STATE_FORMULAS.get(name, ""), numbers),
        Term(
            "optimizer_paged",
            "optimizer, paged",
            state.paged_bytes,
            f"states of tensors with at least 100,000 elements, in managed memory{small}",
            numbers,
            paged=True,
        ),
    )


_STATE_FORMULAS: Mapping[str, str] = {
    "adamw_torch": "2 moments in the dtype of the weight",
    "adamw_torch_fused": "2 moments in the dtype of the weight + 512 bytes a tensor",
    "adamw_bnb_8bit": "2 bytes a parameter + 8 bytes for each 256 of them; 8 bytes in tensors below 4,096 elements",
    "paged_adamw_8bit": "2 bytes a parameter + 8 bytes for each 256 of them; 8 bytes in tensors below 4,096 elements",
    "paged_adamw_32bit": "8 bytes a parameter, of tensors below 100,000 elements",
    "lion_32bit": "4 bytes a parameter",
    "paged_lion_32bit": "4 bytes a parameter, of tensors below 100,000 elements",
    "lion_8bit": "1 byte a parameter + 4 bytes for each 256 of them; 4 bytes in tensors below 4,096 elements",
    "paged_lion_8bit": "1 byte a parameter + 4 bytes for each 256 of them; 4 bytes in tensors below 4,096 elements",
    "ademamix": "12 bytes a parameter",
    "ademamix_8bit": "3 bytes a parameter + 12 bytes for each 256 of them; 12 bytes in tensors below 4,096 elements",
    "adafactor": "4 x (rows + columns) bytes a matrix",
}


def fixed(device: Device) -> list[Term]:
    """What the process holds whatever it trains."""
    if device.kind == "cpu":
        return [Term("context", "Python and its libraries", device.context_bytes, "measured", {})]
    capability = device.compute_capability
    hopper = capability is not None and capability >= (9, 0)
    workspace = 2 * (CUBLAS_HOPPER_BYTES if hopper else CUBLAS_BYTES)
    origin = "measured on this machine" if device.context_measured else "assumed until it is measured by --probe"
    return [
        Term("cublas", "cuBLAS workspaces", workspace, "2 x workspace, forward and autograd thread", {}),
        Term("context", "CUDA context", device.context_bytes, origin, {}),
    ]


_STEP_LABELS: Mapping[str, tuple[str, str]] = {
    "inputs": ("batch", "token numbers, labels and masks"),
    "activations": ("activations", ""),
    "attention": ("attention workspace", "scores and masks beyond the inputs of fused attention"),
    "dequantization": ("dequantization", "the weight being multiplied, in the compute dtype"),
    "loss": ("logits and loss", "min(rows x (tokens - 1), 4096) x min(vocabulary, 32768) logits at a time"),
    "gradients": ("gradients", "as many bytes as the trained weights"),
    "optimizer": ("optimizer step", "copies held while the optimizer steps"),
}


def step(found: StepPeak, numbers: Numbers, formula: str) -> list[Term]:
    """What a training step holds at its peak. `formula`: of its activations."""
    terms = []
    for name, size in found.by_category.items():
        label, known = _STEP_LABELS.get(name, (name, ""))
        terms.append(Term(name, label, size, known or formula, numbers))
    return _present(*terms)


def scaled(term: Term, factor: float) -> Term:
    """The share of one card in a term that is split."""
    return replace(term, bytes=round(term.bytes * factor))


def total(terms: list[Term] | tuple[Term, ...]) -> int:
    """Bytes of all terms that cannot leave the card."""
    return sum(term.bytes for term in terms if not term.paged)


def _present(*terms: Term) -> list[Term]:
    return [term for term in terms if term.bytes > 0]
