"""No chat template loses or changes a conversation silently, and the manual's page of templates says what each does."""

from pathlib import Path

import pytest
import template_matrix
from chat_matrix_rows import CONVERSATIONS

from qlora_tui import manual


@pytest.mark.long
def test_no_template_changes_a_conversation_silently_and_the_page_is_up_to_date() -> None:
    found = template_matrix.matrix()
    silent = [
        (title, conversation, cell.reason)
        for title, cells in found.items()
        for conversation, cell in zip(CONVERSATIONS, cells, strict=True)
        if cell.status == "silent"
    ]
    assert silent == []
    assert template_matrix.PAGE.read_text(encoding="utf-8") == template_matrix.page(found), "run `make manual`"


@pytest.mark.parametrize("title", ["named llama-2", "zephyr *"])
def test_rows_of_the_page_are_up_to_date(title: str, tmp_path: Path) -> None:
    signs = "".join(template_matrix.SIGNS[cell.status] for cell in template_matrix.row_of(title, tmp_path))
    assert signs in manual.find("templates")


def test_page_describes_every_template_and_conversation() -> None:
    page = manual.find("templates")
    assert all(f". {name}\n" in page for name in CONVERSATIONS)
    written = {path.stem for path in template_matrix.WRITTEN.glob("*.jinja")}
    assert written == set(template_matrix.OWN)
