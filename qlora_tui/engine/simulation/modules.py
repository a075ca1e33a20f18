"""Hooks that tell the ledger which adapted linear layer runs, forward and backward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.utils.checkpoint
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from qlora_tui.engine.simulation.ledger import Ledger
from qlora_tui.engine.simulation.phases import decoder_layers

Number = Callable[[torch.Tensor], int | None]
"""Number of a tensor's storage in the ledger."""


def adapted_names(model: Any) -> list[str]:
    """Paths of the adapted modules inside a decoder layer, an adapter inside another one's left out."""
    found = [name for name, each in decoder_layers(model)[1].named_modules() if isinstance(each, BaseTunerLayer)]
    return [name for name in found if not any(name.startswith(f"{outer}.") for outer in found)]


def take_adapters_away(model: Any, names: Sequence[str]) -> None:
    """Put the frozen modules back, with an unused weight to train, and let gradients reach the embedding."""
    for layer in decoder_layers(model):
        for name in names:
            parent, _, leaf = name.rpartition(".")
            owner = layer.get_submodule(parent)
            setattr(owner, leaf, _innermost(getattr(owner, leaf)))
    model.get_base_model().enable_input_require_grads()
    model.register_parameter("unused", nn.Parameter(torch.zeros(1)))


def _innermost(module: Any) -> Any:
    while isinstance(module, BaseTunerLayer):
        module = module.base_layer
    return module


class ModuleMarks:
    """Names the linear layers of decoder layers in a ledger, by the last part of their paths.

    Forward, hooks tell when a layer runs. Backward, PyTorch tells which node of the graph runs, and the nodes that were
    made while a layer ran forward are its own.
    """

    def __init__(self, ledger: Ledger, number: Number) -> None:
        self._ledger, self._number = ledger, number
        self._running: list[tuple[str, int]] = []
        """Name and first node of each layer that runs."""

        self._recomputes = False
        self._of_node: dict[int, str] = {}

    def watch(self, model: Any, names: Sequence[str]) -> None:
        """Watch the modules of these names in each decoder layer."""
        for layer in decoder_layers(model):
            for name in names:
                self._hook(layer.get_submodule(name), name.rpartition(".")[2])

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Inside it checkpointing's recomputation of a layer is noticed."""
        run = torch.utils.checkpoint._run_fn_with_dynamo_disabled

        def noticed(*args: Any, **kwargs: Any) -> Any:
            self._recomputes = True
            try:
                return run(*args, **kwargs)
            finally:
                # It stops early by an error, and no hook tells that the linear layer it was in is left.
                self._recomputes, self._ledger.module = False, ""
                self._running.clear()

        with patch.object(torch.utils.checkpoint, run.__name__, noticed):
            yield

    def _hook(self, module: nn.Module, name: str) -> None:
        def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
            self._running.append((name, torch._C._autograd._get_sequence_nr()))
            number = self._number(args[0])
            if number is not None:
                self._ledger.reads.append((len(self._ledger.events), name, number))

        def leave(_: nn.Module, args: Any, output: Any) -> None:
            _, first = self._running.pop()
            self._of_node |= dict.fromkeys(range(first, torch._C._autograd._get_sequence_nr()), name)
            self._ledger.module = ""

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)

    def operation(self) -> None:
        """Name the layer of the operation that is about to run."""
        ledger = self._ledger
        ledger.recomputes = self._recomputes
        if self._recomputes or "backward" not in ledger.phase:
            ledger.module = self._running[-1][0] if self._running else ""
            return
        node = torch._C._current_autograd_node()
        if node is not None:
            ledger.module = self._of_node.get(node._sequence_nr(), "")
