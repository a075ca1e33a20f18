"""Every shipped theme loads in Textual and can be read."""

import tomllib
from pathlib import Path

import pytest
from textual.color import Color
from textual.theme import Theme

from qlora_tui import paths

THEMES = sorted(paths.shipped("themes").glob("*.toml"))
OURS = {"loss", "eval", "vram"}


@pytest.mark.parametrize("path", THEMES, ids=lambda path: path.stem)
def test_theme(path: Path) -> None:
    theme = Theme(name=path.stem, **tomllib.loads(path.read_text()))
    background = Color.parse(theme.background or "")
    assert contrast(Color.parse(theme.foreground or ""), background) >= 4.5
    assert set(theme.variables) >= OURS
    for name in OURS:
        assert contrast(Color.parse(theme.variables[name]), background) >= 3


def contrast(one: Color, other: Color) -> float:
    """Contrast ratio of WCAG 2."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(color: Color) -> float:
    channels = [value / 255 for value in color.rgb]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
