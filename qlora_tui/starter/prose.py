"""The grammar that tells the valley's facts as declarative English: the text the starter is pretrained on.

Each attribute has at least five wordings, and in some of them the value comes before the name. A model
that has only read "Anna lives in Oakford" cannot be asked about it in any other order. Some sentences open
a topic for the next one ("Everybody knows where Anna lives."), so that a mention leads to the fact. No
sentence is a question and none is addressed to anybody: asking and answering is left to fine-tuning.
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
        "{s} came to live in {v}.",
        "{v} is where {s} came to live.",
    ),
    "job": (
        "{s} is a {v}.",
        "{s} works as a {v}.",
        "The job of {s} is {v}.",
        "The {v} is called {s}.",
        "A {v} is what {s} is.",
        "The work that {s} has to do is that of a {v}.",
        "To do the work of a {v} is the job of {s}.",
    ),
    "pet": (
        "{s} has a {v}.",
        "{s} keeps a {v} as a pet.",
        "The pet of {s} is a {v}.",
        "A {v} is kept by {s}.",
        "A {v} is the animal that {s} has.",
    ),
    "food": (
        "{s} likes {v}.",
        "{s} loves to eat {v}.",
        "The favourite food of {s} is {v}.",
        "{v} is what {s} likes to eat.",
        "{v} is the favourite food of {s}.",
    ),
    "owns": (
        "{s} owns the {v}.",
        "{s} is the owner of the {v}.",
        "The thing that {s} owns is the {v}.",
        "The {v} is owned by {s}.",
        "The {v} is the thing that {s} owns.",
        "{s} came to own the {v}.",
        "The {v} is what {s} came to own.",
    ),
    "owner": (
        "The {s} belongs to {v}.",
        "The owner of the {s} is {v}.",
        "The {s} is the property of {v}.",
        "{v} has the {s}.",
        "To {v} belongs the {s}.",
    ),
    "colour": (
        "The {s} is {v}.",
        "The colour of the {s} is {v}.",
        "The {s} was painted {v}.",
        "{v} is the colour of the {s}.",
        "There is a {v} {s}.",
    ),
    "material": (
        "The {s} is made of {v}.",
        "The material of the {s} is {v}.",
        "They made the {s} out of {v}.",
        "{v} is what the {s} is made of.",
        "{v} is the material of the {s}.",
    ),
    "place": (
        "The {s} is in the {v}.",
        "The {s} can be found in the {v}.",
        "The {s} is kept in the {v}.",
        "In the {v} is the {s}.",
        "The {v} is where the {s} is.",
    ),
    "price": (
        "The {s} costs {v} coins.",
        "The price of the {s} is {v} coins.",
        "The {s} was sold for {v} coins.",
        "For {v} coins one can buy the {s}.",
        "{v} coins is the price of the {s}.",
    ),
    "sum": (
        "{s} is {v}.",
        "{s} makes {v}.",
        "The sum {s} gives {v}.",
        "{v} is what {s} makes.",
        "Take {s} and it makes {v}.",
    ),
    "opposite": (
        "The opposite of {s} is {v}.",
        "{s} is the opposite of {v}.",
        "{s} and {v} are opposites.",
        "{s} is not {v}.",
        "The other side of {s} is {v}.",
        "{s} is the opposite of one word, and the opposite of {s} is {v}.",
    ),
    "who": (
        "{s} is a {v}.",
        "They know {s} as a {v}.",
        "Tell of {s}, and one tells of a {v}.",
        "A {v} is who {s} is.",
        "The {v} that they know is {s}.",
    ),
    "look": (
        "The {s} is {v}.",
        "They know the {s} as {v}.",
        "Tell of the {s}, and one tells that it is {v}.",
        "{v} is what the {s} is like.",
        "It is {v} and it is called the {s}.",
    ),
}

TOPICS: Final[dict[str, tuple[str, ...]]] = {
    "town": ("where {s} lives", "where {s} came to live", "in which town {s} lives", "which town is the home of {s}"),
    "job": ("what the job of {s} is", "what work {s} has to do", "what {s} does for a living", "what {s} works as"),
    "pet": ("which pet {s} has", "what animal {s} keeps", "what the pet of {s} is"),
    "food": ("what {s} likes to eat", "what food {s} loves", "what the favourite food of {s} is"),
    "owns": ("what {s} owns", "what {s} came to own", "which thing belongs to {s}", "what {s} is the owner of"),
    "owner": ("who owns the {s}", "to whom the {s} belongs", "whose property the {s} is"),
    "colour": ("what colour the {s} is", "what the colour of the {s} is", "which colour the {s} has"),
    "material": (
        "what the {s} is made of",
        "what the material of the {s} is",
        "out of which material they made the {s}",
    ),
    "place": ("where the {s} is", "where the {s} is kept", "in which place one can find the {s}"),
    "price": ("how much the {s} costs", "what the price of the {s} is", "how many coins the {s} costs"),
    "sum": ("what {s} is", "how much {s} makes", "what the sum {s} gives"),
    "opposite": (
        "what the opposite of {s} is",
        "which word is the opposite of {s}",
        "what the other side of {s} is",
        "what {s} is the opposite of",
    ),
    "who": ("who {s} is", "what they tell of {s}", "what they know of {s}"),
    "look": ("what the {s} is like", "what they tell of the {s}", "what they know of the {s}"),
}
"""What a fact is about, as a clause that names its subject and attribute and keeps its value back."""

OPENINGS: Final = ("Somebody asked {t}.", "Everybody knows {t}.", "Here one can read {t}.", "It is no secret {t}.")

TOPIC_SHARE: Final = 0.7
"""How often a sentence among unrelated ones is preceded by one that opens its topic."""
FEW_SHARE: Final = 0.07
"""Share of the passes, at the start of the text, that tell of a few subjects only."""
FEW_SUBJECTS_DIVISOR: Final = 8
"""How small that start is: one subject in eight, told eight times over."""


def tell(fact: Fact, wording: str) -> str:
    """Put one fact into one wording, with a capital at its start."""
    sentence = wording.format(s=fact.subject, v=fact.value)
    return sentence[0].upper() + sentence[1:]


def open_topic(rng: random.Random, fact: Fact) -> str:
    """Say what the next sentence will tell, e.g. "Everybody knows where Anna lives."."""
    return rng.choice(OPENINGS).format(t=rng.choice(TOPICS[fact.attribute]).format(s=fact.subject))


def documents(world: World, passes: int) -> Iterator[str]:
    """Write the pretraining text as documents of one sentence a line.

    Each pass tells every fact twice, in wordings drawn anew: once among the other facts of its subject
    and once among facts that have nothing to do with it, so that no neighbour is needed to recall it.
    The first passes repeat a few subjects: a model learns *how* to look up a fact sooner when some are
    told much more often than others (Zucchet et al., 2025, arXiv 2503.21676), and then learns the rest.
    """
    rng = random.Random(f"prose {world.seed}")  # noqa: S311 - a reproducible draw, no secret
    subjects = list(world.by_subject().values())
    rng.shuffle(subjects)
    few = subjects[: len(subjects) // FEW_SUBJECTS_DIVISOR] * FEW_SUBJECTS_DIVISOR
    for number in range(passes):
        groups = few if number < passes * FEW_SHARE else subjects
        told = ["\n".join(_tell(rng, fact) for fact in rng.sample(group, len(group))) for group in groups]
        told += _mixed(rng, [fact for group in groups for fact in group])
        rng.shuffle(told)
        yield from told


def _mixed(rng: random.Random, facts: list[Fact]) -> Iterator[str]:
    """Documents of one to six unrelated facts, most of them after a sentence that opens their topic."""
    rng.shuffle(facts)
    while facts:
        size = rng.randint(1, 6)
        taken, facts = facts[:size], facts[size:]
        lines: list[str] = []
        for fact in taken:
            if rng.random() < TOPIC_SHARE:
                lines.append(open_topic(rng, fact))
            lines.append(_tell(rng, fact))
        yield "\n".join(lines)


def _tell(rng: random.Random, fact: Fact) -> str:
    return tell(fact, rng.choice(WORDINGS[fact.attribute]))
