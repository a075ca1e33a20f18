"""What each way to store the weights costs on a model of one's own.

`python -m qlora_tui.engine.evaluation.quantization_study MODEL [--text FILE]` prints JSON lines: stages, the result.
Every linear layer that bitsandbytes would quantize is stored and read back, layer by layer, and its error is measured
as a relative mean square: |W - W'|^2 / |W|^2. The same is done with normally distributed weights, for which NF4 is made
(QLoRA, section 3). With a text, the perplexity of the model with the read-back weights is measured, too.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from qlora_tui import limits
from qlora_tui.engine import environment
from qlora_tui.errors import DataError, ExitCode, NotFoundError, QloraError
from qlora_tui.redaction import traceback_of

BLOCK = 64
_NESTED_BLOCK = 256
_NORMAL_SHAPE = (1024, 1024)
_INT4_LEVELS = 7
_LONGEST_ROW_TOKENS = 1024


class Scheme(NamedTuple):
    """A way to store a weight matrix. `bits` per parameter, the constants of the blocks counted in."""

    name: str
    bits: float
    read_back: Callable[[torch.Tensor], torch.Tensor]


def schemes() -> tuple[Scheme, ...]:
    """NF4, FP4 and plain 4-bit integers, each with and without double quantization, and 8-bit integers by row."""
    constants, nested = 32 / BLOCK, 8 / BLOCK + 32 / (BLOCK * _NESTED_BLOCK)
    return (
        Scheme("nf4", 4 + constants, _four_bit("nf4", nested=False)),
        Scheme("nf4, double quantization", 4 + nested, _four_bit("nf4", nested=True)),
        Scheme("fp4", 4 + constants, _four_bit("fp4", nested=False)),
        Scheme("fp4, double quantization", 4 + nested, _four_bit("fp4", nested=True)),
        Scheme("int4", 4 + constants, _int4),
        Scheme("int4, double quantization", 4 + nested, _int4_nested),
        Scheme("8-bit", 8.0, _int8),
    )


def _four_bit(kind: str, *, nested: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    def read_back(weight: torch.Tensor) -> torch.Tensor:
        packed, state = quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type=kind, compress_statistics=nested)
        restored: torch.Tensor = dequantize_4bit(packed, state)
        return restored.to(weight.dtype)

    return read_back


def _int4(weight: torch.Tensor) -> torch.Tensor:
    """Fifteen levels at equal distances between minus and plus the largest magnitude of a block."""
    return _int4_with(weight, lambda absmax: absmax)


def _int4_nested(weight: torch.Tensor) -> torch.Tensor:
    """The same with the magnitudes themselves in 8 bits, about their mean, as double quantization stores them."""
    from bitsandbytes.functional import dequantize_blockwise, quantize_blockwise

    def read_back(absmax: torch.Tensor) -> torch.Tensor:
        mean = absmax.mean()
        stored, state = quantize_blockwise((absmax - mean).flatten(), blocksize=_NESTED_BLOCK)
        restored: torch.Tensor = dequantize_blockwise(stored, state)
        return restored.view_as(absmax) + mean

    return _int4_with(weight, read_back)


def _int4_with(weight: torch.Tensor, keep: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    flat = weight.flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = keep(blocks.abs().amax(1, keepdim=True)).clamp_min(1e-12) / _INT4_LEVELS
    levels = (blocks / scale).round().clamp(-_INT4_LEVELS, _INT4_LEVELS)
    return (levels * scale).flatten()[: len(flat)].view_as(weight)


def _int8(weight: torch.Tensor) -> torch.Tensor:
    """LLM.int8's storage: 8-bit integers with one largest magnitude a row."""
    scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round() * scale


def relative_error(weight: torch.Tensor, restored: torch.Tensor) -> float:
    """|W - W'|^2 / |W|^2, in float64."""
    exact = weight.double()
    return float((exact - restored.double()).square().sum() / exact.square().sum().clamp_min(1e-300))


@torch.no_grad()
def study(model_id: str, text: Path | None, say: Callable[..., None]) -> dict[str, Any]:
    """Errors of every scheme on the model's layers and on normal weights; with a text, its perplexity, too."""
    from transformers import AutoModelForCausalLM

    from qlora_tui.config.model import ModelSpec
    from qlora_tui.engine import foreign_tokenizer
    from qlora_tui.models.folder import location

    where = location(ModelSpec(id=model_id))
    rows = _rows(text) if text is not None else []
    say("stage", text=f"loading {model_id} in float32")
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, use_safetensors=True).eval()
    tokenizer = foreign_tokenizer.load(where, name=model_id)
    layers = dict(_quantized_layers(model))
    normal = torch.randn(_NORMAL_SHAPE, generator=torch.Generator().manual_seed(0))
    found: list[dict[str, Any]] = []
    exact = _perplexity(model, tokenizer, rows) if rows else None
    for scheme in schemes():
        say("stage", text=scheme.name)
        with _stored_as(layers, scheme) as errors:
            perplexity = _perplexity(model, tokenizer, rows) if rows else None
        found.append(
            {
                "scheme": scheme.name,
                "bits_per_parameter": round(scheme.bits, 4),
                "relative_error": sum(errors.values()) / len(errors),
                "normal_relative_error": relative_error(normal, scheme.read_back(normal)),
                "perplexity": perplexity,
                "layers": errors,
            }
        )
    return {"model": model_id, "layers": len(layers), "perplexity": exact, "schemes": found}


def _quantized_layers(model: Any) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The linear layers that bitsandbytes replaces: all but the head."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            yield name, module


@contextmanager
def _stored_as(layers: dict[str, torch.nn.Linear], scheme: Scheme) -> Iterator[dict[str, float]]:
    """Within the block the layers have the weights that the scheme gives back; the relative error of each."""
    before, errors = {}, {}
    for name, layer in layers.items():
        before[name] = layer.weight.data
        layer.weight.data = scheme.read_back(layer.weight.data)
        errors[name] = relative_error(before[name], layer.weight.data)
    try:
        yield errors
    finally:
        for name, layer in layers.items():
            layer.weight.data = before[name]


def _rows(text: Path) -> list[str]:
    """Lines of a text with something in them. Raises NotFoundError, DataError."""
    if not text.is_file():
        raise NotFoundError(f"no such file: {text}", hint="Check the path.")
    try:
        with text.open(encoding="utf-8-sig") as file:
            lines = [line.strip() for line in islice(file, 2000)]
    except UnicodeDecodeError as error:
        raise DataError(f"{text}: not UTF-8 text", hint="Save the file as UTF-8.") from error
    rows = [line for line in lines if line]
    if not rows:
        raise DataError(f"{text}: nothing in it", hint="Give a text with one or more lines.")
    return rows


def _perplexity(model: Any, tokenizer: Any, rows: list[str]) -> float:
    """Per token but the first of each line."""
    from qlora_tui.engine.chat_model import context_max_tokens
    from qlora_tui.engine.evaluation.loss import token_nats

    nats, tokens = 0.0, 0
    longest = min(_LONGEST_ROW_TOKENS, context_max_tokens(model, tokenizer))
    for row in rows:
        ids = tokenizer(row, return_tensors="pt", truncation=True, max_length=longest)["input_ids"]
        if ids.shape[1] > 1:
            losses = token_nats(model(input_ids=ids, use_cache=False).logits[0, :-1], ids[0, 1:])
            nats, tokens = nats + float(losses.sum()), tokens + len(losses)
    return float(torch.tensor(nats / max(tokens, 1), dtype=torch.float64).exp())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m qlora_tui.engine.evaluation.quantization_study")
    parser.add_argument("model")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--allow-download", action="store_true")
    options = parser.parse_args()
    parent = os.dup(1)
    os.dup2(2, 1)

    def say(kind: str, **facts: Any) -> None:
        os.write(parent, json.dumps({"kind": kind, **facts}, ensure_ascii=False).encode() + b"\n")

    def report(error: QloraError) -> None:
        say("error", message=error.message, hint=error.hint, exit_code=int(error.exit_code))

    limits.last_words = report
    environment.prepare(allow_download=options.allow_download)
    try:
        say("result", **study(options.model, options.text, say))
    except QloraError as error:
        report(error)
        return error.exit_code
    except (OSError, ValueError) as error:  # what transformers raises for a model that it cannot load
        print(traceback_of(error), file=sys.stderr, flush=True)
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        say("error", message=f"{options.model} cannot be loaded: {first}", hint="", exit_code=int(ExitCode.MODEL))
        return ExitCode.MODEL
    return 0


if __name__ == "__main__":
    sys.exit(main())
