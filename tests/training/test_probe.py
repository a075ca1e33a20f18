"""What is measured by real steps leaves nothing behind."""

from pathlib import Path

from training_material import SMALL

from qlora_tui.config.overrides import resolve
from qlora_tui.engine import probe
from qlora_tui.engine.resolve import resolve_to_train


def test_the_steps_of_a_measurement_write_no_checkpoint(tmp_path: Path) -> None:
    """One of a full finetune has three times the model's size."""
    config = probe._short(resolve(overrides=SMALL))
    probe._train(config, resolve_to_train(config), tokens=16, folder=tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == []
