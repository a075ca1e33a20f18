"""A conversation: its turns, what each side is shown of it, and the file it is saved in."""

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from qlora_tui.chat.protocol import Message, Reason, Side
from qlora_tui.errors import DataError, RunConflictError, UsageError
from qlora_tui.runs import checksums
from qlora_tui.runs.store import RunFolder, check_name

TRANSCRIPT_VERSION = 1


@dataclass(slots=True)
class Answer:
    """What one side said, with what is needed to get it again. `reason` is None while it is being said."""

    sampling: dict[str, float]
    seed: int
    text: str = ""
    reason: Reason | None = None
    tokens: int = 0
    tokens_per_s: float = 0.0


@dataclass(slots=True)
class Turn:
    question: str
    answers: dict[Side, Answer] = field(default_factory=dict)

    def answer_of(self, side: Side) -> Answer | None:
        """The side's answer, or the other side's where it was not asked."""
        return self.answers.get(side) or next(iter(self.answers.values()), None)


@dataclass(slots=True)
class Conversation:
    """Two histories in one: each side remembers its own answers, and the other's where it was not asked."""

    system: str = ""
    turns: list[Turn] = field(default_factory=list)

    def set_system(self, text: str) -> None:
        """Set the system prompt; empty text removes it."""
        self.system = _unicode(text)

    def open_turn(self, question: str) -> None:
        """Add a question."""
        self.turns.append(Turn(_unicode(question)))

    def prompt(self, side: Side) -> tuple[Message, ...]:
        """Everything up to the last question, which is the one to be answered."""
        messages = [Message(role="system", content=self.system)] if self.system else []
        for turn in self.turns[:-1]:
            messages.append(Message(role="user", content=turn.question))
            answer = turn.answer_of(side)
            if answer is not None:
                messages.append(Message(role="assistant", content=answer.text))
        messages.append(Message(role="user", content=self.turns[-1].question))
        return tuple(messages)

    def undo(self) -> Turn:
        """Remove the last turn and return it. Raises UsageError when there is none."""
        if not self.turns:
            raise UsageError("nothing to undo: no question was asked yet")
        return self.turns.pop()


def _unicode(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer takes, as question marks."""
    return text.encode("utf-8", "replace").decode()


def save(run: RunFolder, conversation: Conversation, about: dict[str, Any], name: str | None, own: Path | None) -> Path:
    """Write the conversation to RUN/chats/NAME.json, complete or not at all, and return the path.

    `own` is where this conversation was saved before: it is written again without a name, and may be replaced.
    Raises UsageError for an illegal name, RunConflictError when the name is taken, StorageError.
    """
    if name is None:
        path = own or run.chats / f"chat-{datetime.now():%Y%m%d-%H%M%S}.json"
    else:
        path = run.chats / f"{check_name(name.removesuffix('.json'))}.json"
    if path != own and path.exists():
        raise RunConflictError(f"{path} exists already", hint="Choose another name: /save NAME.")
    checksums.write_json(
        path,
        {
            "version": TRANSCRIPT_VERSION,
            **about,
            "system": conversation.system,
            "turns": [asdict(turn) for turn in conversation.turns],
        },
    )
    return path


_conversation: TypeAdapter[Conversation] = TypeAdapter(Conversation)


def saved(run: RunFolder) -> list[Path]:
    """The transcripts of a run, newest first."""
    made_ns: dict[Path, int] = {}
    for path in run.chats.glob("*.json"):
        with suppress(FileNotFoundError):  # deleted a moment ago
            made_ns[path] = path.stat().st_mtime_ns
    return sorted(made_ns, key=lambda path: made_ns[path], reverse=True)


def load(path: Path) -> Conversation:
    """The conversation that `save` wrote. Raises DataError naming the file and what is wrong with it."""
    try:
        return _conversation.validate_python(_read(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}, {where}: {first['msg']}", hint="The file was changed after it was saved.") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}", hint="The file was changed after it was saved.") from error


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a transcript. Raises DataError when its checksum does not match, ValueError, OSError."""
    try:
        return checksums.read_json(path)
    except checksums.ChecksumError as error:
        hint = 'Restore it from a backup. If you edited it yourself, remove the key "xxh3".'
        raise DataError(f"{path} is damaged: {error}", hint=hint) from error


def as_markdown(conversation: Conversation) -> str:
    """The conversation for people: each question as a heading, the answers below it, named where there are two."""
    parts = [f"> {conversation.system}"] if conversation.system else []
    for turn in conversation.turns:
        parts.append(f"## {turn.question}")
        for side, answer in turn.answers.items():
            parts.append(f"**{side}**\n\n{answer.text.strip()}" if len(turn.answers) > 1 else answer.text.strip())
    return "\n\n".join(parts) + "\n"
