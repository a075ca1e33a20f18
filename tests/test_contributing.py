"""CONTRIBUTING.md names files and make targets that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_files_exist() -> None:
    named = re.findall(r"`((?:[a-z_]+/)+[\w.]*)`", TEXT)
    assert len(named) > 30
    missing = [name for name in named if not any((root / name).exists() for root in (ROOT, ROOT / "qlora_tui"))]
    assert missing == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", TEXT, re.MULTILINE)) <= targets


def test_every_package_is_described() -> None:
    packages = {path.parent.name for path in (ROOT / "qlora_tui").glob("*/__init__.py")}
    assert {name for name in packages if f"`qlora_tui/{name}/`" not in TEXT} == set()
