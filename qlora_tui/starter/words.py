"""The vocabulary of the made-up valley: names, things and the values their attributes may take.

Plain data. It knows nothing of sentences or of who owns what (see `world`).
Every word is a short common one, so that the small tokenizer can hold it in one or two tokens.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PEOPLE: Final[tuple[str, ...]] = _words(
    """
    Ada Agnes Albert Alice Anna Arlo Arthur Basil Beatrice Bella Bernard Bruno Carla
    Celia Clara Cora Daisy Daniel David Delia Dora Edith Edwin Eliza Ella
    Emma Ernest Esther Ethan Eva Felix Fiona Flora Frank Freya George Grace Greta
    Gwen Hanna Harold Harriet Hazel Hector Helen Henry Hugo Ida Igor Irene Iris Isaac Ivan Jasper Jonas
    Joseph Julia Karl Lars Laura Leon Lily Linus Lola Louis Lucas Lydia Mabel Magnus Maria
    Martin Matilda Max Mila Miriam Nadia Naomi Nelson Nina Nora Olga Oliver Oscar Otto Paula
    Petra Philip Ralph Rosa Ruben Ruth Sam Sarah Simon Sofia Stella Theo Thomas
    Victor Vera
    """
)

THINGS: Final[tuple[str, ...]] = _words(
    """
    anchor apron armchair axe barrel basket bell bench bicycle blanket boat bookcase bottle
    bowl box bracelet broom brush bucket cabinet candle carpet cart chain chair chest clock
    cloak coat comb crown cup curtain desk dish doll door drum fan fence flag
    flute fork frame gate glove guitar hammer harp hat helmet hook horn jacket jar jug kettle key
    kite ladder lamp lantern map mask mirror mug needle oven pen piano pillow
    pipe pitcher plate puppet purse quilt ring robe rope saw scarf shelf shield shovel
    spade spoon stool stove sword table tower toy tray trumpet vase violin wagon
    wheel whistle
    """
)

TOWNS: Final[tuple[str, ...]] = _words(
    """
    Oakford Millbury Stonebridge Ashby Foxley Riverton Elmwood Redhill Marsham Windmoor Briarley Lakeside
    """
)
JOBS: Final[tuple[str, ...]] = _words(
    "baker farmer teacher doctor sailor tailor painter miller potter weaver gardener blacksmith"
)
PETS: Final[tuple[str, ...]] = _words("cat dog goat parrot rabbit pony turtle hen goose ferret lizard lamb")
FOODS: Final[tuple[str, ...]] = _words(
    "soup bread cheese honey apples plums rice fish pancakes carrots noodles cherries"
)
COLOURS: Final[tuple[str, ...]] = _words("red blue green yellow white black brown grey purple pink orange silver")
MATERIALS: Final[tuple[str, ...]] = _words("wood iron copper glass clay stone leather wool paper bronze marble straw")
PLACES: Final[tuple[str, ...]] = _words(
    "kitchen attic cellar garden hall barn library stable workshop bedroom market tavern"
)
PRICES: Final[tuple[str, ...]] = tuple(str(price) for price in range(2, 26))

_PAIRS: Final = _words(
    """
    hot/cold big/small tall/short fast/slow old/new hard/soft light/heavy full/empty day/night
    wet/dry loud/quiet rich/poor early/late open/closed near/far high/low deep/shallow thick/thin
    wide/narrow strong/weak sweet/sour clean/dirty happy/sad brave/afraid kind/cruel wise/foolish
    bright/dark rough/smooth sharp/blunt first/last up/down left/right begin/end push/pull give/take
    buy/sell win/lose love/hate laugh/cry rise/fall north/south east/west summer/winter friend/enemy
    true/false always/never above/below inside/outside
    """
)
OPPOSITES: Final[tuple[tuple[str, str], ...]] = tuple(
    (left, right) for left, _, right in (pair.partition("/") for pair in _PAIRS)
)

LARGEST_ADDEND: Final = 12
"""Sums go from 0 plus 0 to 12 plus 12."""
