"""Write the generated part of the manual's configuration page: every setting with its meaning, default and values.

`make manual` runs this module; a test fails when the page is not up to date.
"""

import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from qlora_tui.config.command_line import text_of
from qlora_tui.config.data import WeightedSourceSpec
from qlora_tui.config.fields import Field, fields
from qlora_tui.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "qlora_tui" / "manual" / "configuration.md"
MARK = "<!-- The rest of this page is generated: make manual -->\n"

TABLES = {
    "model": "The base model and how it is loaded.",
    "quantization": "How the base weights are stored during training.",
    "adapter": "Which weights are trained.",
    "data": "Which rows are trained and how they become text.",
    "data.columns": "Which column of a row holds what.",
    "training": "Optimization, evaluation, checkpoints and trackers.",
}
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than", "min_length": "length at least"}


def reference() -> str:
    """Return the reference as Markdown."""
    parts = []
    for table, about in TABLES.items():
        parts.append(f"## [{table}]\n<!-- topics: {table} -->\n\n{about}\n")
        parts += [entry(key, field.info) for key, field in fields().items() if key.rpartition(".")[0] == table]
        if table == "data":
            parts.append(_mix())
    parts.append(
        "## Workbench preferences\n<!-- topics: preferences, settings.toml -->\n\n"
        "The file `settings.toml` in the config folder, which F7 Settings edits. A run never depends on it.\n"
    )
    parts += [entry(key, info) for key, info in Settings.model_fields.items()]
    return "\n".join(parts)


def _mix() -> str:
    own = ", ".join(f"`{name}`" for name in WeightedSourceSpec.model_fields)
    weight = WeightedSourceSpec.model_fields["weight"]
    return (
        f"Each table in `data.mix` has the keys {own}. `weight`: {' '.join((weight.description or '').split())} "
        f"Default: `{_text('weight', weight)}`.\n"
    )


def entry(key: str, info: FieldInfo) -> str:
    """Return the heading, the help, the default and the allowed values of one setting."""
    help_text = " ".join((info.description or "").split())
    return f"### {key}\n\n{help_text}\n\nDefault: {_default(key, info)}. {_values(info)}\n"


def _default(key: str, info: FieldInfo) -> str:
    text = _text(key, info)
    return f"`{text}`" if text not in ("", "[]", "{}") else "empty"


def _text(key: str, info: FieldInfo) -> str:
    return text_of(Field(key, info), info.get_default(call_default_factory=True))


def _values(info: FieldInfo) -> str:
    words = Field("", info).choices
    if words:
        return f"One of {', '.join(f'`{word}`' for word in words)}."
    kinds = [kind for kind in _alternatives(info.annotation) if kind is not types.NoneType]
    text = " or ".join(_kind(kind) for kind in kinds)
    bounds = [
        f"{words} {_number(getattr(limit, name))}"
        for limit in info.metadata
        if isinstance(limit, annotated_types.BaseMetadata)
        for name, words in _BOUNDS.items()
        if getattr(limit, name, None) is not None
    ]
    return f"{', '.join([text[0].upper() + text[1:], *bounds])}."


def _kind(kind: Any) -> str:
    if get_origin(kind) is list:
        inner = get_args(kind)[0]
        words = Field("", FieldInfo.from_annotation(inner)).choices
        if words:
            return f"a list of {', '.join(f'`{word}`' for word in words)}"
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return "a list of tables"
        base = get_args(inner)[0] if get_args(inner) else inner
        return "a list of numbers" if base is int else "a list of texts"
    return _KINDS[get_origin(kind) or kind]


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _number(limit: float) -> str:
    return f"{limit:,}"


def updated(page: str) -> str:
    """Return the page with the reference of the present code."""
    return page.partition(MARK)[0] + MARK + "\n" + reference()


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
