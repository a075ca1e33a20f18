"""MMLU from the hub as a file of rows in the original format: subject, input (the whole prompt) and output (a letter).

Zero-shot prompts are byte for byte those of the original repository's files; few-shot ones put the first questions of
the subject from the "dev" split, with their answers, between the heading and the question (Hendrycks et al., 2021).
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlora_tui.data.downloads import Consent, Progress
from qlora_tui.errors import DataError

SOURCE = "cais/mmlu"
CONFIG = "all"
LETTERS = ("A", "B", "C", "D")
EXAMPLES = "dev"
"""The split that examples are taken from: five of each subject."""


@dataclass(frozen=True, slots=True)
class Choices:
    """One question with its four choices; `letter` is the right one."""

    subject: str
    question: str
    choices: tuple[str, ...]
    letter: str

    def text(self) -> str:
        """The question with lettered choices, up to where the letter is expected."""
        listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True))
        return f"{self.question}{listed}\nAnswer:"


def write_file(
    out: Path, *, shots: int, split: str, consent: Consent, on_progress: Progress | None = None, source: str = SOURCE,
    config: str = CONFIG, revision: str | None = None,
) -> int:  # fmt: skip
    """Write every question of `split` as a row and return how many there are. The file is written whole or not at all.

    Raises DataError for a set that cannot be had or is no MMLU, and for a subject with fewer than `shots` examples.
    """
    from qlora_tui import atomic

    fetch = _Fetch(source, config, revision, consent, on_progress)
    asked = list(fetch.questions(split))
    examples: dict[str, list[Choices]] = defaultdict(list)
    for one in fetch.questions(EXAMPLES) if shots else ():
        examples[one.subject].append(one)
    rows = [_row(one, _examples(examples, one.subject, shots, source)) for one in asked]
    if not rows:
        raise DataError(f"{source}: no questions in split {split!r}")
    atomic.write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), private=False)
    return len(rows)


def _examples(examples: dict[str, list[Choices]], subject: str, shots: int, source: str) -> list[Choices]:
    found = examples.get(subject, [])[:shots]
    if len(found) < shots:
        raise DataError(
            f"{source}: {subject} has {len(found)} examples in split {EXAMPLES!r}, not {shots}",
            hint=f"Take at most --shots {len(found)}.",
        )
    return found


def _row(asked: Choices, examples: list[Choices]) -> dict[str, str]:
    # Two blanks before the subject: the models were measured with this heading, and scores depend on it.
    heading = f"The following are multiple choice questions (with answers) about  {asked.subject.replace('_', ' ')}."
    shown = [f"{one.text()} {one.letter}" for one in examples]
    return {"subject": asked.subject, "input": "\n\n".join((heading, *shown, asked.text())), "output": asked.letter}


@dataclass(frozen=True)
class _Fetch:
    source: str
    config: str
    revision: str | None
    consent: Consent
    on_progress: Progress | None

    def questions(self, split: str) -> Iterator[Choices]:
        from qlora_tui.config.data import SourceSpec
        from qlora_tui.data.bad_rows import BadRow
        from qlora_tui.data.hub import hub_files
        from qlora_tui.data.readers import raw_rows

        spec = SourceSpec(source=self.source, config=self.config, revision=self.revision, split=split)
        found = hub_files(
            spec, "eval", data_file=None, streaming=False, consent=self.consent, on_progress=self.on_progress
        )
        for row in raw_rows(found.files):
            if isinstance(row, BadRow):
                raise DataError(f"{self.source}, {row.where}: {row.reason}")
            yield _choices(f"{self.source}, {row[0]}", row[1])


def _choices(where: str, row: dict[str, Any]) -> Choices:
    subject, question, choices = row.get("subject"), row.get("question"), row.get("choices")
    letter = _letter(row.get("answer"))
    fits = isinstance(choices, list | tuple) and [type(choice) for choice in choices] == [str] * len(LETTERS)
    if not (isinstance(subject, str) and isinstance(question, str) and fits and choices and letter):
        raise DataError(
            f"{where}: no MMLU row, which has {', '.join(row) or 'nothing'}",
            hint="Expected subject, question, four choices and answer (0 to 3).",
        )
    return Choices(subject, question, tuple(choices), letter)


def _letter(answer: Any) -> str | None:
    if isinstance(answer, int) and not isinstance(answer, bool):
        return LETTERS[answer] if 0 <= answer < len(LETTERS) else None
    return answer if answer in LETTERS else None
