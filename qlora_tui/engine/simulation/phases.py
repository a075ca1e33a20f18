"""Hooks that tell the ledger which layer runs, forward and backward."""

from typing import Any

import torch
from torch import nn

from qlora_tui.engine.simulation.ledger import Ledger


def decoder_layers(model: Any) -> nn.ModuleList:
    """The list of layers of a language model, whatever its family calls it."""
    count = model.config.get_text_config().num_hidden_layers
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count)


def announce_layers(model: Any, ledger: Ledger, *, checkpointing: bool) -> None:
    """Name the phase after the layer while it runs: "forward.3", "backward.3", then "loss" and "loss_backward".

    With checkpointing the backward pass of a layer begins with its recomputation, which its own first module tells.
    Without, it begins when the gradient of the next layer's input is there.
    """
    layers = decoder_layers(model)
    for number, layer in enumerate(layers):
        entry = _first_module(layer)
        if checkpointing:
            entry.register_forward_pre_hook(_announce(ledger, number))
        else:
            entry.register_forward_pre_hook(_announce_both(ledger, number))
    # A layer's forward hook also fires while it is recomputed; only the first time the loss comes next.
    layers[-1].register_forward_hook(_loss_next(ledger, len(layers) - 1, checkpointing))


def _first_module(layer: nn.Module) -> nn.Module:
    """The module that a layer runs first. Hooks on the layer itself would keep its input alive while it runs."""
    norm = getattr(layer, "input_layernorm", None)
    if isinstance(norm, nn.Module):
        return norm
    norms = [name for name, child in layer.named_children() if "norm" in type(child).__name__.lower()]
    first = next((name for name in norms if not name.startswith("post_")), "self_attn.q_proj")
    return layer.get_submodule(first)


def _announce(ledger: Ledger, number: int) -> Any:
    def hook(module: nn.Module, args: Any) -> None:
        direction = "backward" if "backward" in ledger.phase else "forward"
        ledger.phase = f"{direction}.{number}"

    return hook


def _announce_both(ledger: Ledger, number: int) -> Any:
    def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        ledger.phase = f"forward.{number}"
        if args[0].requires_grad and number:
            args[0].register_hook(lambda gradient: _enter(ledger, number - 1))

    return hook


def _enter(ledger: Ledger, number: int) -> None:
    ledger.phase = f"backward.{number}"


def _loss_next(ledger: Ledger, last: int, checkpointing: bool) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if "backward" in ledger.phase:
            return
        ledger.phase = "loss"
        hidden = output[0] if isinstance(output, tuple) else output
        if not checkpointing and hidden.requires_grad:
            hidden.register_hook(lambda gradient: _enter(ledger, last))

    return hook
