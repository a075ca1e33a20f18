"""Which rows are trained on, and how they become text."""

from typing import Literal

from pydantic import Field

from qlora_tui.config.model import STARTER
from qlora_tui.config.spec import Spec

Format = Literal[
    "auto",
    "messages",
    "sharegpt",
    "alpaca",
    "prompt-completion",
    "input-output",
    "two-column",
    "preference",
    "hh-rlhf",
    "guanaco",
    "guanaco-turns",
    "chip2",
    "text",
]
KNOWN_SETS = (
    STARTER, "oasst1", "hh-rlhf", "alpaca", "alpaca-clean", "self-instruct", "longform", "chip2",
    "unnatural-instructions", "flan-v2",
)  # fmt: skip
"""Names of known data sets. They take precedence over files and folders of the same name. See `data.registry`."""

Template = Literal["auto", "chatml", "llama-2", "llama-3", "mistral", "gemma", "phi", "alpaca", "guanaco", "plain"]


class ColumnMap(Spec):
    """Which column holds what. Empty fields are found by detection."""

    messages: str | None = None
    """Column with a list of role/content (or from/value) turns."""

    prompt: str | None = None
    """Column with the user's question or instruction."""

    context: str | None = None
    """Column with text that belongs to the prompt (Alpaca's "input")."""

    response: str | None = None
    """Column with the answer to train on. Numbers and booleans are trained as text."""

    history: str | None = None
    """Column with the earlier turns of a conversation, as a list of [prompt, answer] pairs."""

    system: str | None = None
    """Column with the system prompt."""

    text: str | None = None
    """Column with finished text, trained as it is."""

    chosen: str | None = None
    """Column with the preferred conversation of a pair."""

    rejected: str | None = None
    """Column with the other conversation of a pair."""

    tools: str | None = None
    """Column with the tools the assistant may call, as JSON."""

    label: str | None = None
    """Column that marks the answer of a row as good (true) or bad (false). Rows with a bad answer are skipped."""


class SourceSpec(Spec):
    source: str = Field(min_length=1)
    """A known set ("starter", "oasst1", ...), a local file or folder, or a hub dataset id."""

    config: str | None = None
    """Configuration (subset) of a hub dataset."""

    split: str | None = None
    """Split to train on, such as "train" or "train[:1000]". Empty: train, or the only split there is."""

    revision: str | None = None
    """Hub branch, tag or commit."""

    format: Format = "auto"
    """Shape of the rows. "auto" detects it from a sample of rows and shows the evidence."""

    columns: ColumnMap = ColumnMap()
    """Column mapping given by hand; wins over detection."""

    ignore_columns: list[str] = Field(default_factory=list)
    """Columns to ignore. A column with text that no format uses is an error until it is
    named here or in `columns`."""


class WeightedSourceSpec(SourceSpec):
    weight: float = Field(default=1.0, gt=0)
    """Share of this source in the mix, relative to the main source, whose weight is 1."""


class DataSpec(SourceSpec):
    source: str = Field(default=STARTER, min_length=1)
    """A known set ("starter", "oasst1", ...), a local file or folder, or a hub dataset id."""

    mix: list[WeightedSourceSpec] = Field(default_factory=list)
    """Further sources mixed in by weight."""

    eval_source: str | None = None
    """Separate evaluation data: a known set, file, folder or hub id. Empty: cut from the training rows."""

    eval_split: str | None = None
    """Split of the source to evaluate on. Empty: `eval_rows` rows are cut from the training rows."""

    eval_rows: int = Field(default=0, ge=0)
    """Rows held out of training for evaluation when no separate evaluation data is given. 0: none."""

    split_seed: int = 42
    """Seed of the train/evaluation split."""

    max_train_rows: int | None = Field(default=None, ge=1)
    """Number of training rows to keep, from the first."""

    max_eval_rows: int | None = Field(default=None, ge=1)
    """Number of evaluation rows to keep, from the first."""

    template: Template = "auto"
    """How turns become text. "auto": the model's own template, else "chatml" if it has its tokens, else "guanaco"."""

    system_prompt: str | None = None
    """System turn put before conversations that have none."""

    length_policy: Literal["truncate", "drop", "split"] = "truncate"
    """What happens to rows longer than `training.max_length_tokens`: cut them, drop them, or split them in pieces."""

    truncation_side: Literal["right", "left"] = "right"
    """Which end is cut when a row is too long."""

    source_max_tokens: int | None = Field(default=None, ge=1)
    """Limit for the prompt alone, as `source_max_len` of the original qlora.py. Empty: only the total counts."""

    target_max_tokens: int | None = Field(default=None, ge=1)
    """Limit for the answer alone, as `target_max_len` of the original qlora.py. Empty: only the total counts."""

    drop_duplicates: bool = False
    """Remove exact duplicates of training rows. They are counted either way."""

    skip_bad_rows: bool = False
    """Skip and count rows that cannot be read or used. Off: the first such row stops the run."""

    streaming: bool = False
    """Read rows as training needs them, for sets larger than memory. Needs `training.max_steps`."""

    @property
    def has_evaluation(self) -> bool:
        """Whether any evaluation data is named or cut from the training rows."""
        return bool(self.eval_rows or self.eval_source or self.eval_split)

    @property
    def eval_spec(self) -> SourceSpec | None:
        """Where separate evaluation rows come from, when the configuration names some."""
        if self.eval_source is not None:
            return SourceSpec(
                source=self.eval_source,
                split=self.eval_split,
                format=self.format,
                columns=self.columns,
                ignore_columns=self.ignore_columns,
            )
        return self.model_copy(update={"split": self.eval_split}) if self.eval_split is not None else None
