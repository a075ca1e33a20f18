"""How the weights are updated, how often progress is measured and kept."""

from typing import Literal

from pydantic import Field

from qlora_tui.config.spec import Spec

Optimizer = Literal[
    "auto",
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_bnb_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "lion_32bit",
    "lion_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "ademamix",
    "ademamix_8bit",
    "adafactor",
    "sgd",
]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_min_lr", "inverse_sqrt"]
Tracker = Literal["wandb", "mlflow", "tensorboard", "trackio", "swanlab"]


class TrainingSpec(Spec):
    recipe: Literal["lean", "original"] = "lean"
    """lean: 16-bit load, no float32 upcast, tiled loss. original: the dtypes of qlora.py, and a bos token before every
    row that a named template or a text begins, to reproduce the paper."""

    micro_batch_size: int = Field(default=1, ge=1)
    """Rows per forward pass on one device. Decides activation memory."""

    gradient_accumulation_steps: int = Field(default=16, ge=1)
    """Forward passes summed before one optimizer step. Effective batch = micro batch x accumulation."""

    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data. Ignored when max_steps is set."""

    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps to train. Empty: by epochs."""

    learning_rate: float = Field(default=2e-4, gt=0, lt=10)
    """Peak learning rate. The paper: 2e-4 up to 13B, 1e-4 above."""

    schedule: Schedule = "constant"
    """Learning rate over time. "constant" ignores warmup."""

    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""

    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps in which the learning rate rises from 0. Wins over warmup_ratio."""

    optimizer: Optimizer = "auto"
    """"auto": paged_adamw_32bit on CUDA, adamw_torch on CPU. Paged states leave the GPU under pressure."""

    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the first moment."""

    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the second moment. The paper: 0.999."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""

    max_grad_norm: float = Field(default=0.3, ge=0)
    """Gradients with a larger norm are scaled down to it. 0: never. The paper: 0.3."""

    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations in the backward pass: less memory, about 1.3x slower. "auto": only when needed."""

    packing: bool = False
    """Put several rows into one sequence. Attention stays inside each row."""

    group_by_length: bool = False
    """Batch rows of similar length: less padding, a saw-tooth loss."""

    max_length_tokens: int = Field(default=1024, ge=8)
    """Longest row in tokens; longer ones follow `data.length_policy`."""

    loss_on: Literal["responses", "last-response", "everything"] = "responses"
    """Which tokens are trained: every assistant turn, the last one only, or all tokens (train_on_source)."""

    neftune_alpha: float | None = Field(default=None, gt=0)
    """NEFTune: noise on the embeddings while training (paper: 5). Empty: off."""

    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of adapter initialisation, data order and dropout."""

    eval_every_steps: int | None = Field(default=None, ge=1)
    """Evaluate every N steps. Empty: once at the end when there is evaluation data."""

    save_every_steps: int = Field(default=250, ge=1)
    """Number of steps between resumable checkpoints. A checkpoint is also written when the last one is ten minutes old,
    so that a run with slow steps loses little if it is killed."""

    keep_checkpoints: int = Field(default=3, ge=1)
    """Newest checkpoints kept; older ones are deleted, the best one is not."""

    best_checkpoint: bool = False
    """Finish with the weights of the lowest evaluation loss instead of the last ones. Needs evaluation data."""

    early_stopping_evals: int | None = Field(default=None, ge=1)
    """Stop after N evaluations without improvement. Needs evaluation data."""

    sample_prompts: list[str] = Field(default_factory=list)
    """Fixed prompts answered during training, so one sees the model learn."""

    sample_every_steps: int | None = Field(default=None, ge=1)
    """Answer the sample prompts every N steps. Empty: at each evaluation and at the end."""

    sample_max_tokens: int = Field(default=64, ge=1)
    """Longest sample answer in tokens."""

    prediction_rows: int = Field(default=16, ge=0)
    """Number of evaluation rows that the finished model answers in predictions.jsonl. 0 disables it."""

    prediction_max_tokens: int = Field(default=64, ge=1)
    """Maximum number of tokens per predicted answer."""

    mmlu_file: str | None = None
    """Multiple-choice rows answered at each evaluation; `eval mmlu-file` fetches them. Needs evaluation rows."""

    trackers: list[Tracker] = Field(default_factory=list)
    """Experiment trackers to report to; each needs its own package installed. None by default."""

    tracker_project: str | None = Field(default=None, min_length=1)
    """Project (MLflow: experiment) that the run is logged to. Default: the tracker's environment variable such as
    WANDB_PROJECT, else "qlora-tui"."""

    tracker_tags: list[str] = Field(default_factory=list)
    """Tags of the run in the trackers, in addition to the run's own tags."""
