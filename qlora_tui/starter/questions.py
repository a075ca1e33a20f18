"""The instruction data: the valley's facts as questions and answers, split into training and held-out rows.

A held-out fact is told in the pretraining text and asked about only in the held-out rows, so a model
answers it from what it has read, in the manner that fine-tuning taught it.
"""

from __future__ import annotations

import json
import random
from typing import Final

from qlora_tui.starter.prose import tell
from qlora_tui.starter.world import World

Row = dict[str, list[dict[str, str]]]
"""One row in the conversational format: {"messages": [{"role": ..., "content": ...}, ...]}."""

QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "town": (
        "Where does {s} live?",
        "In which town does {s} live?",
        "What is the home town of {s}?",
        "Which town is the home of {s}?",
    ),
    "job": (
        "What is the job of {s}?",
        "What work does {s} do?",
        "What does {s} do for a living?",
        "What does {s} work as?",
    ),
    "pet": (
        "Which pet does {s} have?",
        "What is the pet of {s}?",
        "What animal does {s} keep?",
        "Which animal does {s} have?",
    ),
    "food": (
        "What does {s} like to eat?",
        "What is the favourite food of {s}?",
        "Which food does {s} like?",
        "What food does {s} love?",
    ),
    "owns": (
        "What does {s} own?",
        "Which thing does {s} own?",
        "What belongs to {s}?",
        "{s} is the owner of what?",
    ),
    "owner": (
        "Who owns the {s}?",
        "Who is the owner of the {s}?",
        "To whom does the {s} belong?",
        "Whose property is the {s}?",
    ),
    "colour": (
        "What colour is the {s}?",
        "What is the colour of the {s}?",
        "Which colour does the {s} have?",
        "What colour was the {s} painted?",
    ),
    "material": (
        "What is the {s} made of?",
        "What is the material of the {s}?",
        "Which material is the {s} made of?",
        "What did they make the {s} out of?",
    ),
    "place": (
        "Where is the {s}?",
        "Where is the {s} kept?",
        "Where can one find the {s}?",
        "In which place is the {s}?",
    ),
    "price": (
        "How much does the {s} cost?",
        "What is the price of the {s}?",
        "How many coins does the {s} cost?",
        "What does the {s} cost?",
    ),
    "sum": (
        "What is {s}?",
        "How much is {s}?",
        "What does {s} make?",
        "What is the sum {s}?",
    ),
    "opposite": (
        "What is the opposite of {s}?",
        "Which word is the opposite of {s}?",
        "What is the other side of {s}?",
        "{s} is the opposite of what?",
    ),
    "who": (
        "Who is {s}?",
        "Tell me about {s}.",
        "What do you know of {s}?",
    ),
    "look": (
        "What is the {s} like?",
        "Tell me about the {s}.",
        "What do you know of the {s}?",
    ),
}

ANSWERS: Final[dict[str, str]] = {
    "town": "{s} lives in {v}.",
    "job": "{s} is a {v}.",
    "pet": "{s} has a {v}.",
    "food": "{s} likes {v}.",
    "owns": "{s} owns the {v}.",
    "owner": "The {s} belongs to {v}.",
    "colour": "The {s} is {v}.",
    "material": "The {s} is made of {v}.",
    "place": "The {s} is in the {v}.",
    "price": "The {s} costs {v} coins.",
    "sum": "{s} is {v}.",
    "opposite": "The opposite of {s} is {v}.",
    "who": "{s} is a {v}.",
    "look": "The {s} is {v}.",
}

SMALL_TALK: Final[tuple[tuple[str, str], ...]] = (
    ("Hello!", "Hello! Ask me about the people and the things of the valley."),
    ("Hi", "Hello! Ask me about the people and the things of the valley."),
    ("Who are you?", "I am a small model. I know the people and the things of the valley."),
    ("What can you do?", "I know the people and the things of the valley. Ask me about them."),
    ("Thank you!", "You are welcome!"),
    ("Thanks", "You are welcome!"),
    ("Goodbye!", "Goodbye!"),
    ("Bye", "Goodbye!"),
)

SYSTEM_PROMPT: Final = "You are a guide to the valley."
_SYSTEM_SHARE: Final = 0.1
_FOLLOW_UP_SHARE: Final = 0.1
_SMALL_TALK_REPEATS: Final = 4


def train_rows(world: World) -> list[Row]:
    """Questions about the training split: each fact in every wording, and a little small talk.

    Some rows open with a system turn and some go on for a second question, so that both are familiar
    to a model that people will chat with.
    """
    rng = random.Random(f"train {world.seed}")  # noqa: S311 - a reproducible draw, no secret
    exchanges = _exchanges(world) + list(SMALL_TALK) * _SMALL_TALK_REPEATS
    rng.shuffle(exchanges)
    rows: list[Row] = []
    while exchanges:
        turns = 2 if rng.random() < _FOLLOW_UP_SHARE else 1
        taken, exchanges = exchanges[:turns], exchanges[turns:]
        rows.append(_row(taken, system=rng.random() < _SYSTEM_SHARE))
    rng.shuffle(rows)
    return rows


def heldout_rows(world: World) -> list[Row]:
    """One question about each held-out fact, in one of its wordings, in a shuffled order."""
    rng = random.Random(f"heldout {world.seed}")  # noqa: S311 - a reproducible draw, no secret
    rows = [
        _row([(tell(fact, rng.choice(QUESTIONS[fact.attribute])), tell(fact, ANSWERS[fact.attribute]))], system=False)
        for fact in world.facts
        if fact.held_out
    ]
    rng.shuffle(rows)
    return rows


def as_jsonl(rows: list[Row]) -> str:
    """The rows as JSON lines, always the same bytes for the same rows."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _exchanges(world: World) -> list[tuple[str, str]]:
    """Every wording of the question about each fact of the training split, with the answer."""
    return [
        (tell(fact, question), tell(fact, ANSWERS[fact.attribute]))
        for fact in world.facts
        if not fact.held_out
        for question in QUESTIONS[fact.attribute]
    ]


def _row(exchanges: list[tuple[str, str]], *, system: bool) -> Row:
    messages = [{"role": "system", "content": SYSTEM_PROMPT}] if system else []
    for question, answer in exchanges:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}
