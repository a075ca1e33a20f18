"""Find the module names in an adapter's settings that match nothing in a model, by PEFT 0.21's rules."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError
from qlora_tui.memory.targets import EXPERT_NAMES, is_chosen, is_named, is_saved, matcher, paths
from qlora_tui.models.facts import ModelFacts, ModuleGroup

_HEAD = "lm_head"
_NOT_ADAPTED = ("norm", "expert")
_WORD = re.compile(r"[A-Za-z_]\w*")
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Modules:
    """Paths of a model's modules as transformers builds it."""

    model_id: str
    layers: tuple[str, ...]
    """Modules that can get matrices."""

    everywhere: tuple[str, ...]
    """Those of them that "all-linear" stands for."""

    others: tuple[str, ...]
    """All other modules: blocks, norms."""

    quantized: tuple[str, ...]
    """Layers that bitsandbytes replaces when the model is quantized."""

    depth: int
    """Number of layers of the language model."""


@dataclass(frozen=True, slots=True)
class Misnamed:
    """An entry of a setting that matches nothing."""

    key: str
    entry: str
    problem: str
    hint: str


def of_facts(facts: ModelFacts) -> Modules | None:
    """Return the modules of a model described by its config.json; None for an architecture without an entry.

    Where the kinds of layers alternate, each kind is counted in every layer: a name may pass that matches nothing.
    """
    if facts.family is None:
        return None
    layers: list[str] = []
    everywhere: list[str] = []
    others: list[str] = []
    quantized: list[str] = []
    for group in facts.modules:
        found = list(_paths(group, facts))
        (others if group.kind in _NOT_ADAPTED else layers).extend(found)
        quantized += found if group.quantized else []
        if group.kind == "expert":
            former = EXPERT_NAMES.get(facts.model_type, ())
            everywhere += [f"{path.rpartition('.')[0]}.{name}" for path in found for name in former]
        elif group.kind in ("linear", "router") and not group.vision:
            everywhere += found
    if facts.tied:
        others.append(_HEAD)
    others += _blocks([*layers, *others])
    layers += everywhere
    return Modules(facts.id, _once(layers), _once(everywhere), _once(others), _once(quantized), facts.layers)


def refuse_misnamed(config: RunConfig, modules: Modules) -> None:
    """Raise ConfigError for the first entry that matches no module, naming the nearest, or one of a wrong kind."""
    spec = config.adapter
    if spec.kind == "full":
        return
    for wrong in misnamed(spec, modules):
        raise ConfigError(f"adapter.{wrong.key}: {wrong.entry} {wrong.problem} of {modules.model_id}", hint=wrong.hint)
    if config.quantization.kind != "none":
        _refuse_quantized(config, modules)


def _refuse_quantized(config: RunConfig, modules: Modules) -> None:
    """Packed weights of 4 or 8 bits cannot be trained in full."""
    for name in config.adapter.modules_to_save:
        packed = next((path for path in modules.quantized if _is_within(path, name)), None)
        if packed is not None:
            raise ConfigError(
                f"adapter.modules_to_save: {name!r} holds {packed}, whose weights quantization.kind = "
                f"{config.quantization.kind} packs: they cannot be trained in full",
                hint=f"Remove {name!r}: it gets LoRA matrices already. Or set quantization.kind to none.",
            )


def _is_within(path: str, name: str) -> bool:
    """Whether `modules_to_save` with `name` takes in a module, or one that holds it."""
    while path:
        if is_saved(path, [name]):
            return True
        path = path.rpartition(".")[0]
    return False


def misnamed(spec: AdapterSpec, modules: Modules) -> Iterator[Misnamed]:
    """Every entry of the adapter's settings that matches nothing in the model, with the nearest name."""
    yield from _unmatched("target_modules", spec.target_modules, modules.layers, modules)
    targeted = _targeted(spec, modules)
    yield from _unmatched("exclude_modules", spec.exclude_modules, targeted, modules)
    for name in spec.modules_to_save:
        if not any(is_saved(path, [name]) for path in (*modules.layers, *modules.others)):
            known = (*modules.layers, *modules.others)
            yield Misnamed("modules_to_save", repr(name), "matches no module", _did_you_mean(name, known))
    for number in spec.layers_to_transform:
        if number >= modules.depth:
            last = f"Layers are numbered from 0 to {modules.depth - 1}."
            yield Misnamed("layers_to_transform", str(number), "is no layer", last)
    adapted = [path for path in targeted if is_chosen(path, spec)]
    for key, names in (("rank_pattern", spec.ranks), ("alpha_pattern", spec.alphas)):
        for name in names:
            if not any(re.match(rf"(.*\.)?({name})$", path) for path in adapted):
                hint = _did_you_mean(name, adapted)
                yield Misnamed(key, repr(name), "matches no module that gets matrices", hint)


def _unmatched(key: str, wanted: str | list[str], known: Iterable[str], modules: Modules) -> Iterator[Misnamed]:
    known = tuple(known)
    if isinstance(wanted, str):
        if wanted and wanted != "all-linear" and not any(map(matcher(wanted), known)):
            yield Misnamed(key, repr(wanted), "matches no layer", _of_expression(key, wanted, known))
        return
    for name in wanted:
        if any(is_named(path, [name]) for path in known):
            continue
        if any(is_named(path, [name]) for path in (*modules.layers, *modules.others)):
            yield Misnamed(key, repr(name), *_of_other(key, name, known))
        else:
            yield Misnamed(key, repr(name), "matches no layer", _did_you_mean(name, known))


def _of_expression(key: str, wanted: str, known: tuple[str, ...]) -> str:
    if any(is_named(path, [wanted]) for path in known):
        return f'A text is a regular expression for whole paths. Write a list: adapter.{key} = ["{wanted}"].'
    words = _WORD.findall(wanted) or [wanted]
    example = next(iter(known), "")
    return f"{_did_you_mean(words[-1], known)} It is a regular expression for whole paths, such as {example}."


def _of_other(key: str, name: str, known: tuple[str, ...]) -> tuple[str, str]:
    """Explain an entry that names a module, but none that `key` could mean."""
    inside = {path.rpartition(".")[2] for path in known if f".{name}." in f".{path}"}
    if inside:
        leaves = ", ".join(sorted(inside))
        return "is a block, not a layer,", f'Name its layers: {leaves}. Or use a regular expression: ".*{name}.*".'
    if key == "exclude_modules":
        return "is not among the targeted layers", f"Remove it. Targeted: {_leaves(known)}."
    return "takes no matrices: it is not a linear layer or embedding", f"Layers: {_leaves(known)}."


def _targeted(spec: AdapterSpec, modules: Modules) -> list[str]:
    if spec.target_modules == "all-linear":
        return list(modules.everywhere)
    return list(filter(matcher(spec.target_modules), modules.layers))


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """Name the module nearest to `name`: its last name, or its path when `name` is one."""
    dotted = "." in name
    names = _once(known if dotted else (path.rpartition(".")[2] for path in known))
    if not names:
        return "No layer is left to name."
    close = max(names, key=lambda each: SequenceMatcher(None, name.lower(), each.lower()).ratio())
    return f"The nearest is {close}." if dotted else f"The nearest is {close}. Known: {_leaves(names)}."


def _leaves(known: Iterable[str]) -> str:
    names = sorted({path.rpartition(".")[2] for path in known if not path.rpartition(".")[2].isdigit()})
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _paths(group: ModuleGroup, facts: ModelFacts) -> Iterator[str]:
    if "*" not in group.name or group.vision:
        yield from paths(group)
        return
    for number in range(max(group.count, facts.layers)):
        yield group.name.replace("*", str(number))


def _blocks(known: Iterable[str]) -> Iterator[str]:
    """Every module that holds others."""
    for path in known:
        while path := path.rpartition(".")[0]:
            yield path


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
