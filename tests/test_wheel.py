"""The wheel alone, in an environment without the checkout, carries everything the program needs."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel in it; what it depends on is borrowed from the one running the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    subprocess.run(build, check=True, capture_output=True)
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True, capture_output=True)
    [site] = environment.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin" / "qlora-tui"


def run(program: Path, folder: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_presets_themes_and_starter_come_with_the_wheel(installed: Path, tmp_path: Path) -> None:
    presets = json.loads(run(installed, tmp_path, "presets", "list", "--json"))["presets"]
    assert {"starter", "guanaco-7b"} <= {preset["name"] for preset in presets}
    [package] = installed.parent.parent.glob("lib/python*/site-packages/qlora_tui")
    assert {path.name for path in (package / "_shipped" / "themes").iterdir()} == {
        path.name for path in (CHECKOUT / "themes").iterdir()
    }
    assert (package / "py.typed").exists()
    assert (package / "manual" / "install.md").exists()
    assert (package / "starter" / "model" / "model.safetensors").stat().st_size > 1_000_000


def test_a_run_trains_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    steps = ("--set", "training.max_steps=1", "--set", "data.max_train_rows=16", "--json")
    lines = run(installed, tmp_path, "train", "starter", "--name", "first", *steps).splitlines()
    assert json.loads(lines[-1])["kind"] == "finished"
    assert str(CHECKOUT) not in run(installed, tmp_path, "paths", "--json")
