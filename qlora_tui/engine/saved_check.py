"""Check that the adapter on the disk is the trained one: loaded with plain PEFT, it gives the same logits."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file

from qlora_tui.config.run import RunConfig
from qlora_tui.data.rows import Turn
from qlora_tui.engine import loading
from qlora_tui.engine.generate import autocast, evaluating
from qlora_tui.engine.prompts import Prompts
from qlora_tui.engine.resolve import Settings
from qlora_tui.errors import ModelError

_PROBE = "Say something."
_TOLERANCE = 1e-3
"""Largest mean KL divergence per token, in nats, between the trained model and what was saved of it."""

_PISSA_TOLERANCE = 2e-2
"""The same for PiSSA in bfloat16 or float16: the base it trains on is rounded otherwise than the unchanged one."""


def check_saved(folder: Path, config: RunConfig, settings: Settings, model: Any, tokenizer: Any) -> None:
    """Load the saved adapter onto the base and compare its logits with the trained model's. Raises ModelError.

    It takes the place of the trained one in memory. PiSSA has changed that base: there the trained model goes to the
    CPU, and the base is loaded again.
    """
    _refuse_untrained(load_file(folder / "adapter_model.safetensors"))
    ids = torch.tensor([Prompts.of(tokenizer, config.data).ids([Turn(role="user", content=_PROBE)])])
    trained = _log_probabilities(model, ids)
    if config.adapter.init == "pissa":
        model.to("cpu")
        opened = PeftModel.from_pretrained(loading.load_model(config, settings, tokenizer), str(folder))
        difference = _divergence(trained, _log_probabilities(opened, ids))
        most = _TOLERANCE if settings.dtype == torch.float32 else _PISSA_TOLERANCE
    else:
        _reload(folder, model)
        difference, most = _divergence(trained, _log_probabilities(model, ids)), _TOLERANCE
    if not difference <= most:
        raise ModelError(
            f"the saved adapter is not the trained one: its answers differ by {difference:.2g} nats per token",
            hint=f"It is kept in {folder}; the checkpoints are untouched.",
        )


def _refuse_untrained(weights: dict[str, torch.Tensor]) -> None:
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ModelError(
            "training diverged: the trained weights are not finite numbers",
            hint="Train again with a lower training.learning_rate.",
        )
    changed = [tensor for name, tensor in weights.items() if "lora_B" in name]
    if changed and not any(tensor.float().norm() > 0 for tensor in changed):
        raise ModelError("the saved adapter is all zeros: nothing was learned", hint="Check the learning rate.")


def _reload(folder: Path, model: Any) -> None:
    """Put the saved adapter in the place of the trained one."""
    dtypes = {name: tensor.dtype for name, tensor in model.named_parameters() if tensor.requires_grad}
    for name, tensor in model.named_parameters():
        if name in dtypes:
            tensor.data.zero_()  # so that nothing is left of what the file might lack
    model.load_adapter(str(folder), "default", is_trainable=True)
    for name, tensor in model.named_parameters():
        if name in dtypes:
            tensor.data = tensor.data.to(dtypes[name])


@torch.no_grad()
def _log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with evaluating(model), autocast(model):
        logits = model(input_ids=ids.to(model.device)).logits
    return logits[0].float().log_softmax(-1).cpu()


def _divergence(trained: torch.Tensor, saved: torch.Tensor) -> float:
    """Mean KL divergence per token, in nats."""
    return float((trained.exp() * (trained - saved)).sum(-1).mean())
