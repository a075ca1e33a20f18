"""Results of `eval quant` are stored per model and valid while its weights are the same."""

import shutil
from pathlib import Path

from qlora_tui.evaluation import quantization_errors as errors
from qlora_tui.starter import MODEL_DIR

STUDY = {
    "perplexity": None,
    "schemes": [{"scheme": "nf4", "relative_error": 0.01, "perplexity": None, "layers": {"a": 0.01}}],
}


def test_a_result_is_found_by_every_spelling_of_the_folder(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "model"
    shutil.copytree(MODEL_DIR, folder)
    monkeypatch.chdir(tmp_path)
    errors.write("./model", STUDY)
    found = errors.read(str(folder))
    assert found is not None
    assert (found.relative_errors, found.perplexities, found.exact_perplexity) == ({"nf4": 0.01}, {}, None)
    assert errors.read("starter") is None


def test_result_for_other_weights_is_not_shown(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL_DIR, folder)
    errors.write(str(folder), STUDY)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert errors.read(str(folder)) is None


def test_damaged_result_is_ignored() -> None:
    path = errors.write("owner/name", STUDY)
    for content in ("", "[]", "{}", '{"version": 1, "weights": null, "schemes": 3}'):
        path.write_text(content)
        assert errors.read("owner/name") is None
