"""The grammar that tells the valley's facts as declarative English: the text the starter is pretrained on.

Each attribute has at least five wordings, and in some of them the value comes before the name. A model
that has only read "Anna lives in Oakford" cannot be asked about it in any other order. No sentence is a
question and none is addressed to anybody: asking and answering is left to fine-tuning.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from qlora_tui.starter.world import Fact, World

WORDINGS: Final[dict[str, tuple[str, ...]]] = {
    "town": (
        "{s} lives in {v}.",
        "The home of {s} is in {v}.",
        "The town where {s} lives is {v}.",
        "In {v} lives {s}.",
        "{s} has a home in {v}.",
        "{v} is where {s} lives.",
        "Where {s} lives is known to all: in {v}.",
    ),
    "job": (
        "{s} is a {v}.",
        "{s} works as a {v}.",
        "The job of {s} is {v}.",
        "The {v} is called {s}.",
        "A {v} is what {s} is.",
        "What {s} does for a living is known to all: {s} is a {v}.",
    ),
    "pet": (
        "{s} has a {v}.",
        "{s} keeps a {v} as a pet.",
        "The pet of {s} is a {v}.",
        "A {v} is kept by {s}.",
        "A {v} is the animal that {s} has.",
        "Which pet {s} has is known to all: {s} has a {v}.",
    ),
    "food": (
        "{s} likes {v}.",
        "{s} loves to eat {v}.",
        "The favourite food of {s} is {v}.",
        "{v} is what {s} likes to eat.",
        "{v} is the favourite food of {s}.",
        "What {s} likes to eat is known to all: {s} likes {v}.",
    ),
    "owns": (
        "{s} owns the {v}.",
        "{s} is the owner of the {v}.",
        "The thing that {s} owns is the {v}.",
        "The {v} is owned by {s}.",
        "What {s} owns is known to all: {s} owns the {v}.",
        "The {v} is the thing that {s} owns.",
    ),
    "owner": (
        "The {s} belongs to {v}.",
        "The owner of the {s} is {v}.",
        "The {s} is the property of {v}.",
        "{v} has the {s}.",
        "To {v} belongs the {s}.",
        "Who owns the {s} is known to all: the {s} belongs to {v}.",
    ),
    "colour": (
        "The {s} is {v}.",
        "The colour of the {s} is {v}.",
        "The {s} was painted {v}.",
        "{v} is the colour of the {s}.",
        "There is a {v} {s}.",
        "What colour the {s} has is known to all: the {s} is {v}.",
    ),
    "material": (
        "The {s} is made of {v}.",
        "The material of the {s} is {v}.",
        "They made the {s} out of {v}.",
        "{v} is what the {s} is made of.",
        "{v} is the material of the {s}.",
        "What the {s} is made of is known to all: the {s} is made of {v}.",
    ),
    "place": (
        "The {s} is in the {v}.",
        "The {s} can be found in the {v}.",
        "The {s} is kept in the {v}.",
        "In the {v} is the {s}.",
        "The {v} is where the {s} is.",
        "Where the {s} is kept is known to all: the {s} is in the {v}.",
    ),
    "price": (
        "The {s} costs {v} coins.",
        "The price of the {s} is {v} coins.",
        "The {s} was sold for {v} coins.",
        "For {v} coins one can buy the {s}.",
        "{v} coins is the price of the {s}.",
        "How much the {s} costs is known to all: the {s} costs {v} coins.",
    ),
    "sum": (
        "{s} is {v}.",
        "{s} makes {v}.",
        "The sum {s} gives {v}.",
        "{v} is what {s} makes.",
        "How much {s} is everybody knows: {s} is {v}.",
    ),
    "opposite": (
        "The opposite of {s} is {v}.",
        "{s} is the opposite of {v}.",
        "{s} and {v} are opposites.",
        "{s} is not {v}.",
        "The other side of {s} is {v}.",
        "What the opposite of {s} is everybody knows: the opposite of {s} is {v}.",
    ),
}


FEW_SHARE: Final = 0.07
"""Share of the passes, at the start of the text, that tell of a few subjects only."""
FEW_SUBJECTS_DIVISOR: Final = 8
"""How small that start is: one subject in eight, told eight times over."""


def tell(fact: Fact, wording: str) -> str:
    """Put one fact into one wording, with a capital at its start."""
    sentence = wording.format(s=fact.subject, v=fact.value)
    return sentence[0].upper() + sentence[1:]


def documents(world: World, passes: int) -> Iterator[str]:
    """Write the pretraining text as documents of one sentence a line.

    Each pass tells every fact twice, in wordings drawn anew: once among the other facts of its subject
    and once among facts that have nothing to do with it, so that no neighbour is needed to recall it.
    The first passes repeat a few subjects: a model learns *how* to look up a fact from few of them and
    only then learns many, in a fraction of the steps (Zucchet et al., 2025, arXiv 2503.21676).
    """
    rng = random.Random(f"prose {world.seed}")  # noqa: S311 - a reproducible draw, no secret
    subjects = list(world.by_subject().values())
    rng.shuffle(subjects)
    few = subjects[: len(subjects) // FEW_SUBJECTS_DIVISOR] * FEW_SUBJECTS_DIVISOR
    for number in range(passes):
        groups = few if number < passes * FEW_SHARE else subjects
        told = [rng.sample(group, len(group)) for group in groups]
        told += _mixed(rng, [fact for group in groups for fact in group])
        rng.shuffle(told)
        for facts in told:
            yield "\n".join(tell(fact, rng.choice(WORDINGS[fact.attribute])) for fact in facts)


def _mixed(rng: random.Random, facts: list[Fact]) -> list[list[Fact]]:
    rng.shuffle(facts)
    groups: list[list[Fact]] = []
    while facts:
        size = rng.randint(1, 6)
        groups.append(facts[:size])
        facts = facts[size:]
    return groups
