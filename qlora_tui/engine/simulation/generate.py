"""Writes the shipped memory programs: `python -m qlora_tui.engine.simulation.generate [FAMILY...]`."""

from qlora_tui.engine import environment

if __name__ == "__main__":  # Imported by a test, it must leave the environment alone.
    environment.prepare(allow_download=False)

import argparse
import gc
import json
import lzma
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from qlora_tui import atomic
from qlora_tui.engine.simulation import miniature
from qlora_tui.engine.simulation.derive import derive
from qlora_tui.memory.program import FUSED_PROJECTION, PROGRAMS, UNGROUPED, WITHOUT_SDPA, texts
from qlora_tui.memory.recorded import Base, Program, ProgramKey, Recipe, to_json
from qlora_tui.memory.targets import EXPERT_NAMES

FAMILIES = (
    "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "phi3_ungrouped", "olmo2", "granite", "cohere",
    "cohere2", "glm", "glm4", "smollm3", "stablelm_ungrouped", "phi_ungrouped", "gpt_neox_ungrouped",
    "gpt2_ungrouped", "opt_ungrouped", "bloom_ungrouped",
    "mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss",
)  # fmt: skip
BASES: tuple[Base, ...] = ("4bit", "8bit", "16bit")
FULL: tuple[Base, ...] = ("full32", "full16")
_UNMARKED = '"parts":{}'
"""In a program that does not tell which linear layer runs."""


def keys(family: str) -> list[ProgramKey]:
    """What is shipped for a family, the most used first."""
    plain = family.removesuffix(UNGROUPED)
    eager = [ProgramKey(attention="eager")]
    if plain in FUSED_PROJECTION:
        eager.append(ProgramKey(attention="eager", single=True))
    fused = [ProgramKey(), ProgramKey(masked=True)]
    if family in miniature.WINDOWED:
        fused.append(ProgramKey(windowed=True))
    kinds = eager if plain in WITHOUT_SDPA else fused
    found = [key for base in BASES for key in _each(family, kinds, base)]
    found += [replace(key, targets="none") for key in found if not key.dropout]
    if family not in EXPERT_NAMES:
        switches = product(kinds, FULL, (True, False), (True, False))
        found += [replace(kind, base=base, checkpointing=on, tied=tied) for kind, base, on, tied in switches]
    return found if kinds is eager else [*found, *_each(family, eager, "4bit")]


def _each(family: str, kinds: list[ProgramKey], base: Base) -> Iterator[ProgramKey]:
    """Each kind with each recipe, with checkpointing and without, with dropout and without."""
    recipes: tuple[Recipe, ...] = ("lean", "original") if base == "4bit" else ("lean",)
    dropouts = (False,) if family in EXPERT_NAMES else (False, True)  # PEFT's adapters of experts have none.
    for kind, recipe, checkpointing, dropout in product(kinds, recipes, (True, False), dropouts):
        yield replace(kind, recipe=recipe, checkpointing=checkpointing, dropout=dropout, base=base)


def main() -> None:
    """Derive and write, keeping what is there of other families and keys."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--only", default="", help="regular expression for the names of the programs to derive")
    parser.add_argument("--missing", action="store_true", help="leave out the programs that are there")
    chosen = parser.parse_args()
    for family, key in [(each, key) for each in chosen.families for key in keys(each)]:
        if not re.search(chosen.only, key.name) or (
            chosen.missing and _UNMARKED not in texts(family).get(key.name, _UNMARKED)
        ):
            continue
        began = time.monotonic()
        program = derive(family, key)
        write(program)
        gc.freeze()
        print(f"{family} {key.name}: {len(program.tensors)} tensors, {time.monotonic() - began:.1f} s", flush=True)


def write(program: Program) -> None:
    """Put a program into its family's archive, in place of an older one."""
    members = dict(texts(program.family))
    members[program.name] = json.dumps(to_json(program), separators=(",", ":"))
    lines = "".join(f"{name}\t{text}\n" for name, text in sorted(members.items()))
    PROGRAMS.mkdir(exist_ok=True)
    atomic.write_bytes(PROGRAMS / f"{program.family}.xz", lzma.compress(lines.encode(), preset=lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
