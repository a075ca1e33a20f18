"""Several sources in one set: how many rows of each, which of them, and in what order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_material import chat_rows, write_jsonl
from prepare_material import answers, run

from qlora_tui.errors import DataError


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "numbered.jsonl", chat_rows(*((f"number {at}", str(at)) for at in range(60))))


def test_sources_are_mixed_by_weight_and_spread_evenly(tmp_path: Path, numbered: Path) -> None:
    letters = write_jsonl(tmp_path / "letters.jsonl", chat_rows(*((f"letter {at}", f"x{at}") for at in range(10))))
    prepared = run(numbered, mix=[{"source": str(letters), "weight": 0.5}])
    mixed = answers(prepared.train)
    assert [answer for answer in mixed if not answer.startswith("x")] == [str(at) for at in range(60)]
    assert [answer for answer in mixed if answer.startswith("x")] == [f"x{at % 10}" for at in range(30)]
    assert sum(answer.startswith("x") for answer in mixed[:30]) == 10
    assert any("20 rows of mixed sources repeated" in note for note in prepared.report.notes)


def test_of_a_source_with_more_rows_than_its_weight_asks_for_some_are_drawn(tmp_path: Path, numbered: Path) -> None:
    letters = write_jsonl(tmp_path / "letters.jsonl", chat_rows(*((f"letter {at}", f"x{at}") for at in range(40))))

    def drawn(**options: Any) -> list[str]:
        made = run(numbered, mix=[{"source": str(letters), "weight": 0.25}], **options)
        assert any("25 rows of mixed sources are not used: their weights ask for fewer" in n for n in made.report.notes)
        return [answer for answer in answers(made.train) if answer.startswith("x")]

    first = drawn()
    assert len(set(first)) == 15
    assert max(int(answer[1:]) for answer in first) >= 20
    assert first == drawn() != drawn(split_seed=1)


@pytest.mark.parametrize(("weight", "rows"), [(1e9, "60,000,000,000"), (0.001, "0")])
def test_a_weight_that_cannot_be_meant_is_refused(tmp_path: Path, numbered: Path, weight: float, rows: str) -> None:
    letters = write_jsonl(tmp_path / "letters.jsonl", chat_rows(*((f"letter {at}", f"x{at}") for at in range(10))))
    with pytest.raises(DataError, match=f"weight = .* asks for {rows} rows of a source that has 10"):
        run(numbered, mix=[{"source": str(letters), "weight": weight}])
