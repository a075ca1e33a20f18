"""The frame of the workbench: its places and how one gets there."""

import pytest

from qlora_tui.ui.app import Workbench
from qlora_tui.ui.widgets.places_bar import PLACES


@pytest.mark.parametrize(("name", "title", "key"), PLACES)
async def test_a_place_is_one_key_or_one_click_away(name: str, title: str, key: str) -> None:
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(key)
        assert app.current_mode == name
        await pilot.press("f2")
        await pilot.click(f"#place-{name}")
        assert app.current_mode == name
