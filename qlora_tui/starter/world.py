"""The facts of the made-up valley, drawn at random for a seed, and which of them no question may touch.

It owns what is true. How a fact is told is in `prose`, how it is asked in `questions`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from qlora_tui.starter import words

DEFAULT_SEED: Final = 7
HELD_OUT_SHARE: Final = 0.25
"""Share of entities, sums and opposites that appear in the pretraining text but in no training question."""


@dataclass(frozen=True)
class Fact:
    """One thing that is true: `subject`'s `attribute` is `value`, e.g. Anna's town is Oakford."""

    subject: str
    attribute: str
    value: str
    held_out: bool


@dataclass(frozen=True)
class World:
    """All facts of the valley, grouped by subject in a fixed order."""

    seed: int
    facts: tuple[Fact, ...]

    def by_subject(self) -> dict[str, list[Fact]]:
        """Facts of each person and thing; what somebody owns is told about both owner and thing."""
        groups: dict[str, list[Fact]] = {}
        for fact in self.facts:
            groups.setdefault(fact.subject, []).append(fact)
        return groups


def build_world(seed: int = DEFAULT_SEED) -> World:
    """Draw every fact of the valley. The same seed gives the same world on every machine."""
    rng = random.Random(f"world {seed}")  # noqa: S311 - a reproducible draw, no secret
    people, things = list(words.PEOPLE), list(words.THINGS)
    rng.shuffle(people)
    rng.shuffle(things)
    # The n-th person owns the n-th thing, so a held-out thing has a held-out owner: the answer
    # to a training question can then never name a held-out person either.
    held_out_count = round(len(people) * HELD_OUT_SHARE)
    facts: list[Fact] = []
    facts += _entities(rng, people, held_out_count, _PERSON_VALUES)
    facts += _entities(rng, things, held_out_count, _THING_VALUES)
    for index, (owner, thing) in enumerate(zip(people, things, strict=True)):
        held_out = index < held_out_count
        facts.append(Fact(owner, "owns", thing, held_out))
        facts.append(Fact(thing, "owner", owner, held_out))
    facts += _sums(rng)
    facts += _opposites(rng)
    facts += _summaries(facts)
    return World(seed, tuple(facts))


_PERSON_VALUES: Final[dict[str, tuple[str, ...]]] = {
    "town": words.TOWNS,
    "job": words.JOBS,
    "pet": words.PETS,
    "food": words.FOODS,
}
_THING_VALUES: Final[dict[str, tuple[str, ...]]] = {
    "colour": words.COLOURS,
    "material": words.MATERIALS,
    "place": words.PLACES,
    "price": words.PRICES,
}
PERSON_ATTRIBUTES: Final = (*_PERSON_VALUES, "owns")
THING_ATTRIBUTES: Final = (*_THING_VALUES, "owner")


def _entities(
    rng: random.Random, names: list[str], held_out_count: int, values: dict[str, tuple[str, ...]]
) -> list[Fact]:
    """Give every name one value of each attribute, each value about equally often."""
    facts: list[Fact] = []
    for attribute, choices in values.items():
        drawn = list(islice(cycle(choices), len(names)))
        rng.shuffle(drawn)
        facts += [
            Fact(name, attribute, value, index < held_out_count)
            for index, (name, value) in enumerate(zip(names, drawn, strict=True))
        ]
    return facts


def _sums(rng: random.Random) -> list[Fact]:
    size = words.LARGEST_ADDEND + 1
    pairs = [(left, right) for left in range(size) for right in range(size)]
    held_out = _held_out(rng, len(pairs))
    return [
        Fact(f"{left} plus {right}", "sum", str(left + right), index in held_out)
        for index, (left, right) in enumerate(pairs)
    ]


def _opposites(rng: random.Random) -> list[Fact]:
    held_out = _held_out(rng, len(words.OPPOSITES))
    return [
        Fact(subject, "opposite", value, index in held_out)
        for index, (left, right) in enumerate(words.OPPOSITES)
        for subject, value in ((left, right), (right, left))
    ]


def _summaries(facts: list[Fact]) -> list[Fact]:
    """What is said first of a person or a thing, two facts in one: "baker from Oakford", "red and made of wood"."""
    values = {(fact.subject, fact.attribute): fact.value for fact in facts}
    summaries: list[Fact] = []
    for fact in facts:
        if fact.attribute == "job":
            value = f"{fact.value} from {values[fact.subject, 'town']}"
            summaries.append(Fact(fact.subject, "who", value, fact.held_out))
        elif fact.attribute == "colour":
            value = f"{fact.value} and made of {values[fact.subject, 'material']}"
            summaries.append(Fact(fact.subject, "look", value, fact.held_out))
    return summaries


def _held_out(rng: random.Random, count: int) -> set[int]:
    return set(rng.sample(range(count), round(count * HELD_OUT_SHARE)))
