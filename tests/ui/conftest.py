"""What the tests of the screen share: no blinking, a fixed size, runs written by the torch-free worker."""

import pytest


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing moves by itself, and nobody's colours decide a test."""
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.delenv("NO_COLOR", raising=False)
