"""What memory holds in each phase of a run: loading, preparing, the first step, all later ones, evaluation, saving."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from qlora_tui.config.run import RunConfig
from qlora_tui.memory import step as steps
from qlora_tui.memory import stored, terms, trainable
from qlora_tui.memory.choices import Choices
from qlora_tui.memory.device import Device
from qlora_tui.memory.step import Measured, Shape
from qlora_tui.memory.stored import Dtypes
from qlora_tui.memory.symbols import TOKEN_TILE, VOCABULARY_TILE
from qlora_tui.memory.terms import Term
from qlora_tui.memory.trainable import State, Trained
from qlora_tui.models.facts import ModelFacts

Phase = Literal["load", "prepare", "first_step", "steady", "eval", "save"]
PHASES: tuple[Phase, ...] = ("load", "prepare", "first_step", "steady", "eval", "save")
PHASE_LABELS: dict[Phase, str] = {
    "load": "loading",
    "prepare": "preparing",
    "first_step": "first step",
    "steady": "later steps",
    "eval": "evaluation and samples",
    "save": "saving",
}
UNCERTAIN = frozenset({"inputs", "activations", "attention", "dequantization", "loss", "transient", "kv_cache"})
"""Keys of terms whose size rests on a model of the libraries, not on stored tensors."""

_SAMPLE_ROWS = 16
"""Samples are answered so many at a time."""

_PROMPT_TOKENS_PER_CHARACTER = 0.4
_TEMPLATE_TOKENS = 64


@dataclass(frozen=True)
class Run:
    """One run on one device, with everything that its phases share."""

    config: RunConfig
    facts: ModelFacts
    device: Device
    choices: Choices
    batch: Shape
    checkpointing: bool

    @property
    def on_gpu(self) -> bool:
        return self.choices.on_gpu

    @cached_property
    def trained(self) -> list[Trained]:
        return trainable.tensors(self.facts, self.config.adapter, self.choices.adapter_bytes)

    @property
    def trainable_parameters(self) -> int:
        return trainable.parameters(self.trained)

    @cached_property
    def state(self) -> State:
        return trainable.state(self.trained, self.choices.optimizer, on_gpu=self.on_gpu)

    @cached_property
    def step(self) -> Measured:
        return steps.measure(
            self.config, self.facts, self.choices, self.batch, self.trained, self.state,
            checkpointing=self.checkpointing,
        )  # fmt: skip

    @property
    def original(self) -> bool:
        """Whether the original recipe's dtypes apply: it prepares quantized models only."""
        spec = self.config
        quantized = spec.quantization.kind != "none" and spec.adapter.kind == "lora"
        return spec.training.recipe == "original" and quantized

    @cached_property
    def dtypes(self) -> Dtypes:
        bf16 = self.on_gpu and self.choices.compute_bytes == 2
        return stored.prepared_dtypes(self.choices.weight_bytes, original=self.original, on_gpu=bf16)

    @property
    def stored_bytes(self) -> int:
        """As loaded, before the adapter: what a run reports once the model is loaded."""
        parts = stored.weights(
            self.facts, self.config.quantization, stored.loaded_dtypes(self.choices.weight_bytes), charged=False
        )
        return sum(parts.values())

    def terms(self, phase: Phase) -> list[Term]:
        """What memory holds at the peak of a phase."""
        if phase == "load":
            return [*self._weights(stored.loaded_dtypes(self.choices.weight_bytes)), *self._loading(), *self._fixed()]
        if phase == "prepare":
            return self._prepare()
        state = [] if phase == "first_step" else terms.optimizer(self.state, self.choices, self.trained)
        work = {"eval": self._evaluation, "save": self._saving}.get(phase, self._step)()
        return [*self._weights(self.dtypes), *self._adapter(), *state, *work, *self._fixed()]

    def _weights(self, dtypes: Dtypes) -> list[Term]:
        return terms.weights(self.facts, self.config, dtypes, on_gpu=self.on_gpu)

    def _adapter(self) -> list[Term]:
        return terms.adapter(self.trained, self.config, on_gpu=self.on_gpu, item_bytes=self.choices.adapter_bytes)

    def _fixed(self) -> list[Term]:
        return terms.fixed(self.device)

    def _step(self) -> list[Term]:
        facts = self.facts
        numbers = {
            "n": self.batch.tokens,
            "layers": facts.layers,
            "h": facts.hidden_size,
            "f": facts.mlp_width,
            "q": facts.heads * facts.head_dim,
            "k": facts.kv_heads * facts.head_dim,
            "r": self.config.adapter.rank,
            "heads": facts.heads,
            "vocabulary": facts.vocab_size,
        }
        return terms.step(self.step.peak, numbers, self.step.formula)

    def _loading(self) -> list[Term]:
        """transformers quantizes one weight after the other as it loads: beside the rest there is one in full."""
        quantized = [group for group in self.facts.modules if group.quantized]
        if (self.config.quantization.kind == "none" and self.on_gpu) or not self.facts.modules:
            return []
        groups = quantized if self.config.quantization.kind != "none" else list(self.facts.modules)
        largest = max((group.weight_elements // max(group.count, 1) for group in groups), default=0)
        size = largest * self.choices.weight_bytes + 8 * -(-largest // stored.BLOCK)
        return [Term("transient", "weight being quantized", size, "largest weight x bytes each + its constants",
                     {"elements": largest, "bytes each": self.choices.weight_bytes})]  # fmt: skip

    def _prepare(self) -> list[Term]:
        """PEFT makes its matrices float32; the original recipe holds everything that is not quantized in float32."""
        dtypes = Dtypes(4, 4) if self.original else self.dtypes
        wide = trainable.tensors(self.facts, self.config.adapter, 4)
        adapter = terms.adapter(wide, self.config, on_gpu=self.on_gpu, item_bytes=4)
        work = []
        tables = [group for group in self.facts.modules if group.kind in ("embedding", "head")]
        if self.original and self.dtypes.table < 4 and tables:
            largest = max(group.weight_elements for group in tables)
            formula = "the largest of embeddings and head, x 2 bytes"
            work = [Term("transient", "table being cast back", 2 * largest, formula, {"elements": largest})]
        if self.config.adapter.init != "default":
            largest = max((group.weight_elements // group.count for group in self.facts.linear_layers), default=0)
            label, formula = f"{self.config.adapter.init} of one weight", "4 float32 copies of the largest weight"
            work = [Term("transient", label, 16 * largest, formula, {"elements": largest})]
        return [*self._weights(dtypes), *adapter, *work, *self._fixed()]

    def _evaluation(self) -> list[Term]:
        """A forward pass without gradients, or the key-value cache of the samples: whichever is more."""
        forward, samples = self._forward_bytes(), self._sample_bytes()
        if not self.config.data.has_evaluation:
            forward = 0
        if samples > forward:
            formula = "2 x key-value width x layers x rows x tokens x bytes each + rows x vocabulary x 4"
            return [Term("kv_cache", "samples: key-value cache and logits", samples, formula, {})]
        return [Term("activations", "activations of one layer and the loss", forward, "", {})] if forward else []

    def _forward_bytes(self) -> int:
        facts, item = self.facts, max(self.choices.compute_bytes, 4 if self.original else 0)
        tokens = self.batch.tokens
        layer = tokens * (4 * facts.hidden_size + 3 * facts.mlp_width) * item
        scored = min(tokens, TOKEN_TILE) * min(facts.vocab_size, VOCABULARY_TILE) * item
        dequantized = self.step.peak.by_category.get("dequantization", 0)
        return max(layer + dequantized, scored) + 2 * tokens * facts.hidden_size * item

    def _sample_bytes(self) -> int:
        prompts = self.config.training.sample_prompts
        if not prompts:
            return 0
        rows = min(len(prompts), _SAMPLE_ROWS)
        longest = max(map(len, prompts)) * _PROMPT_TOKENS_PER_CHARACTER + _TEMPLATE_TOKENS
        tokens = rows * (round(longest) + self.config.training.sample_max_tokens)
        return self.kv_cache_bytes(tokens) + rows * self.facts.vocab_size * 4

    def kv_cache_bytes(self, tokens: int) -> int:
        """Keys and values of so many tokens in all layers."""
        latent = self.facts.latent_attention
        width = 2 * self.facts.kv_heads * self.facts.head_dim
        if latent is not None:
            width = self.facts.heads * (latent.nope_head_dim + latent.rope_head_dim + latent.v_head_dim)
        return tokens * width * self.facts.layers * self.choices.compute_bytes

    def _saving(self) -> list[Term]:
        """Nothing on a GPU but the adapter that is read back to be checked; on a CPU its file's content, too."""
        size = trainable.total_bytes(self.trained) if self.config.adapter.kind == "lora" else 0
        copies = 1 if self.on_gpu else 2
        return [Term("transient", "adapter being saved", copies * size, "the adapter, read back", {})] if size else []

    def capacity_bytes(self) -> int:
        """Smallest capacity the training steps survive on, by a replay. Only where there is a program."""
        assert self.step.program is not None
        fixed = [term.bytes for term in (*self._weights(self.dtypes), *self._adapter(), *self._fixed())
                 if term.key != "context"]  # fmt: skip
        return steps.capacity(self.step.program, self.config, self.facts, self.batch, fixed, [self.state.device_bytes])
