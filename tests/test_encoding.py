"""Other locales than UTF-8: the screen and the commands stay readable."""

import os
import subprocess
import sys

import pytest
from textual._cells import cell_len

from qlora_tui import encoding
from qlora_tui.config.run import RunConfig
from qlora_tui.runs import store


@pytest.mark.parametrize("name", ["ascii", "iso-8859-1", "cp1252"])
def test_frames_and_symbols_keep_their_width(name: str) -> None:
    encoding.adapt_streams()
    for character in "╭─╮│╰┃┏▔▎█░●✓✗▼…⠁⣿日Ωé":
        written = character.encode(name, "qlora-tui").decode(name)
        assert cell_len(written) == cell_len(character), character
        assert "\\" not in written


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "iso-8859-1"}], ids=str
)
def test_commands_work_in_other_locales(variables: dict[str, str]) -> None:
    store.create("one", RunConfig(), {"model": "日本 ✓"})
    environment = {**os.environ, **variables}
    for words in (["--help"], ["runs", "list"], ["presets", "list"], ["runs", "show", "one"]):
        result = subprocess.run(
            [sys.executable, "-m", "qlora_tui", *words], capture_output=True, env=environment, check=False
        )
        assert (result.returncode, result.stderr) == (0, b""), words


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "iso-8859-1"}], ids=str)
def test_the_workbench_draws_no_escapes(variables: dict[str, str]) -> None:
    terminal, side = os.openpty()
    program = "import sys; from qlora_tui.cli import main; sys.argv = ['qlora-tui']; main()"
    environment = {**os.environ, **variables, "TERM": "xterm-256color", "TEXTUAL_PRESS": "ctrl+q"}
    result = subprocess.run(
        [sys.executable, "-c", program], stdin=side, stdout=side, stderr=subprocess.PIPE, timeout=120, check=False,
        env=environment,
    )  # fmt: skip
    os.close(side)
    os.close(terminal)
    drawn = result.stderr.decode("iso-8859-1")
    assert result.returncode == 0
    assert "Home" in drawn and "\\u25" not in drawn and "\\x" not in drawn
