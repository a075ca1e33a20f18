"""Edits of the draft: for every setting, a text is either in the draft in full or not at all."""

import itertools
import tomllib

import pytest

from qlora_tui.config.fields import fields, value
from qlora_tui.config.overrides import resolve
from qlora_tui.config.run import RunConfig
from qlora_tui.config.toml_file import to_toml
from qlora_tui.ui.drafting import Edits

TEXTS = (
    "", " ", "x", "-1", "0", "1", "3.5", "300", "1e999", "nan", "-inf", "300abc", "9" * 30, "0x1f", "1_000", "true",
    '"', "[1, 2]", "a,b", "a=b", "\x1b[31m", "ｅ", "é" * 9,
)  # fmt: skip


@pytest.mark.parametrize("key", sorted(fields()))
def test_an_invalid_text_never_changes_the_draft(key: str) -> None:
    """Typed letter by letter, from a valid draft, as Setup does."""
    before = resolve()
    for text in TEXTS:
        edits, draft = Edits(), before
        for typed in itertools.accumulate(text) if text else [""]:
            draft = edits.apply(draft, {key: typed}, before)
            if edits.pending:
                assert draft == before, (typed, value(draft, key))
                assert edits.reasons[key], typed
        if not edits.pending:
            written = tomllib.loads(to_toml(draft, sparse=True))
            assert RunConfig.model_validate(written) == RunConfig.model_validate(draft.model_dump()) == draft, text
