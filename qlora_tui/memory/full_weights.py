"""What weights that are trained in full, or are wider than they are multiplied, add to a step in closed form."""

from dataclasses import dataclass

from qlora_tui.config.run import RunConfig
from qlora_tui.memory.choices import Choices
from qlora_tui.memory.symbols import VOCABULARY_TILE
from qlora_tui.memory.targets import targets
from qlora_tui.memory.trainable import trains_embedding, trains_head
from qlora_tui.models.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class FullWeights:
    """In bytes. Of plain LoRA all are 0."""

    head_elements: int = 0
    """Of a head that is trained."""

    head_bytes: int = 0
    """Of its gradient."""

    embedding_bytes: int = 0
    """Of the gradient of an embedding that is trained."""

    tied: bool = False
    """Whether that embedding is the head: autograd holds both gradients before it adds them up."""

    copied_bytes: int = 0
    """Of the copies of the linear weights that their layers keep for the backward pass: those that autocast makes, or
    those that DoRA with dropout dequantizes."""

    cached: bool = False
    """Whether all of them live until the forward pass is over, checkpointing or not: those of trained weights do."""

    piece_bytes: int = 0
    """Of the copy of a piece of the head that is scored with; two of them overlap."""

    @property
    def loss_bytes(self) -> int:
        """What the tiled loss needs for the head: its gradient is summed up in float32, then cast."""
        cast = self.head_bytes if self.head_bytes < 4 * self.head_elements else 0
        return 4 * self.head_elements + cast + 2 * self.piece_bytes


def full_weights(config: RunConfig, facts: ModelFacts, choices: Choices) -> FullWeights:
    """Those of a run. Autocast is there on a GPU only."""
    adapter, words = config.adapter, facts.vocab_size * facts.hidden_size
    head, embedding = trains_head(facts, adapter), trains_embedding(facts, adapter)
    wide = choices.on_gpu and choices.weight_bytes > choices.compute_bytes
    plain = config.quantization.kind == "none"
    dequantized = adapter.kind == "lora" and adapter.dora and adapter.dropout > 0 and not plain
    linear = sum(group.weight_elements for group in facts.modules if group.kind in ("linear", "expert"))
    if dequantized:
        linear = sum(target.elements for target in targets(facts, adapter))
    return FullWeights(
        head_elements=words if head else 0,
        head_bytes=words * choices.adapter_bytes if head else 0,
        embedding_bytes=words * choices.adapter_bytes if embedding else 0,
        tied=facts.tied,
        copied_bytes=linear * choices.compute_bytes if (wide and plain) or dequantized else 0,
        cached=adapter.kind == "full",
        piece_bytes=min(facts.vocab_size, VOCABULARY_TILE) * facts.hidden_size * choices.compute_bytes if wide else 0,
    )
