"""Every test has a home of its own and no way to a hub."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# Read once when huggingface_hub is imported, so they are set before any test module is.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="qlora-tui-tests-hub-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
for _variable in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "QLORA_TUI_RUNS", "QLORA_TUI_DEBUG"):
    os.environ.pop(_variable, None)

# Started in the background of a script, or by nohup, this process ignores them; so would every program a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this test's runs, presets and caches lie."""
    folder = tmp_path / "home"
    monkeypatch.setenv("QLORA_TUI_HOME", str(folder))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # An engine program run inside a test process sets it.
    return folder
