"""What memory holds in each phase of a run: loading, preparing, the first step, all later ones, evaluation, saving."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from qlora_tui.config.run import RunConfig
from qlora_tui.memory import program, stored, terms, trainable
from qlora_tui.memory import step as steps
from qlora_tui.memory.allocator import Trace, replay, smallest_capacity
from qlora_tui.memory.choices import Choices
from qlora_tui.memory.device import Device
from qlora_tui.memory.prelude import optimizer_states, prelude
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
UNCERTAIN = frozenset(
    {"inputs", "activations", "attention", "dequantization", "loss", "transient", "kv_cache", "tokenizer"}
)
"""Keys of terms whose size rests on a model of the libraries, not on stored tensors."""

_SAMPLE_ROWS = 16
"""Samples are answered so many at a time."""

_PROMPT_TOKENS_PER_CHARACTER = 0.4
_TEMPLATE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """Smallest capacity that survives, beyond what is allocated, as a share of it."""

    usual: float
    high: float


_OF_PROGRAMS = Fragmentation(0.021, 0.06)
"""Median and 90th percentile of 54 replays of the caching allocator."""

_REPLAY_UNCERTAINTY = 0.03
_REPLAY_UNCERTAINTY_FULL = 0.10
"""Largest share by which a capacity found by a replay was below that of a full dry run, beyond the error of the step's
peak: of 174 runs with adapters, and of 34 in which all weights are trained."""

_OF_CLOSED_FORMS = Fragmentation(0.021, 0.15)
"""Their median and maximum: no replay can tell for the model itself."""

_OF_HOSTS = Fragmentation(0.03, 0.10)
"""What malloc keeps."""


@dataclass(frozen=True)
class Run:
    """One run on one device, with everything that its phases share."""

    config: RunConfig
    facts: ModelFacts
    device: Device
    choices: Choices
    batch: Shape
    checkpointing: bool
    eval_tokens: int = 0
    """Of the longest batch that is evaluated; 0: as in `batch`."""

    @property
    def on_gpu(self) -> bool:
        return self.choices.on_gpu

    @property
    def fragmentation(self) -> Fragmentation:
        if not self.on_gpu:
            return _OF_HOSTS
        return _OF_CLOSED_FORMS if self.step.program is None else _OF_PROGRAMS

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
            weights = self._weights(stored.loaded_dtypes(self.choices.weight_bytes))
            return [*weights, *self._loading(), *self._mapped(), *self._fixed()]
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
        if self.on_gpu:
            return terms.fixed(self.device)
        return [*terms.tokenizer(self.facts), *terms.fixed(self.device)]

    def _step(self) -> list[Term]:
        return terms.step(self.step.peak, self.step.numbers, self.step.formulas)

    def _loading(self) -> list[Term]:
        """transformers quantizes one weight after the other as it loads: beside the rest there is one in full."""
        quantized = [group for group in self.facts.modules if group.quantized]
        if (self.config.quantization.kind == "none" and self.on_gpu) or not self.facts.modules:
            return []
        groups = quantized if self.config.quantization.kind != "none" else list(self.facts.modules)
        largest = max((group.weight_elements // max(group.count, 1) for group in groups), default=0)
        size = largest * self.choices.weight_bytes + 8 * -(-largest // stored.BLOCK)
        formula = "largest weight x bytes each + largest weight / 64 x 8"
        return [Term("transient", "weight being quantized", size, formula,
                     {"largest weight": largest, "bytes each": self.choices.weight_bytes})]  # fmt: skip

    def _mapped(self) -> list[Term]:
        """The weight files, mapped until everything is loaded: resident, but given up where memory gets short."""
        size = self.facts.checkpoint_bytes or 0
        if self.on_gpu or not size:
            return []
        return [Term("mapped", "weight files, mapped", size, "size of the weight files", {}, paged=True)]

    def _prepare(self) -> list[Term]:
        """PEFT makes its matrices float32; the original recipe holds everything that is not quantized in float32."""
        dtypes = Dtypes(4, 4) if self.original else self.dtypes
        wide = trainable.tensors(self.facts, self.config.adapter, 4)
        adapter = terms.adapter(wide, self.config, on_gpu=self.on_gpu, item_bytes=4)
        work = []
        tables = [group for group in self.facts.modules if group.kind in ("embedding", "head")]
        if self.original and self.dtypes.table < 4 and tables:
            largest = max(group.weight_elements for group in tables)
            formula = "elements of the larger table x 2"
            work = [Term("transient", "table being cast back", 2 * largest, formula,
                         {"elements of the larger table": largest})]  # fmt: skip
        if self.config.adapter.init != "default":
            largest = max((group.weight_elements // group.count for group in self.facts.linear_layers), default=0)
            label, formula = f"{self.config.adapter.init} of one weight", "largest weight x 4 copies x 4"
            work = [Term("transient", label, 16 * largest, formula, {"largest weight": largest})]
        return [*self._weights(dtypes), *adapter, *work, *self._fixed()]

    def _evaluation(self) -> list[Term]:
        """A forward pass without gradients, or the key-value cache of the samples: whichever is more."""
        forward, samples = self._forward_bytes(), self._sample_bytes()
        if not self.config.data.has_evaluation:
            forward = 0
        if samples > forward:
            formula = "tokens x bytes of a token + rows x vocabulary x 4"
            return [Term("kv_cache", "answers: key-value cache and logits", samples, formula, self._sample_numbers())]
        formula = "the wider of a layer with its dequantized weight and the scores of a tile, + 2 x n x h x bytes each"
        return [Term("activations", "one layer and the loss", forward, formula, {})] if forward else []

    def _forward_bytes(self) -> int:
        facts, item = self.facts, max(self.choices.compute_bytes, 4 if self.original else 0)
        tokens = self.eval_tokens or self.batch.tokens
        layer = tokens * (4 * facts.hidden_size + 3 * facts.mlp_width) * item
        scored = min(tokens, TOKEN_TILE) * min(facts.vocab_size, VOCABULARY_TILE) * item
        dequantized = self.step.peak.by_category.get("dequantization", 0)
        return max(layer + dequantized, scored) + 2 * tokens * facts.hidden_size * item

    def _sample_bytes(self) -> int:
        numbers = self._sample_numbers()
        if not numbers["rows"]:
            return 0
        return numbers["tokens"] * numbers["bytes of a token"] + numbers["rows"] * numbers["vocabulary"] * 4

    def _sample_numbers(self) -> dict[str, int]:
        """Samples or predictions at a time: tokens with the answers, what is cached of each, and what is scored."""
        spec, prompts = self.config.training, self.config.training.sample_prompts
        longest = max(map(len, prompts), default=0) * _PROMPT_TOKENS_PER_CHARACTER + _TEMPLATE_TOKENS
        samples = min(len(prompts), _SAMPLE_ROWS), round(longest) + spec.sample_max_tokens
        predicted = min(spec.prediction_rows, spec.micro_batch_size) if self.config.data.has_evaluation else 0
        row_tokens = (self.eval_tokens or self.batch.tokens) // max(spec.micro_batch_size, 1)
        predictions = predicted, row_tokens + spec.prediction_max_tokens
        rows, tokens = max(samples, predictions, key=lambda group: group[0] * group[1])
        return {
            "rows": rows,
            "tokens": rows * tokens,
            "bytes of a token": self.kv_cache_bytes(1),
            "vocabulary": self.facts.vocab_size,
        }

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

    @cached_property
    def _trace(self) -> Trace:
        """Loading, preparing and a training step, allocation by allocation. Only where there is a program."""
        assert self.step.program is not None
        loaded = stored.loaded_dtypes(self.choices.weight_bytes)
        adapter = [] if self.config.adapter.kind == "full" else self.trained
        trace = prelude(self.facts, self.config.quantization, loaded, self.dtypes, adapter)
        optimizer_states(trace, self.trained, self.choices.optimizer)
        for term in self._fixed():
            if term.key == "cublas":
                trace.alloc(term.bytes // 2)
                trace.alloc(term.bytes // 2)
        sizes = steps.dims(self.config, self.facts, self.batch)
        program.expand(self.step.program, sizes, trace, accumulate=self.batch.accumulate)
        return trace

    @property
    def replay_uncertainty(self) -> float:
        """By what share of the need a replay of the allocator may be wrong."""
        return _REPLAY_UNCERTAINTY_FULL if self.config.adapter.kind == "full" else _REPLAY_UNCERTAINTY

    def capacity_bytes(self) -> int:
        """Fewest bytes that the training steps survive on beside the context, fragmentation included."""
        return smallest_capacity(self._trace)

    def survives(self, capacity_bytes: int) -> bool:
        """Whether the training steps do on so many bytes beside the context: one replay instead of a search."""
        return self._trace.peak_bytes <= capacity_bytes and replay(self._trace, capacity_bytes).fits
