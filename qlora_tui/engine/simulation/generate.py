"""Writes the shipped memory programs: `python -m qlora_tui.engine.simulation.generate [FAMILY...]`."""

from qlora_tui.engine import environment

environment.prepare(allow_download=False)

import argparse  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
import zipfile  # noqa: E402
from itertools import product  # noqa: E402

from qlora_tui import atomic  # noqa: E402
from qlora_tui.engine.simulation.derive import derive  # noqa: E402
from qlora_tui.memory.program import PROGRAMS  # noqa: E402
from qlora_tui.memory.recorded import Program, ProgramKey, to_json  # noqa: E402

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3")
_ALTERNATING = frozenset({"gemma2"})
"""Families in which every other layer has a window: with a mask one typical layer does not stand for all (10 % off)."""

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""Time of every member, so that the same programs give the same bytes."""


def keys() -> list[ProgramKey]:
    """What is shipped for each family, the most used first."""
    switches = list(product(("lean", "original"), (True, False), (False, True)))
    found = [
        ProgramKey(recipe, checkpointing, dropout, masked=masked)  # type: ignore[arg-type]
        for masked in (False, True)
        for recipe, checkpointing, dropout in switches
    ]
    for recipe, checkpointing, dropout in switches:
        found.append(ProgramKey(recipe, checkpointing, dropout, attention="eager"))  # type: ignore[arg-type]
    for _, checkpointing, dropout in switches[:4]:
        found.append(ProgramKey("lean", checkpointing, dropout, loss="full"))
    return found


def main() -> None:
    """Derive and write, keeping what is there of other families and keys."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--only", default="", help="part of the names of the programs to derive")
    parser.add_argument("--missing", action="store_true", help="leave out the programs that are there")
    chosen = parser.parse_args()
    for key, family in product(keys(), chosen.families):
        if key.masked and family in _ALTERNATING:
            continue
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
