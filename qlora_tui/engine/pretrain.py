"""Pretrains the small Llama that the package carries, from nothing, on a text file.

It owns the architecture of the starter and the recipe that trains it. It knows nothing of the valley that
the text tells about, only that an empty line ends a document. Run as `python -m qlora_tui.engine.pretrain`;
`qlora_tui.starter.build` does so.

The same text, seed, thread count and machine give the same weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT_TOKENS: Final = 512
CHUNK_TOKENS: Final = CONTEXT_TOKENS
BATCH_CHUNKS: Final = 4
MUON_LEARNING_RATE: Final = 8e-3
ADAMW_LEARNING_RATE: Final = 3e-3
WARMUP_SHARE: Final = 0.05
FINAL_LEARNING_RATE_SHARE: Final = 0.02
MAX_GRADIENT_NORM: Final = 1.0
SECONDS_BETWEEN_REPORTS: Final = 15.0


def starter_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The starter's architecture: small, yet with grouped-query attention and tied embeddings like its big kin.

    Every linear layer's input width is a multiple of 64, the block size of 4-bit quantization.
    """
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def packed_batches(
    tokenizer: PreTrainedTokenizerFast, text_path: Path, separator: str, steps: int
) -> Iterator[torch.Tensor]:
    """Yield `steps` batches of token ids, shape (BATCH_CHUNKS, CHUNK_TOKENS), cut from one stream.

    Documents follow each other with `separator` between them, and the text starts over when it runs out.
    """
    end = tokenizer.convert_tokens_to_ids(separator)
    documents = text_path.read_text(encoding="utf-8").strip().split("\n\n")
    encoded = tokenizer(documents, add_special_tokens=False)["input_ids"]
    stream = torch.tensor([token for document in encoded for token in (*document, end)])
    batch_tokens = BATCH_CHUNKS * CHUNK_TOKENS
    for step in range(steps):
        window = torch.arange(step * batch_tokens, (step + 1) * batch_tokens) % len(stream)
        yield stream[window].view(BATCH_CHUNKS, CHUNK_TOKENS)


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms.

    Muon (Jordan et al., 2024) reaches the same loss in well under half of AdamW's steps at this size.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MUON_LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=ADAMW_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate_share(step: int, steps: int) -> float:
    """Share of the peak learning rate at `step`: a short linear rise, then a linear fall."""
    warmup_steps = max(1, int(steps * WARMUP_SHARE))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    remaining = (steps - step) / max(1, steps - warmup_steps)
    return FINAL_LEARNING_RATE_SHARE + (1 - FINAL_LEARNING_RATE_SHARE) * remaining


def pretrain(model: LlamaForCausalLM, batches: Iterator[torch.Tensor], steps: int) -> None:
    """Train `model` in place on `steps` batches of next-token prediction, reporting the loss on stdout."""
    model.train()
    chosen = optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, steps))
        for optimizer in chosen
    ]
    started_s = reported_s = time.monotonic()
    for step, batch in enumerate(batches, start=1):
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        for optimizer, schedule in zip(chosen, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad(set_to_none=True)
        now_s = time.monotonic()
        if step == steps or now_s - reported_s > SECONDS_BETWEEN_REPORTS:
            reported_s = now_s
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {now_s - started_s:.0f} s", flush=True)


def main() -> None:
    """Read the arguments, train, and write config, weights and generation config to `--out`."""
    parser = argparse.ArgumentParser(description="Pretrain the starter model on a text file.")
    parser.add_argument("--text", type=Path, required=True, help="documents with an empty line after each")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the trained tokenizer")
    parser.add_argument("--separator", required=True, help="token put after each document")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and configs")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True, help="CPU threads; part of the result")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.tokenizer)
    model = LlamaForCausalLM(starter_config(tokenizer))
    pretrain(model, packed_batches(tokenizer, args.text, args.separator, args.steps), args.steps)

    end = tokenizer.convert_tokens_to_ids(args.separator)
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, end],
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=64,
    )
    model.to(torch.bfloat16).save_pretrained(args.out)


if __name__ == "__main__":
    main()
