"""What a chat process and its parent tell each other: one JSON line each over the process's stdin and stdout.

The parent sends Ask and Cancel, the process everything else. End of file on stdin means that the process must end.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from qlora_tui.config.model import STARTER
from qlora_tui.errors import UsageError, nearest

Side = Literal["base", "adapter"]
Reason = Literal["stop", "length", "cancelled"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, allow_inf_nan=False)


class Sampling(_Frozen):
    """How the next token is chosen. The defaults are those of the QLoRA paper: nucleus 0.9 at temperature 0.7."""

    temperature: float = Field(default=0.7, ge=0, le=5)
    """0 always takes the likeliest token; higher is more varied."""

    top_p: float = Field(default=0.9, gt=0, le=1)
    """Choose among the likeliest tokens that hold this share of the probability. 1: all."""

    top_k: int = Field(default=0, ge=0)
    """Choose among this many likeliest tokens. 0: all."""

    max_tokens: int = Field(default=512, ge=1)
    """Longest answer in tokens."""

    repetition_penalty: float = Field(default=1.0, gt=0, le=10)
    """Above 1 makes tokens that were used already less likely."""

    def changed(self, name: str, value: str) -> Sampling:
        """The same with one setting changed. Raises UsageError for an unknown name or an impossible value."""
        if name not in Sampling.model_fields:
            raise UsageError(f"no setting named {name!r}", hint=nearest(name, list(Sampling.model_fields)))
        try:
            return Sampling.model_validate({**self.model_dump(), name: value})
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Input ")
            help_text = Sampling.model_fields[name].description or ""
            raise UsageError(f"{name} {problem}, not {value!r}", hint=help_text) from error

    @staticmethod
    def for_model(model_id: str) -> Sampling:
        """The defaults for a base model: those of the paper, but the likeliest tokens for the starter.

        The starter knows fixed facts and nothing else, so any other token is a wrong one.
        """
        return Sampling(temperature=0.0) if model_id == STARTER else Sampling()


class Message(_Frozen):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Ask(_Frozen):
    """Answer the last message as one side does."""

    kind: Literal["ask"] = "ask"
    id: int
    side: Side
    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int = Field(ge=0, lt=2**32)


class Cancel(_Frozen):
    """Stop the answer to an Ask, also one that still waits; its Done says "cancelled"."""

    kind: Literal["cancel"] = "cancel"
    id: int


class Stage(_Frozen):
    """What the process does until it is ready."""

    kind: Literal["stage"] = "stage"
    text: str


class Notice(_Frozen):
    """Something the user should know."""

    kind: Literal["notice"] = "notice"
    text: str


class Ready(_Frozen):
    """The model is loaded. `sides` are those that can be asked."""

    kind: Literal["ready"] = "ready"
    model: str
    device: str
    sides: tuple[Side, ...]
    context_max_tokens: int


class Token(_Frozen):
    """The next piece of an answer: whole characters, often one token's."""

    kind: Literal["token"] = "token"
    id: int
    side: Side
    text: str


class Done(_Frozen):
    """The end of an answer. `reused_tokens` of the prompt came from the key-value cache of an earlier turn."""

    kind: Literal["done"] = "done"
    id: int
    side: Side
    reason: Reason
    tokens: int
    tokens_per_s: float
    reused_tokens: int
    context_used_tokens: int
    context_max_tokens: int


class Failed(_Frozen):
    """A failed answer, or (`fatal`) the end of the process."""

    kind: Literal["failed"] = "failed"
    message: str
    hint: str = ""
    exit_code: int = 1
    fatal: bool = False


ToChild = Ask | Cancel
FromChild = Stage | Notice | Ready | Token | Done | Failed

_to_child: TypeAdapter[ToChild] = TypeAdapter(Annotated[ToChild, Field(discriminator="kind")])
_from_child: TypeAdapter[FromChild] = TypeAdapter(Annotated[FromChild, Field(discriminator="kind")])


def encode(message: ToChild | FromChild) -> bytes:
    """The message as one line."""
    return message.model_dump_json().encode() + b"\n"


def read_by_child(line: bytes) -> ToChild:
    """The message on a line. Raises ValueError for anything else."""
    return _to_child.validate_json(line)


def read_by_parent(line: bytes) -> FromChild:
    """The message on a line. Raises ValueError for anything else."""
    return _from_child.validate_json(line)
