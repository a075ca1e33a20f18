"""The frame of the workbench: its places and how one gets there."""

from pathlib import Path

import pytest
from screen_material import words
from setup_material import until

from qlora_tui import paths
from qlora_tui.errors import QloraError
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.messages import Complained
from qlora_tui.ui.widgets.confirm import Confirm
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


async def test_a_screenshot_needs_no_downloads_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "bare"))
    monkeypatch.setenv("XDG_DOWNLOAD_DIR", str(tmp_path / "bare" / "Downloads"))
    app = Workbench()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("f11")
        folder = paths.data() / "screenshots"
        await until(pilot, lambda: [one for one in folder.glob("*.svg") if one.read_text().endswith("</svg>\n")])


async def test_the_last_line_cuts_no_key_and_always_leads_to_the_others(machine: object) -> None:
    app = Workbench(place="setup")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.pause()

        def line() -> str:
            return words(app).splitlines()[-1]

        assert line().endswith("^p Commands  f1 Help ") and "f9 Start" in line()
        hidden = line()
        await pilot.resize_terminal(160, 45)
        await pilot.pause()
        assert line().endswith("^p Commands  f1 Help ") and "^q Quit" in line() and "^q Quit" not in hidden
        await pilot.resize_terminal(40, 12)
        await pilot.pause()
        assert line().endswith("^p Commands  f1 Help ") and "…" not in line()
        await pilot.click("FooterKey:last-of-type")
        await pilot.pause()
        assert app.screen.query("HelpPanel")


async def test_foreign_text_controls_no_terminal(machine: object) -> None:
    """As the last line of a worker's log, or the name of a file, may try to."""
    evil = "\x1b]2;title\x07\x1b[2J{}\x1b[31m[b]"
    app = Workbench(place="settings")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        app.post_message(Complained(QloraError(evil.format("complained"), hint=evil.format("hinted"))))
        app.screen.notify(evil.format("noticed"), markup=False)
        while "[b]" not in (toasts := words(app)):
            await pilot.pause(0.01)
        app.push_screen(Confirm(evil.format("asked"), evil.format("lost")))
        await pilot.pause()
        shown = toasts + words(app)
        assert "\x1b" not in shown and "\x07" not in shown
        for said in ("complained[b]", "hinted[b]", "noticed[b]", "asked[b]", "lost[b]"):
            assert said in shown
