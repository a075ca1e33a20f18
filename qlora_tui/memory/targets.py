"""Which weights of a model get LoRA matrices, by PEFT 0.21's rules for `target_modules`."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.models.facts import ModelFacts, ModuleGroup

EXPERT_NAMES: Mapping[str, tuple[str, str, str]] = {
    "mixtral": ("w1", "w3", "w2"),
    "deepseek_v2": ("gate_proj", "up_proj", "down_proj"),
    "deepseek_v3": ("gate_proj", "up_proj", "down_proj"),
    "glm4_moe": ("gate_proj", "up_proj", "down_proj"),
    "olmoe": ("gate_proj", "up_proj", "down_proj"),
    "qwen3_moe": ("gate_proj", "up_proj", "down_proj"),
    "qwen3_next": ("gate_proj", "up_proj", "down_proj"),
}
"""Families whose fused experts and router PEFT adapts when the names they had before fusion are targeted: those of the
gate, up and down projection. The experts of other families are adapted by no `target_modules`."""

_ROUTER = "gate"
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")
"""The first number in a module's path is that of its layer."""


@dataclass(frozen=True, slots=True)
class Target:
    """Modules of a group that are adapted."""

    group: ModuleGroup
    count: int
    rank: int
    rank_factor: int = 1
    """Fused gate and up projections get the rank of both."""

    @property
    def elements(self) -> int:
        """Of the adapted weights."""
        return self.group.weight_elements * self.count // self.group.count


def targets(facts: ModelFacts, spec: AdapterSpec) -> list[Target]:
    """The adapted groups; none in full finetuning, or when nothing matches."""
    if spec.kind == "full":
        return []
    former = EXPERT_NAMES.get(facts.model_type) if facts.moe else None
    if former is not None:
        return list(_with_experts(facts, spec, former))
    matches = matcher(spec.target_modules)
    return [target for group in facts.modules for target in _by_rank(group, spec, matches)]


def paths(group: ModuleGroup) -> Iterator[str]:
    """Module paths of a group, numbered from 0."""
    if "*" not in group.name:
        yield group.name
        return
    for number in range(group.count):
        yield group.name.replace("*", str(number))


def is_named(path: str, names: list[str]) -> bool:
    """Whether a path is, or ends in, one of the names."""
    return any(path == name or path.endswith(f".{name}") for name in names)


def is_saved(path: str, names: list[str]) -> bool:
    """Whether `modules_to_save` trains a module in full: PEFT holds the end of its path, dots or not, against them."""
    return path.endswith(tuple(names))


def matcher(wanted: str | list[str]) -> Callable[[str], bool]:
    """Return whether a path is meant by a list of names or a regular expression; nothing is by an invalid one."""
    if isinstance(wanted, list):
        return lambda path: is_named(path, wanted)
    try:
        expression = re.compile(wanted)
    except re.error:
        return lambda _: False
    return lambda path: expression.fullmatch(path) is not None


def _by_rank(group: ModuleGroup, spec: AdapterSpec, matches: Callable[[str], bool]) -> Iterator[Target]:
    """The adapted modules of a group: those of one rank are one target."""
    everywhere = spec.target_modules == "all-linear"
    if group.kind not in (("linear",) if everywhere else ("linear", "embedding", "head")):
        return
    if everywhere and group.vision:
        return
    if everywhere and not (spec.exclude_modules or spec.layers_to_transform or spec.rank_pattern):
        yield Target(group, group.count, spec.rank)
        return
    found = [path for path in paths(group) if (everywhere or matches(path)) and is_chosen(path, spec)]
    for rank, count in Counter(_rank(path, spec) for path in found).items():
        yield Target(group, count, rank)


def is_chosen(path: str, spec: AdapterSpec) -> bool:
    """Whether neither `exclude_modules` nor `layers_to_transform` takes a targeted module out."""
    if spec.exclude_modules and matcher(spec.exclude_modules)(path):
        return False
    layer = _LAYER.match(path)
    return not spec.layers_to_transform or (layer is not None and int(layer[1]) in spec.layers_to_transform)


def _rank(path: str, spec: AdapterSpec) -> int:
    """The rank of a module: that of the first pattern that its path ends with."""
    ranks = spec.ranks
    return next((rank for name, rank in ranks.items() if re.match(rf"(.*\.)?({name})$", path)), spec.rank)


def _with_experts(facts: ModelFacts, spec: AdapterSpec, former: tuple[str, str, str]) -> Iterator[Target]:
    """PEFT turns any kind of `target_modules` into last names first, so they count in every layer."""
    names = _last_names(facts, spec, former)
    gate, up, down = former
    plain = names - {*former, _ROUTER}
    for group in facts.modules:
        leaf = group.name.rpartition(".")[2]
        if group.kind == "expert":
            fused = leaf == "gate_up_proj"
            if ({gate, up} <= names) if fused else (leaf == "down_proj" and down in names):
                yield Target(group, group.count, spec.rank, 2 if fused else 1)
            continue
        if group.kind == "router" and leaf == _ROUTER and _ROUTER in names:
            yield Target(group, group.count, spec.rank)
        elif leaf in plain and not group.vision:
            yield from _by_rank(group, spec.model_copy(update={"target_modules": [leaf]}), lambda _: True)


def _last_names(facts: ModelFacts, spec: AdapterSpec, former: tuple[str, str, str]) -> set[str]:
    wanted = spec.target_modules
    if isinstance(wanted, list):
        return {name.rpartition(".")[2] for name in wanted}
    if wanted == "all-linear":
        return {group.name.rpartition(".")[2] for group in facts.linear_layers} | {*former, _ROUTER}
    matches = matcher(wanted)
    found: set[str] = set()
    for group in facts.modules:
        for path in paths(group):
            container, _, leaf = path.rpartition(".")
            if matches(path):
                found.add(leaf)
            if group.kind == "expert":
                found |= {name for name in former if matches(f"{container}.{name}")}
    return found
