"""8-bit layers: what they keep for the backward pass, and that the gradients are those of bitsandbytes."""

import gc
import weakref
from typing import Any

import pytest

KINDS = ("MatMul8bitLt", "MatMul8bitFp")
"""What a GPU and what a CPU multiplies with. The first has a reference implementation on CPUs, too."""


def layer(kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A frozen 8-bit layer that multiplies with `kind`, whatever the device."""
    import torch
    from bitsandbytes.autograd import _functions
    from bitsandbytes.nn import Linear8bitLt

    monkeypatch.setattr(_functions, "MatMul8bitFp", getattr(_functions, kind))
    torch.manual_seed(0)
    made = Linear8bitLt(64, 48, bias=True, has_fp16_weights=False, threshold=6.0)
    made.weight = made.weight.to("cpu")
    return made.requires_grad_(False).train()


def gradient(made: Any, given: Any) -> Any:
    source = given.clone().requires_grad_()
    made(source * 2).square().sum().backward()
    return source.grad


@pytest.mark.parametrize("kind", KINDS)
def test_an_8_bit_layer_keeps_no_input(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from qlora_tui.engine.eight_bit import keep_no_inputs

    with keep_no_inputs():
        made = layer(kind, monkeypatch)
        source = torch.randn(5, 64, requires_grad=True)
        given = source + 1  # An addition keeps nothing, so that the layer alone could hold its result.
        kept, output = weakref.ref(given.untyped_storage()), made(given)
        del given
        gc.collect()
        assert kept() is None
        output.sum().backward()
    assert source.grad is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5, 64), (2, 3, 64)])
def test_the_gradients_are_those_of_bitsandbytes(
    kind: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from qlora_tui.engine.eight_bit import keep_no_inputs

    torch.manual_seed(1)
    given = torch.randn(shape)
    given[..., 7] = 20.0  # A column beyond the threshold is multiplied apart.
    expected = gradient(layer(kind, monkeypatch), given)
    monkeypatch.undo()
    with keep_no_inputs():
        assert torch.equal(gradient(layer(kind, monkeypatch), given), expected)


def test_a_trained_8_bit_weight_keeps_what_its_gradient_needs() -> None:
    import torch
    from bitsandbytes.autograd import _functions
    from bitsandbytes.autograd._functions import MatmulLtState

    from qlora_tui.engine.eight_bit import keep_no_inputs

    weight = torch.randn(48, 64, requires_grad=True)
    with keep_no_inputs():
        state = MatmulLtState()
        _functions.MatMul8bitFp.apply(torch.randn(5, 64), weight, None, None, state).sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
