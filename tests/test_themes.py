"""Every shipped theme loads in Textual and can be read."""

import tomllib
from pathlib import Path

import pytest
from textual.color import Color

from qlora_tui import paths
from qlora_tui.ui.themes import read

THEMES = sorted(paths.shipped("themes").glob("*.toml"))
OURS = ("loss", "eval", "vram")


TEXTS = (
    "foreground", "text-muted", "text-primary", "text-secondary", "text-accent", "text-success", "text-warning",
    "text-error", "primary", "success", "warning", "error", *OURS,
)  # fmt: skip
"""What words are written in."""


def test_there_are_enough_of_each_kind() -> None:
    themes = [tomllib.loads(path.read_text()) for path in THEMES]
    assert len(themes) >= 8
    assert {theme["dark"] for theme in themes} == {True, False}
    assert sum(theme.get("ansi", False) for theme in themes) == 1


@pytest.mark.parametrize("path", THEMES, ids=lambda path: path.stem)
def test_words_can_be_read_on_every_ground(path: Path) -> None:
    theme = read(path)
    if theme.ansi:  # the terminal owns those colours
        return
    values = {**theme.to_color_system().generate(), **theme.variables}
    for ground in ("background", "surface", "panel"):
        background = Color.parse(values[ground])
        for name in TEXTS:
            assert contrast(on(background, values[name]), background) >= 4.5, f"{name} on {ground}"


def on(background: Color, value: str) -> Color:
    """A colour of a theme as it is seen on a background."""
    if value.startswith("auto"):
        return background + background.get_contrast_text(float(value.split()[1].rstrip("%")) / 100)
    return background + Color.parse(value)


def contrast(one: Color, other: Color) -> float:
    """Contrast ratio of WCAG 2."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(color: Color) -> float:
    channels = [value / 255 for value in color.rgb]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
