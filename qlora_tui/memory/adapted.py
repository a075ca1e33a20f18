"""Activation memory that the adapted layers of a model keep per token for the backward pass.

Counted by the place of a linear layer: what reads the normed hidden state in attention or MLP, what closes attention,
what closes the MLP. Bytes of a stream of 16-bit numbers; float32 ones take twice as much.
"""

from dataclasses import dataclass

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.memory.targets import targets
from qlora_tui.models.facts import ModelFacts, ModuleGroup

_ATTENTION = ("attn", "attention")
_CLOSING = frozenset({"o_proj", "out_proj", "dense", "c_proj"})
"""Last names of the output projection of attention."""

_MASKED_BYTES = 3
"""With dropout each adapted layer keeps its own input after dropout, in 16 bits, and the mask in 8 bits."""


@dataclass(frozen=True, slots=True)
class Place:
    """The adapted layers in one place of a layer. Shares of 1 where only some layers of the model are adapted."""

    modules: float = 0
    inputs: float = 0
    """Sum of their input features."""

    outputs: float = 0
    largest: int = 0
    """Elements of the largest weight among them."""

    widest: int = 0
    """Largest number of input features of one of them."""

    @property
    def shared(self) -> float:
        """Features of their shared input."""
        return self.inputs / self.modules if self.modules else 0


@dataclass(frozen=True, slots=True)
class Adapted:
    attention: Place = Place()
    """Projections that read the hidden state in attention: queries, keys, values."""

    closing: Place = Place()
    """The output projection of attention."""

    mlp: Place = Place()
    """Gate and up projections."""

    down: Place = Place()

    @property
    def places(self) -> tuple[Place, ...]:
        return self.attention, self.closing, self.mlp, self.down

    @property
    def modules(self) -> float:
        """Adapted modules of a layer."""
        return sum(place.modules for place in self.places)

    @property
    def widens_stream(self) -> bool:
        """Whether DoRA's float32 magnitudes make the residual stream float32: not those of attention's inputs, for
        attention is computed in 16 bits."""
        return bool(self.closing.modules or self.mlp.modules or self.down.modules)

    def kept_inputs(self, *, wide: bool, dropout: bool) -> float:
        """Bytes per token. `wide`: with a float32 stream each layer casts its own input."""
        if dropout:
            return _MASKED_BYTES * sum(place.inputs for place in self.places)
        if wide:
            return 2 * (self.attention.inputs + self.mlp.inputs + self.down.inputs)
        # Attention keeps its output in any case.
        return 2 * (self.attention.shared + self.mlp.shared + self.down.inputs)

    def kept_by_magnitudes(self, *, wide: bool, dropout: bool) -> float:
        """Bytes per token that DoRA keeps in addition to LoRA: the outputs of the weight and of the adapter."""
        own, in_mlp = (4, 4) if dropout else (6 if wide else 4, 6)
        return own * self.attention.outputs + 4 * self.closing.outputs + in_mlp * (self.mlp.outputs + self.down.outputs)


def adapted(facts: ModelFacts, spec: AdapterSpec) -> Adapted:
    """The adapted layers of a model; none in full finetuning."""
    found = {name: Place() for name in ("attention", "closing", "mlp", "down")}
    for target in targets(facts, spec):
        group, share = target.group, target.count / max(facts.layers, 1)
        if group.vision or "*" not in group.name:
            continue
        if group.kind == "linear":
            name = _place(group, facts)
            found[name] = _joined(found[name], share, group.in_features, group.out_features)
        elif group.kind == "expert" and facts.moe:
            width = facts.moe.experts_per_token * facts.moe.expert_mlp_width
            name, sizes = ("mlp", (facts.hidden_size, width)) if target.rank_factor > 1 else ("down", (width, 0))
            for _ in range(target.rank_factor):
                found[name] = _joined(found[name], share, *sizes)
    return Adapted(**found)


def _place(group: ModuleGroup, facts: ModelFacts) -> str:
    if any(word in group.name for word in _ATTENTION):
        return "closing" if group.name.rpartition(".")[2] in _CLOSING else "attention"
    return "down" if group.out_features == facts.hidden_size != group.in_features else "mlp"


def _joined(place: Place, share: float, inputs: int, outputs: int) -> Place:
    return Place(
        modules=place.modules + share,
        inputs=place.inputs + share * inputs,
        outputs=place.outputs + share * outputs,
        largest=max(place.largest, inputs * outputs),
        widest=max(place.widest, inputs),
    )
