"""Every shipped theme loads in Textual and can be read."""

import re
import tomllib
from pathlib import Path

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from qlora_tui import paths
from qlora_tui.ui.statuses import MARKS
from qlora_tui.ui.themes import read, rich_style

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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('primary = "none"', "primary: failed to parse 'none' as a color"),
        ('primary = 3', "primary: Input should be a valid string"),
        ('primary = "red"\ndark = "yes"', "dark: Input should be a valid boolean"),
        ('primary = "red"\nvariables = 3', "variables: Input should be an object"),
        ('primary = "red"\nvariables.loss = ""', "loss: failed to parse ''"),
        ('primary = "red"\nvariables.loss = "auto 50%"', "loss: failed to parse 'auto 50%'"),
        ('primary = "red"\nvariables.accent = "none"', "accent: failed to parse 'none'"),
        ('primary = "red"\nvariables.text-muted = "bold"', "text-muted: failed to parse 'bold'"),
        ('primary = "red"\nvariables.link-style = "wild"', "link-style: 'wild' is not a text style"),
        ('primary = "red"\nname = "other"', "name"),
        ('primary = "red"\ncolour = "red"', "colour"),
    ],
)  # fmt: skip
def test_a_theme_that_could_not_be_drawn_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    own = "".join(f'variables.{name} = "red"\n' for name in OURS if f"variables.{name}" not in text)
    path.write_text(f"{text}\n{own if 'variables = 3' not in text else ''}")
    with pytest.raises(ValueError, match=re.escape(said)):
        read(path)


def test_a_theme_may_mix_its_texts_with_what_is_behind_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'primary = "red"\nluminosity_spread = 1\n[variables]\nloss = "ansi_red"\neval = "#fff"\nvram = "transparent"\n'
        'text-muted = "auto 40%"\nlink-style = "bold not underline"\nlink-background = "initial"\n'
    )
    assert read(path).variables["text-muted"] == "auto 40%"


@pytest.mark.parametrize("name", BUILTIN_THEMES)
def test_each_status_has_a_style_in_each_theme(name: str) -> None:
    theme = BUILTIN_THEMES[name]
    for values in (theme.to_color_system().generate(), {"text-muted": "auto 60%"}):
        for variable in {variable.removeprefix("$") for _, variable in MARKS.values()} & values.keys():
            style = rich_style(values[variable])
            assert style.dim == (" " in values[variable]) and (style.color is None) == ("auto" in values[variable])


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
