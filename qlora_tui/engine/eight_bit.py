"""8-bit layers that keep nothing of their input for the backward pass, and their scales with DoRA.

bitsandbytes 0.50 keeps the input of every 8-bit product as an attribute of the autograd context, where gradient
checkpointing cannot drop it. Only the gradient of the weight needs it, and a base model's weights have none.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bitsandbytes.autograd import _functions
from bitsandbytes.nn import Linear8bitLt


def _without_inputs(product: Any) -> Any:
    """A subclass of one of bitsandbytes' products that drops what only the gradient of the weight needs."""

    class WithoutInputs(product):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            output = product.forward(ctx, *args)
            if not ctx.needs_input_grad[1] and not getattr(ctx, "is_empty", False):
                if hasattr(ctx, "tensors"):
                    ctx.tensors, ctx.tensor_states = (None, None, None), (None, None)
                elif hasattr(ctx, "A"):
                    ctx.A = None
            return output

    WithoutInputs.__name__ = product.__name__
    return WithoutInputs


_PRODUCTS = {name: getattr(_functions, name) for name in ("MatMul8bitLt", "MatMul8bitFp")}


def drop_inputs() -> None:
    """Let all 8-bit layers of this process keep no inputs from now on, and not report each cast to float16."""
    _functions.logger.setLevel(logging.ERROR)
    for name, product in _PRODUCTS.items():
        setattr(_functions, name, _without_inputs(product))


def keep_scales(model: Any) -> None:
    """Give each 8-bit layer its scales back before a product, where PEFT's DoRA dropped them.

    On a CPU, PEFT 0.21 replaces the weight whenever DoRA takes its norm; the new one has no scales, which bitsandbytes
    then takes over.
    """
    for module in model.modules():
        if isinstance(module, Linear8bitLt):
            module.register_forward_pre_hook(_restore_scales)


def _restore_scales(layer: Any, _: Any) -> None:
    if layer.weight.CB is not None and layer.weight.SCB is None:
        layer.weight.SCB = layer.state.SCB


@contextmanager
def keep_no_inputs() -> Iterator[None]:
    """The same for a while."""
    before = {name: getattr(_functions, name) for name in _PRODUCTS}
    drop_inputs()
    try:
        yield
    finally:
        for name, product in before.items():
            setattr(_functions, name, product)
