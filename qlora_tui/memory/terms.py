"""The lines of an estimate: what each is called, how many bytes it is, and by which formula."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from qlora_tui.config.quantization import QuantizationSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.memory import stored, trainable
from qlora_tui.memory.allocator import rounded
from qlora_tui.memory.choices import Choices
from qlora_tui.memory.device import HOST_WORK_BYTES, Device
from qlora_tui.memory.program import StepPeak
from qlora_tui.memory.stored import Dtypes
from qlora_tui.memory.trainable import State, Trained
from qlora_tui.models.facts import ModelFacts, ModuleGroup

CUBLAS_BYTES = 8_519_680
"""Workspace of cuBLAS before Hopper; there is one for the forward thread and one for autograd's."""

CUBLAS_HOPPER_BYTES = 32 << 20

_TOKENIZER_ENTRY_BYTES = 1_200

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
    spec = config.quantization
    parts = stored.weights(facts, spec, dtypes, charged=on_gpu)
    quantized = [group for group in facts.modules if group.quantized and spec.kind != "none"]
    elements = sum(group.weight_elements for group in quantized)
    tables = {kind: _elements(facts, kind) for kind in ("embedding", "head")}
    experts = _elements(facts, "expert")
    others = facts.parameters - elements - experts - sum(tables.values())
    rest = sum(parts.get(part, 0) for part in ("norm", "bias", "other", "plain_linear"))
    each = "elements x bytes each"
    return _present(
        Term("packed_weights", f"{spec.kind} weights", parts.get("packed", 0),
             "elements / 2" if spec.is_four_bit else "elements x 1", {"elements": elements}),
        _constants(parts, spec, quantized, on_gpu=on_gpu),
        Term("tables", "embeddings" if facts.tied else "embeddings and head",
             parts.get("embedding", 0) + parts.get("head", 0), each,
             {"elements": sum(tables.values()), "bytes each": dtypes.table}),
        Term("experts", "experts, not quantized", parts.get("expert", 0), each,
             {"elements": experts, "bytes each": dtypes.plain}),
        Term("other_weights", "other weights" if spec.kind == "none" else "norms, biases, other", rest, each,
             {"elements": others, "bytes each": dtypes.plain}),
    )  # fmt: skip


def _elements(facts: ModelFacts, kind: str) -> int:
    return sum(group.weight_elements for group in facts.modules if group.kind == kind)


def _constants(
    parts: Mapping[stored.Part, int], spec: QuantizationSpec, quantized: list[ModuleGroup], *, on_gpu: bool
) -> Term:
    """What is stored beside the packed weights to make numbers of them again."""
    size = sum(parts.get(part, 0) for part in ("absmax", "nested_absmax", "tables", "scb"))
    numbers: dict[str, int] = {"elements": sum(group.weight_elements for group in quantized)}
    if spec.kind == "8bit":
        formula, numbers = "outputs x 4", {"outputs": sum(group.count * group.out_features for group in quantized)}
    else:
        tables = stored.four_bit(stored.BLOCK, spec)["tables"]
        numbers |= {
            "weights": sum(group.count for group in quantized),
            "tables each": sum(map(rounded, tables) if on_gpu else tables),
        }
        nested = "elements / 64 + elements / 64 / 256 x 4"
        formula = f"{nested if spec.double_quantization else 'elements / 64 x 4'} + weights x tables each"
    return Term("quantization_constants", "quantization constants", size, formula, numbers)


def adapter(trained: list[Trained], config: RunConfig, *, on_gpu: bool, item_bytes: int) -> list[Term]:
    """The weights that are trained, beside the base model; nothing of its own in full finetuning."""
    if config.adapter.kind == "full":
        return []
    # DoRA's magnitudes are wider than the matrices beside them.
    magnitudes = sum(each.count * each.elements for each in trained if each.item_bytes != item_bytes)
    numbers: dict[str, int] = {"parameters": trainable.parameters(trained) - magnitudes, "bytes each": item_bytes}
    formula = "parameters x bytes each" + (" + magnitudes x 4" if magnitudes else "")
    if magnitudes:
        numbers["magnitudes"] = magnitudes
    size = trainable.total_bytes(trained, charged=on_gpu)
    return _present(Term("adapter", "LoRA adapter", size, formula, numbers))


def optimizer(state: State, choices: Choices, trained: list[Trained]) -> list[Term]:
    """What the optimizer keeps between steps."""
    name = choices.optimizer
    formula, numbers = state_formula(trained, name, on_gpu=choices.on_gpu)
    return _present(
        Term("optimizer", f"optimizer ({name})", state.device_bytes, formula, numbers),
        Term("optimizer_paged", "optimizer, paged", state.paged_bytes, *_paged_formula(trained, name), paged=True),
    )


def _paged_formula(trained: list[Trained], optimizer: str) -> tuple[str, Numbers]:
    large = [each for each in trained if each.elements >= trainable.PAGED_ELEMENTS]
    moments = trainable.moments(optimizer)
    if "8bit" not in optimizer:
        numbers = {"moments": moments, "parameters in large tensors": trainable.parameters(large)}
        return "moments x parameters in large tensors x 4", numbers
    narrow, wide = _split(large)
    numbers = {"moments": moments, "large 8-bit parameters": narrow}
    if not wide:
        return "moments x large 8-bit parameters", numbers
    return "moments x (large 8-bit parameters + embeddings x 4)", {**numbers, "embeddings": wide}


def state_formula(trained: list[Trained], optimizer: str, *, on_gpu: bool) -> tuple[str, Numbers]:
    """What of an optimizer's state cannot be paged, as a formula and its numbers."""
    if optimizer.startswith("adamw_torch"):
        numbers = {"bytes of the adapter": trainable.total_bytes(trained, charged=on_gpu)}
        if optimizer == "adamw_torch_fused" and on_gpu:
            return "2 x bytes of the adapter + tensors x 512", {**numbers, "tensors": sum(e.count for e in trained)}
        return "2 x bytes of the adapter", numbers
    if optimizer == "adafactor":
        kept = sum(e.count * (e.rows + (e.columns if e.columns > 1 else 0) + 1) for e in trained)
        return "rows and columns x 4", {"rows and columns": kept}
    paged, coded = optimizer.startswith("paged_") and on_gpu, "8bit" in optimizer
    resident = [each for each in trained if not (paged and each.elements >= trainable.PAGED_ELEMENTS)]
    moments = trainable.moments(optimizer)
    if not coded:
        name = "parameters in small tensors" if paged else "parameters"
        return f"moments x {name} x 4", {"moments": moments, name: trainable.parameters(resident)}
    narrow, wide = _split(resident)
    return (
        "moments x (8-bit parameters + 32-bit parameters x 4 + all 8-bit parameters / 256 x 4) + tables",
        {"moments": moments, "8-bit parameters": narrow, "32-bit parameters": wide,
         "all 8-bit parameters": _split(trained)[0], "tables": trainable.CODE_BYTES * min(moments, 2)},
    )  # fmt: skip


def _split(trained: list[Trained]) -> tuple[int, int]:
    """Parameters whose state an 8-bit optimizer keeps in 8 bits, and the others."""
    coded = trainable.parameters([each for each in trained if trainable.is_coded(each)])
    return coded, trainable.parameters(trained) - coded


def tokenizer(facts: ModelFacts) -> list[Term]:
    """The tokenizer: 830 to 1,270 bytes an entry were measured, the more the more merges it has."""
    size = _TOKENIZER_ENTRY_BYTES * facts.vocab_size
    return _present(
        Term("tokenizer", "tokenizer", size, "vocabulary x bytes each",
             {"vocabulary": facts.vocab_size, "bytes each": _TOKENIZER_ENTRY_BYTES})
    )  # fmt: skip


def fixed(device: Device) -> list[Term]:
    """What the process holds whatever it trains."""
    if device.kind == "cpu":
        numbers = {"imports": device.context_bytes - HOST_WORK_BYTES, "work": HOST_WORK_BYTES}
        return [Term("context", "Python and its libraries", device.context_bytes, "imports + work", numbers)]
    capability = device.compute_capability
    hopper = capability is not None and capability >= (9, 0)
    workspace = CUBLAS_HOPPER_BYTES if hopper else CUBLAS_BYTES
    origin = "measured on this machine" if device.context_measured else "assumed until --probe measures it"
    return [
        Term("cublas", "cuBLAS workspaces", 2 * workspace, "threads x workspace",
             {"threads": 2, "workspace": workspace}),
        Term("context", "CUDA context", device.context_bytes, origin, {}),
    ]  # fmt: skip


_STEP_LABELS: Mapping[str, str] = {
    "inputs": "batch",
    "activations": "activations",
    "attention": "attention workspace",
    "dequantization": "dequantization",
    "loss": "logits and loss",
    "gradients": "gradients",
    "optimizer": "optimizer step",
}


def step(found: StepPeak, numbers: Numbers, formulas: Mapping[str, str]) -> list[Term]:
    """What a training step holds at its peak. `formulas`: of each category, in the names of `numbers`."""
    terms = []
    for name, size in found.by_category.items():
        formula = formulas[name]
        named = {key: value for key, value in numbers.items() if re.search(rf"\b{key}\b", formula)}
        terms.append(Term(name, _STEP_LABELS[name], size, formula, named))
    return _present(*terms)


def shared(term: Term, cards: int) -> Term:
    """One card's share of a term."""
    return replace(
        term,
        bytes=-(-term.bytes // cards),
        formula=f"({term.formula}) / cards",
        numbers={**term.numbers, "cards": cards},
    )


def total(terms: list[Term] | tuple[Term, ...]) -> int:
    """Bytes of all terms that cannot leave the card."""
    return sum(term.bytes for term in terms if not term.paged)


def _present(*terms: Term) -> list[Term]:
    return [term for term in terms if term.bytes > 0]
