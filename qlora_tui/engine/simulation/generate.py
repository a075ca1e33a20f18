"""Writes the shipped memory programs: `python -m qlora_tui.engine.simulation.generate [FAMILY...]`."""

from qlora_tui.engine import environment

environment.prepare(allow_download=False)

import argparse  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
import zipfile  # noqa: E402
from itertools import product  # noqa: E402
from typing import Any  # noqa: E402

from qlora_tui import atomic  # noqa: E402
from qlora_tui.engine.simulation import miniature  # noqa: E402
from qlora_tui.engine.simulation.derive import derive  # noqa: E402
from qlora_tui.memory.program import FUSED_PROJECTION, PROGRAMS, UNGROUPED, WITHOUT_SDPA  # noqa: E402
from qlora_tui.memory.recorded import Program, ProgramKey, to_json  # noqa: E402
from qlora_tui.memory.targets import EXPERT_NAMES  # noqa: E402

FAMILIES = (
    "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "phi3_ungrouped", "olmo2", "granite", "cohere",
    "cohere2", "smollm3", "stablelm_ungrouped", "phi_ungrouped", "gpt_neox_ungrouped",
    "gpt2_ungrouped", "opt_ungrouped", "bloom_ungrouped",
    "mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss",
)  # fmt: skip
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""Time of every member, so that the same programs give the same bytes."""


def keys(family: str) -> list[ProgramKey]:
    """What is shipped for a family, the most used first."""
    eager: list[dict[str, Any]] = [{"attention": "eager"}]
    if family.removesuffix(UNGROUPED) in FUSED_PROJECTION:
        eager.append({"attention": "eager", "single": True})
    fused: list[dict[str, Any]] = [{}, {"masked": True}]
    if family in miniature.WINDOWED:
        fused.append({"windowed": True})
    kinds = eager if family.removesuffix(UNGROUPED) in WITHOUT_SDPA else fused
    full = [kind | {"loss": "full"} for kind in kinds]
    if kinds is fused:
        kinds = fused + eager
    dropouts = (False,) if family in EXPERT_NAMES else (False, True)  # PEFT's adapters of experts have none.
    return [
        ProgramKey(recipe, checkpointing, dropout, **kind)  # type: ignore[arg-type]
        for kind in kinds + full
        for recipe, checkpointing, dropout in product(("lean", "original"), (True, False), dropouts)
    ]


def main() -> None:
    """Derive and write, keeping what is there of other families and keys."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--only", default="", help="part of the names of the programs to derive")
    parser.add_argument("--missing", action="store_true", help="leave out the programs that are there")
    chosen = parser.parse_args()
    for family, key in [(each, key) for each in chosen.families for key in keys(each)]:
        if chosen.only not in key.name or (chosen.missing and f"{key.name}.json" in _members(family)):
            continue
        began = time.monotonic()
        program = derive(family, key)
        write(program)
        print(f"{family} {key.name}: {len(program.tensors)} tensors, {time.monotonic() - began:.1f} s", flush=True)


def write(program: Program) -> None:
    """Put a program into its family's archive, in place of an older one."""
    members = _members(program.family)
    members[f"{program.name}.json"] = json.dumps(to_json(program), separators=(",", ":")).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            archive.writestr(entry, members[name], zipfile.ZIP_DEFLATED, compresslevel=9)
    PROGRAMS.mkdir(exist_ok=True)
    atomic.write_bytes(PROGRAMS / f"{program.family}.zip", buffer.getvalue())


def _members(family: str) -> dict[str, bytes]:
    path = PROGRAMS / f"{family}.zip"
    if not path.is_file():
        return {}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


if __name__ == "__main__":
    main()
