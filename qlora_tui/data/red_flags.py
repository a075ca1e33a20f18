"""Signs of trouble in the rows' own text that hold for any language, counted row by row in bounded memory."""

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = 1
"""Raised when the same rows would get other flags, so that older caches are not read."""

_REMEMBERED_ANSWERS = 10_000
_QUOTED_PROMPT_CHARACTERS = 20
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")
_UNREADABLE = re.compile("[\ufffd\ufdd0-\ufdef\ufffe\uffff\ue000-\uf8ff]")
_MISREAD = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013\u2014\u2018-\u201a\u201c-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]{1,3}"
)


@dataclass(slots=True)
class Flag:
    name: str
    meaning: str
    """What the rows have, to be read after "with"."""

    rows: int = 0
    example: str = ""
    """Where the first such row is."""


@dataclass(slots=True)
class RedFlags:
    """Feed rows to `add`, then read `found` and `most_common_answer`."""

    rows: int = 0
    _flags: dict[str, Flag] = field(default_factory=dict)
    _answers: "array[int]" = field(default_factory=lambda: array("q"))
    _texts: dict[int, str] = field(default_factory=dict)

    def add(self, batch: Mapping[str, Sequence[Any]]) -> None:
        """Look at a batch of columns messages, text and origin."""
        for messages, text, origin in zip(batch["messages"], batch["text"], batch["origin"], strict=True):
            self.rows += 1
            if text is not None:
                self._look_at_text([text], origin)
                continue
            self._look_at_text([turn["content"] for turn in messages], origin)
            self._look_at_answers(messages, origin)

    def found(self) -> list[dict[str, Any]]:
        """Each flag that was met, most rows first."""
        met = [asdict(flag) for flag in self._flags.values()]
        answer, count = self.most_common_answer()
        if count > max(2, self.rows // 100):
            meaning = "one and the same answer" + (f": {answer}" if answer else "")
            met.append(asdict(Flag("same answer", meaning, count)))
        return sorted(met, key=lambda flag: -flag["rows"])

    def most_common_answer(self) -> tuple[str, int]:
        """The last answer that most rows share, shortened, and in how many rows it is."""
        if not self._answers:
            return "", 0
        import numpy as np

        values, counts = np.unique(np.frombuffer(self._answers, dtype=np.int64), return_counts=True)
        best = int(counts.argmax())
        return self._texts.get(int(values[best]), ""), int(counts[best])

    def _flag(self, name: str, meaning: str, origin: str) -> None:
        flag = self._flags.setdefault(name, Flag(name, meaning, example=origin))
        flag.rows += 1

    def _look_at_text(self, texts: Iterable[str], origin: str) -> None:
        text = "\n".join(texts)
        if text.isascii() and text.isprintable():
            return
        if _CONTROLS.search(text):
            self._flag("control characters", "control characters or terminal escapes", origin)
        if text.isascii():
            return
        if _INVISIBLE.search(text):
            self._flag("invisible characters", "zero-width or direction-changing characters", origin)
        if _UNREADABLE.search(text):
            self._flag("unreadable characters", "replacement or private-use characters", origin)
        if is_mojibake(text):
            self._flag("mojibake", "UTF-8 that was read as another encoding", origin)

    def _look_at_answers(self, messages: Sequence[dict[str, Any]], origin: str) -> None:
        answers = [turn for turn in messages if turn["role"] == "assistant"]
        if any(not turn["content"].strip() and not turn.get("tool_calls") for turn in answers):
            self._flag("empty answers", "an empty answer", origin)
        if not answers:
            self._flag("no answer", "no assistant turn", origin)
            return
        last = answers[-1]["content"].strip()
        prompts = [turn["content"].strip() for turn in messages if turn["role"] == "user"]
        if prompts and len(prompts[-1]) >= _QUOTED_PROMPT_CHARACTERS and prompts[-1] in last:
            self._flag("prompt in answer", "the whole prompt repeated in the answer", origin)
        digest = hash(last)
        self._answers.append(digest)
        if len(self._texts) < _REMEMBERED_ANSWERS:
            self._texts.setdefault(digest, last[:80])


def is_mojibake(text: str) -> bool:
    """Whether some stretch of `text` becomes valid UTF-8 when its characters are taken as Windows-1252 bytes."""
    for found in _MISREAD.finditer(text):
        stretch = found.group()
        for length in range(2, len(stretch) + 1):
            try:
                stretch[:length].encode("cp1252").decode("utf-8")
            except (UnicodeDecodeError, UnicodeEncodeError):
                continue
            return True
    return False
