"""Hub models through the real hub library, from a server on this machine: described, searched, fetched, removed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Cli, command
from hub_server import HubServer, commit
from huggingface_hub import constants
from safetensors.numpy import save_file

from qlora_tui.config.model import ModelSpec
from qlora_tui.errors import ExitCode
from qlora_tui.models import describe
from qlora_tui.models.hub import missing_files
from qlora_tui.starter import MODEL_DIR

__all__ = ["command"]
SECRET = "hf_secretsecretsecretsecretsecretsecret"
WEIGHTS_BYTES = (MODEL_DIR / "model.safetensors").stat().st_size


def wrote_model(home: Path, **settings: object) -> Path:
    home.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        shutil.copy(MODEL_DIR / name, home / name)
    config = json.loads((MODEL_DIR / "config.json").read_text()) | settings
    (home / "config.json").write_text(json.dumps(config))
    return home


def shard(home: Path, *, leave_out: int | None = None) -> None:
    """Three weight files instead of one."""
    names = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    shapes = {f"model.layers.{number}.extra.weight": np.zeros((2, 2), np.float32) for number in range(2)}
    (home / "model.safetensors").rename(home / names[0])
    weight_map = dict.fromkeys(["model.norm.weight"], names[0])
    for number, (name, tensor) in enumerate(shapes.items(), start=1):
        save_file({name: tensor}, home / names[number])
        weight_map[name] = names[number]
    (home / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    if leave_out is not None:
        (home / names[leave_out]).unlink()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("hub")
    models = folder / "models"
    wrote_model(models / "open" / "small")
    wrote_model(models / "open" / "small@older", rope_theta=1.0)
    wrote_model(models / "closed" / "small")
    wrote_model(models / "meta-llama" / "Llama-3.2-1B")
    wrote_model(models / "odd" / "gptq", quantization_config={"quant_method": "gptq", "bits": 4})
    shard(wrote_model(models / "open" / "sharded"))
    shard(wrote_model(models / "odd" / "unfinished"), leave_out=2)
    unknown = wrote_model(models / "odd" / "unknown", model_type="never-heard-of", auto_map={"AutoModel": "x.py"})
    (unknown / "x.py").write_text("raise SystemExit")
    hostile = wrote_model(models / "odd" / "hostile", architectures=["\x1b]0;owned\x07[bold]Llama"])
    (hostile / "README.md").write_text("---\nlicense: mit\n---\n")
    pickled = wrote_model(models / "odd" / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    (pickled / "optimizer.bin").write_bytes(b"0" * 500_000)
    (models / "open" / "sharded" / "pytorch_model.bin.index.json").write_text('{"weight_map": {}}')
    (models / "open" / "sharded" / "words.tiktoken").write_text("IQ== 0")
    for repo_id, name in {"odd/adapter": "adapter_config.json", "odd/gguf": "small-Q4.gguf"}.items():
        (models / repo_id).mkdir(parents=True)
        (models / repo_id / name).write_text("{}")
    with HubServer(folder, gated=("closed/small", "meta-llama/Llama-3.2-1B")) as server:
        yield server


@pytest.fixture
def hub(served: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The server, where the hub library of this process looks for it, and an empty cache."""
    served.be_found(monkeypatch, tmp_path / "hub")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return served


def test_a_model_is_described_by_a_few_kilobytes(hub: HubServer) -> None:
    facts = describe("open/small")
    local = describe("starter")
    assert facts.modules == local.modules
    assert facts.origin == "hub"
    assert facts.revision == commit(hub.folder / "models" / "open" / "small")
    assert facts.checkpoint_bytes == WEIGHTS_BYTES
    assert facts.download_bytes is not None and facts.download_bytes > WEIGHTS_BYTES
    assert hub.sent_bytes < 150_000
    assert not Path(constants.HF_HUB_CACHE).exists()


@pytest.mark.parametrize("model_id", ["open/small", "open/sharded", "odd/pickled"])
def test_what_is_said_to_be_downloaded_is_what_a_download_fetches(hub: HubServer, model_id: str) -> None:
    facts, missing = describe(model_id), missing_files(ModelSpec(id=model_id, allow_pickle=True))
    assert missing is not None and facts.download_bytes == missing.total_bytes
    assert facts.checkpoint_bytes == sum(
        size or 0 for name, size in missing.sizes_bytes.items() if name.endswith((".bin", ".safetensors"))
    )


def test_pickled_weights_that_were_fetched_are_listed_as_complete(hub: HubServer, command: Cli) -> None:
    assert command("models", "download", "odd/pickled", "--allow-pickle", "--yes").code == ExitCode.OK
    [model] = json.loads(command("models", "list", "--json").out)["models"]
    assert model["complete"]


def test_a_branch_is_described_on_its_own(hub: HubServer) -> None:
    assert describe("open/small", "older").revision == commit(hub.folder / "models" / "open" / "small@older")


def test_every_shard_is_looked_at(hub: HubServer) -> None:
    facts = describe("open/sharded")
    assert any("2 tensors (8 parameters)" in note for note in facts.notes)
    assert facts.checkpoint_bytes is not None and facts.checkpoint_bytes > WEIGHTS_BYTES


def test_a_model_of_an_unknown_kind_is_described_with_its_uncertainty(hub: HubServer) -> None:
    facts = describe("odd/unknown")
    assert facts.family is None
    assert facts.parameters == describe("starter").parameters
    assert any("guess" in note and "Python code" in note for note in facts.notes)


@pytest.mark.parametrize(
    ("model_id", "message", "hint"),
    [
        ("closed/small", "model closed/small is gated", "/closed/small"),
        ("open/nothing", "no model open/nothing on the hub", "Check the spelling"),
        ("odd/gptq", "stored quantized already (gptq)", "original 16-bit model"),
        ("odd/adapter", "holds an adapter, not a base model", "base model"),
        ("odd/gguf", "holds GGUF files", "original model"),
        ("odd/unfinished", "lacks 1 of 3 weight files, first model-00003", "another"),
        ("no id!", "is neither a folder nor a hub id", "owner/name"),
    ],
)
def test_what_is_no_base_model_is_said_in_one_sentence(
    hub: HubServer, command: Cli, model_id: str, message: str, hint: str
) -> None:
    result = command("models", "info", model_id)
    assert result.code == ExitCode.MODEL
    assert message in result.err and hint in result.err
    assert result.err.count("\n") == 2
    assert not result.out


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("meta-llama/Llama-3.1-8", "meta-llama/Llama-3.1-8B"), ("llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
     ("Qwen/Qwen3-8b-Bse", "Qwen/Qwen3-8B-Base")],
)  # fmt: skip
def test_a_name_that_is_nearly_that_of_a_well_known_model_is_put_right(
    hub: HubServer, command: Cli, monkeypatch: pytest.MonkeyPatch, wrong: str, meant: str, offline: bool
) -> None:
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = command("models", "info", wrong)
    assert result.code == ExitCode.MODEL
    assert f"Did you mean {meant}?" in result.err and result.err.count("\n") == 2


def test_a_revision_that_does_not_exist_is_said(hub: HubServer, command: Cli) -> None:
    result = command("models", "info", "open/small", "--revision", "nowhere")
    assert result.code == ExitCode.MODEL
    assert "no such revision" in result.err


def test_a_well_known_gated_model_is_described_from_the_catalogue_with_the_link(hub: HubServer, command: Cli) -> None:
    result = command("models", "info", "meta-llama/Llama-3.2-1B")
    assert result.code == 0
    assert "1,235,814,400" in result.out and "gated" in result.out
    assert f"Accept its conditions at {hub.url}/meta-llama/Llama-3.2-1B" in result.err


def test_offline_the_catalogue_answers_and_the_hub_is_not_asked(
    hub: HubServer, command: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert json.loads(command("models", "info", "Qwen/Qwen3-8B", "--json").out)["parameters"] == 8_190_735_360
    result = command("models", "info", "open/small")
    assert result.code == ExitCode.MODEL
    assert "HF_HUB_OFFLINE" in result.err
    assert hub.requests == []


def test_without_a_connection_the_catalogue_answers(command: Cli) -> None:
    result = command("models", "info", "openai-community/gpt2")
    assert "124,439,808" in result.out
    assert "cannot be reached" in result.err
    assert command("models", "search", "llama").code == ExitCode.MODEL


def test_a_model_is_fetched_with_progress_listed_and_removed(hub: HubServer, command: Cli) -> None:
    fetched = command("models", "download", "open/small", "--yes")
    folder = Path(fetched.out.strip())
    assert (folder / "model.safetensors").read_bytes() == (MODEL_DIR / "model.safetensors").read_bytes()
    assert "(100 %)" in fetched.err
    [model] = json.loads(command("models", "list", "--json").out)["models"]
    assert (model["id"], model["complete"]) == ("open/small", True)
    assert model["size_bytes"] > WEIGHTS_BYTES

    hub.requests.clear()
    assert describe("open/small").origin == "cache"
    assert "complete" in command("models", "download", "open/small").err
    assert hub.requests == []

    assert command("models", "rm", "open/small").code == ExitCode.USAGE
    assert "freed" in command("models", "rm", "open/small", "--yes").err
    assert json.loads(command("models", "list", "--json").out)["models"] == []
    assert not folder.exists()
    assert command("models", "rm", "open/small", "--yes").code == ExitCode.NOT_FOUND


def test_nothing_is_fetched_without_a_yes_nor_what_cannot_be_trained(hub: HubServer, command: Cli) -> None:
    refused = command("models", "download", "open/small")
    assert refused.code == ExitCode.USAGE
    assert "MB" in refused.err and "--yes" in refused.err
    assert command("models", "download", "odd/gptq", "--yes").code == ExitCode.MODEL
    assert command("models", "download", "closed/small", "--yes").code == ExitCode.MODEL
    assert command("models", "download", "starter", "--yes").code == ExitCode.USAGE
    assert hub.file_requests() == []
    assert json.loads(command("models", "list", "--json").out)["models"] == []


def test_a_broken_off_download_goes_on_with_what_is_missing(hub: HubServer, command: Cli) -> None:
    home = hub.folder / "models" / "open" / "sharded"
    last = home / "model-00003-of-00003.safetensors"
    command("models", "download", "open/sharded", "--yes")
    [model] = json.loads(command("models", "list", "--json").out)["models"]
    snapshot = Path(model["path"]) / "snapshots" / model["revisions"][0]
    (snapshot / last.name).resolve().unlink()
    (snapshot / last.name).unlink()
    [broken] = json.loads(command("models", "list", "--json").out)["models"]
    assert not broken["complete"]

    hub.requests.clear()
    again = command("models", "download", "open/sharded", "--yes")
    assert again.code == 0
    assert {line.rpartition("/")[2] for line in hub.file_requests()} == {last.name}
    assert json.loads(command("models", "list", "--json").out)["models"][0]["complete"]


def test_search_finds_models_by_name(hub: HubServer, command: Cli) -> None:
    found = json.loads(command("models", "search", "small", "--json").out)["models"]
    assert {match["id"]: match["gated"] for match in found} == {"closed/small": True, "open/small": False}
    assert all(match["has_entry"] and match["model_type"] == "llama" for match in found)
    assert len(command("models", "search", "small", "--limit", "1").out.splitlines()) == 2
    assert "no text generation model" in command("models", "search", "zzz").err


def test_foreign_text_and_the_token_stay_out_of_the_terminal(hub: HubServer, command: Cli) -> None:
    result = command("models", "info", "odd/hostile", "--modules")
    assert "\x1b" not in result.out + result.err
    assert "[bold]Llama" in result.out
    outputs = [result, command("models", "search", "small"), command("models", "download", "closed/small")]
    assert all(SECRET not in output.out + output.err for output in outputs)


def test_known_models_are_listed_without_a_hub(command: Cli) -> None:
    lines = command("models", "list", "--known").out.splitlines()
    assert "Qwen/Qwen3-8B\t8.19 B" in lines
    assert len(lines) > 150
