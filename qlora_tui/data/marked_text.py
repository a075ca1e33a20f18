"""Texts that carry their turns as markers: HH-RLHF ("Human:"), Guanaco ("### Human:") and Chip2 ("<human>:")."""

import re
from dataclasses import dataclass

from qlora_tui.data.bad_rows import RowError
from qlora_tui.data.rows import Role
from qlora_tui.data.turns import StoredTurn, turn

_ROLES: dict[str, Role] = {"human": "user", "assistant": "assistant", "bot": "assistant"}


@dataclass(frozen=True)
class Markers:
    """How a text marks the start of a turn. `pattern` has one group, the speaker."""

    name: str
    pattern: re.Pattern[str]
    shown: str

    def split(self, text: str, what: str) -> list[StoredTurn]:
        """The turns of `text`, without the space around them. Raises RowError where it does not start with a marker."""
        parts = self.pattern.split(text)
        if len(parts) < 3 or parts[0].strip():
            raise RowError(f"{what} does not start with {self.shown}")
        speakers, contents = parts[1::2], parts[2::2]
        return [turn(_ROLES[who.lower()], said.strip()) for who, said in zip(speakers, contents, strict=True)]

    def marks(self, text: str) -> bool:
        """Whether `text` starts with a turn and has an answer."""
        parts = self.pattern.split(text)
        return (
            len(parts) >= 5 and not parts[0].strip() and any(_ROLES[who.lower()] == "assistant" for who in parts[1::2])
        )


HH = Markers("hh-rlhf", re.compile(r"(?:^|\n\n)(Human|Assistant):(?= |\n|$)"), "'Human:'")
GUANACO = Markers("guanaco", re.compile(r"### (Human|Assistant):"), "'### Human:'")
CHIP2 = Markers("chip2", re.compile(r"(?:^|\n)<(human|bot)>:"), "'<human>:'")
