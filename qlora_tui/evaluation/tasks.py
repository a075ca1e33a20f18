"""What an evaluation is asked to do, as the command writes it and the evaluation process reads it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from qlora_tui.chat.protocol import Sampling
from qlora_tui.config.data import SourceSpec
from qlora_tui.evaluation.predictions import Side


class _Task(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sides: tuple[Side, ...] = ("base", "adapter")
    """Who is evaluated."""

    checkpoint: int | None = None
    """Step of the checkpoint in place of the finished adapter."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    limit: Annotated[int, Field(ge=1)] | None = None
    """Largest number of rows or questions, from the first."""

    batch_rows: Annotated[int, Field(ge=1)] = 8
    """Rows computed at once."""

    name: str
    """Of the result: RUN/eval/NAME.json."""


class LossTask(_Task):
    """Loss and perplexity of the run's held-out rows, or of a dataset."""

    kind: Literal["loss"] = "loss"
    data: str | None = None
    """Dataset in place of the run's own held-out rows."""

    split: str | None = None
    """Of that dataset, such as "test" or "train[:100]"."""

    @property
    def source(self) -> SourceSpec | None:
        """The dataset that is read beside the run's own; None without one."""
        return None if self.data is None else SourceSpec(source=self.data, split=self.split)


class AnswersTask(_Task):
    """Greedy answers to questions with known answers, scored by exact match, token F1, ROUGE-L and chrF."""

    kind: Literal["answers"] = "answers"
    data: str
    split: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 64

    @property
    def source(self) -> SourceSpec:
        """The dataset with the questions and answers."""
        return SourceSpec(source=self.data, split=self.split)


class MmluTask(_Task):
    """Multiple choice over the four letters: rows with subject, input and output as in the original repository."""

    kind: Literal["mmlu"] = "mmlu"
    file: str
    max_source_tokens: Annotated[int, Field(ge=8)] = 2048
    """Longer prompts keep their end, as in the original."""


class GenerateTask(_Task):
    """Sampled answers to a question file, for a judge."""

    kind: Literal["generate"] = "generate"
    questions: str
    """Question file, or any dataset."""

    split: str | None = None
    sampling: Sampling = Sampling()
    seed: int = 0

    @property
    def source(self) -> SourceSpec:
        """Where the questions come from."""
        return SourceSpec(source=self.questions, split=self.split)


class HarnessTask(_Task):
    """Tasks of lm-eval, by its own code."""

    kind: Literal["harness"] = "harness"
    tasks: tuple[str, ...]
    shots: int | None = None
    include: str | None = None
    """Folder with task files of one's own."""


Task = LossTask | AnswersTask | MmluTask | GenerateTask | HarnessTask
_adapter: TypeAdapter[Task] = TypeAdapter(Annotated[Task, Field(discriminator="kind")])


def parse(text: str) -> Task:
    """The task that `model_dump_json` wrote. Raises ValueError."""
    return _adapter.validate_json(text)
