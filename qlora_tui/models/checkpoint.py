"""What the stored tensors say about the computed weights: their dtypes, and whether config.json tells the truth."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qlora_tui.errors import ModelError
from qlora_tui.models.facts import ModuleGroup
from qlora_tui.models.families import Family
from qlora_tui.models.tensors import Tensors, is_buffer, pattern

_EXPERT = re.compile(r"\.experts\.")


@dataclass(frozen=True)
class Comparison:
    modules: tuple[ModuleGroup, ...]
    """The computed modules with the dtypes of the checkpoint."""

    notes: tuple[str, ...]


def compare(family: Family, modules: Sequence[ModuleGroup], tensors: Tensors, layers: int, origin: str) -> Comparison:
    """Hold computed modules against the checkpoint. Raises ModelError where a shape contradicts config.json."""
    named = _loaded(family, tensors, layers)
    expected: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    for place, group in enumerate(modules):
        for name, shape in group.tensors.items():
            expected.setdefault(pattern(name), []).append((place, shape))
    dtypes: dict[int, Counter[str]] = {}
    found: Counter[str] = Counter()
    others: dict[str, str] = {}
    for name, original in named.items():
        tensor = tensors[original]
        places = expected.get(pattern(name))
        if places is None:
            others[name] = original
            continue
        if all(shape != tensor.shape for _, shape in places):
            raise _contradiction(origin, original, tensor.shape, places[0][1])
        found[pattern(name)] += 1
        for place, _ in places:
            dtypes.setdefault(place, Counter())[tensor.dtype] += tensor.elements
    fused = _experts(modules, tensors, others, found, origin)
    dtypes |= fused
    rest = {name: original for name, original in others.items() if not _EXPERT.search(name)}
    notes = _unexpected(rest, tensors) + _missing(modules, expected, found, set(fused))
    typed = [
        replace(group, dtype=dtypes[place].most_common(1)[0][0]) if place in dtypes else group
        for place, group in enumerate(modules)
    ]
    return Comparison(tuple(typed), tuple(notes))


def _loaded(family: Family, tensors: Tensors, layers: int) -> dict[str, str]:
    """Stored name by the name transformers gives it, without what is not loaded."""
    ignored = tuple(prefix.format(layers=layers) for prefix in family.ignored)
    names: dict[str, str] = {}
    for original in tensors:
        if is_buffer(original) or original.startswith(ignored):
            continue
        names[_renamed(family, original)] = original
    return names


def _renamed(family: Family, name: str) -> str:
    for old, new in family.renamed.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
        if old.startswith(".") and old in name:
            return name.replace(old, new, 1)
    return name


def _experts(
    modules: Sequence[ModuleGroup], tensors: Tensors, others: dict[str, str], found: Counter[str], origin: str
) -> dict[int, Counter[str]]:
    """Dtypes of fused experts that the checkpoint stores one by one. Raises ModelError when their sizes differ."""
    places = {
        place: group
        for place, group in enumerate(modules)
        if group.kind == "expert" and not any(found[pattern(name)] for name in group.tensors)
    }
    stored = [tensors[original] for name, original in others.items() if _EXPERT.search(name)]
    if not places or not stored:
        return {}
    wanted = sum(group.parameters for group in places.values())
    held = sum(tensor.elements for tensor in stored)
    if wanted != held:
        raise ModelError(
            f"config.json of {origin} does not describe its weights: the experts hold {held:,} parameters,"
            f" config.json makes it {wanted:,}",
            hint="Download the model again.",
        )
    dtypes: Counter[str] = Counter()
    for tensor in stored:
        dtypes[tensor.dtype] += tensor.elements
    return dict.fromkeys(places, dtypes)


def _contradiction(origin: str, name: str, stored: tuple[int, ...], wanted: tuple[int, ...]) -> ModelError:
    return ModelError(
        f"config.json of {origin} does not describe its weights: {name} is {list(stored)},"
        f" config.json makes it {list(wanted)}",
        hint="Download the model again; a tokenizer that was extended later needs its own config.json.",
    )


def _unexpected(others: dict[str, str], tensors: Tensors) -> list[str]:
    head = "lm_head.weight" in others
    notes = ["The weights hold a head beside the tied embedding; should they differ, both are kept."] if head else []
    unused = {name: original for name, original in others.items() if name != "lm_head.weight"}
    if not unused:
        return notes
    parameters = sum(tensors[original].elements for original in unused.values())
    first = min(unused.values())
    return [
        *notes,
        f"The weights also hold {len(unused)} tensors ({parameters:,} parameters) that are not loaded: {first}.",
    ]


def _missing(
    modules: Sequence[ModuleGroup],
    expected: dict[str, list[tuple[int, tuple[int, ...]]]],
    found: Counter[str],
    fused: set[int],
) -> list[str]:
    short = [
        name
        for name, places in expected.items()
        if found[name] < sum(modules[place].count for place, _ in places) and not {place for place, _ in places} & fused
    ]
    if not short:
        return []
    return [f"The weights lack {short[0]} in places; transformers would fill it with random numbers."]
