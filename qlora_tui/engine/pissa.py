"""PiSSA: matrices that begin with the principal components of a weight, which keeps the rest; saved as plain LoRA.

Training changes the base, so the saved adapter is the difference to what the matrices began with: W + AB - A0 B0.
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.utils.other import transpose
from safetensors.torch import load_file, save_file

from qlora_tui import atomic
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ModelError
from qlora_tui.runs.store import RunFolder

ITERATIONS = 16
"""Subspace iterations of the fast SVD; PEFT documents 16 as accurate enough for PiSSA."""

INIT = f"pissa_niter_{ITERATIONS}"
_ADAPTER = "default"
_WEIGHTS = "adapter_model.safetensors"


def keep_initial(run: RunFolder, config: RunConfig, model: Any) -> None:
    """Keep the matrices that a PiSSA run begins with, for its resumption and for its adapter."""
    if config.adapter.init != "pissa" or run.pissa_initial.exists():
        return
    draft = run.path / ".pissa-initial"
    model.save_pretrained(draft)
    atomic.fsync_tree(draft)
    draft.rename(run.pissa_initial)


def initial(run: RunFolder) -> Path | None:
    """Where `keep_initial` put them when the run began; None for a run that begins now, or without PiSSA."""
    return run.pissa_initial if run.pissa_initial.exists() else None


@torch.no_grad()
def begin(model: Any, dtype: torch.dtype, kept: Path | None = None) -> None:
    """Move the principal components of each adapted weight into its matrices, which get `dtype`.

    `kept`: folder with the matrices of a run that began before. The decomposition is randomized and differs between
    devices: a second one would leave other weights than those that the checkpoints belong to. Raises ModelError for
    fused experts, which cannot be decomposed.
    """
    matrices = None if kept is None else load_file(kept / _WEIGHTS)
    for name, layer in model.named_modules():
        if isinstance(layer, ParamWrapper):
            raise ModelError(
                f"adapter.init = pissa cannot decompose {name.removeprefix('base_model.model.')}: the experts of this "
                "model are single tensors",
                hint="Set adapter.init = default, or name only attention layers in adapter.target_modules.",
            )
        if isinstance(layer, LoraLayer) and _ADAPTER in layer.lora_A:
            _begin_layer(name, layer, dtype, matrices)


def _begin_layer(name: str, layer: Any, dtype: torch.dtype, matrices: dict[str, torch.Tensor] | None) -> None:
    base = layer.get_base_layer().weight
    whole = base.data
    if matrices is None:
        layer.pissa_init(_ADAPTER, INIT)
    for kind in ("lora_A", "lora_B"):
        weight = getattr(layer, kind)[_ADAPTER].weight
        found = weight.data if matrices is None else matrices[f"{name}.{kind}.weight"].to(whole.device)
        weight.data = found.to(dtype)
    # From the rounded matrices, so that what they lost stays in the base and the difference can be told exactly.
    pair = [getattr(layer, kind)[_ADAPTER].weight.data.to(torch.float32) for kind in ("lora_B", "lora_A")]
    rest = transpose(whole.to(torch.float32), layer.fan_in_fan_out) - layer.scaling[_ADAPTER] * pair[0] @ pair[1]
    base.data = transpose(rest.to(whole.dtype), layer.fan_in_fan_out)


def save_as_lora(model: Any, folder: Path, began: Path) -> None:
    """Save the adapter for the unchanged base, as plain LoRA of twice the rank.

    PEFT's own conversion loses modules trained in full, added tokens and DoRA's magnitudes. DoRA scales by the norm of
    the whole weight, which is the same for both forms, so its magnitudes stay as they are.
    """
    model.save_pretrained(folder)
    trained, kept = load_file(folder / _WEIGHTS), load_file(began / _WEIGHTS)
    for name, tensor in trained.items():
        if "lora_A" in name or "lora_embedding_A" in name:
            trained[name] = torch.cat([tensor, kept[name].to(tensor)], dim=0)
        elif "lora_B" in name or "lora_embedding_B" in name:
            trained[name] = torch.cat([tensor, -kept[name].to(tensor)], dim=1)
    save_file(trained, folder / _WEIGHTS, metadata={"format": "pt"})
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | _doubled(settings), indent=2, sort_keys=True), encoding="utf-8")


def _doubled(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of an adapter of twice the rank and the same scale: alpha / rank, or alpha / sqrt(rank)."""
    factor = 2**0.5 if settings["use_rslora"] else 2
    return {
        "init_lora_weights": True,
        "r": settings["r"] * 2,
        "lora_alpha": settings["lora_alpha"] * factor,
        "rank_pattern": {name: rank * 2 for name, rank in (settings["rank_pattern"] or {}).items()},
        "alpha_pattern": {name: alpha * factor for name, alpha in (settings["alpha_pattern"] or {}).items()},
    }
