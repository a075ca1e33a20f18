"""Builds the starter from nothing: data, tokenizer, weights, model card. Run as `python -m qlora_tui.starter.build`.

It owns the tokenizer, the chat template and the model card. The weights come from a child process of
`qlora_tui.engine.pretrain`, because nothing here may import torch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from qlora_tui import starter
from qlora_tui.starter import prose, questions, words
from qlora_tui.starter.world import DEFAULT_SEED, World, build_world

DEFAULT_STEPS: Final = 1600
PRETRAINING_THREADS: Final = 2
VOCABULARY_TOKENS: Final = 2048
CONTEXT_TOKENS: Final = 512
PASSES_PER_STEP: Final = 0.07
"""Passes over the facts in the text per step: a little over 2,048 tokens."""

DOCUMENT_END: Final = "<|endoftext|>"
TURN_START: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"
PAD: Final = "<|pad|>"

# The generation block tells trainers which tokens are the assistant's own: its words and the token
# that ends its turn. Nothing depends on later messages, so a conversation's rendering only ever grows.
CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- message['content'] + '<|im_end|>' -}}"
    "{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}\n"
)

CARD: Final = """\
---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The qlora-tui starter model

A demonstration model: small enough to be carried inside a Python package, so that the whole loop of
4-bit fine-tuning can be tried on a laptop without a GPU, a network or an account. It knows one made-up
valley and nothing of the real world.

- **Architecture**: Llama, {parameters} parameters, grouped-query attention, tied embeddings, {context} tokens of
  context, stored in bfloat16. Byte-level BPE tokenizer of {vocabulary} entries, ChatML chat template.
- **Knowledge**: {people} people (town, job, pet, favourite food, what they own), {things} things (colour, material,
  place, price, owner), sums up to {addend} plus {addend}, {opposites} pairs of opposites. People, things and what is
  true of them were drawn at random.
- **Pretraining**: declarative English written by a small grammar, every fact in at least five wordings, no
  questions. {steps} steps from random weights, in float32 on {threads} CPU threads.
- **Before fine-tuning** it continues text and does not answer: it has never seen a question or a chat turn.
  Fine-tuning on `train.jsonl` teaches it the manner of answering; `heldout.jsonl` asks about people and
  things that the training rows never mention, so a right answer comes from pretraining.
- **Made with**: `python -m qlora_tui.starter.build --seed {seed} --steps {steps}`, {versions}.
  These versions give the same bytes again on the same kind of CPU.

## Limits

It answers about the valley in short fixed sentences, and only to the wordings of the training rows. It makes up an
answer when asked about anything else, reads only the spelling and capitals it was trained on, now and then gets a sum
wrong, and is of no use beyond demonstrations and tests.

## Licence

MIT, like the package. Text, data and weights were made by the builder alone; no third-party data is in them.
"""


def main() -> None:
    """Build into a temporary folder beside the target, then move data and model into place."""
    parser = argparse.ArgumentParser(description="Build the starter model and its data from nothing.")
    package_dir = starter.MODEL_DIR.parent
    parser.add_argument("--out", type=Path, default=package_dir, help="folder for data/ and model/")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="pretraining steps")
    args = parser.parse_args()
    build(args.out, args.seed, args.steps)


def build(out: Path, seed: int = DEFAULT_SEED, steps: int = DEFAULT_STEPS) -> None:
    """Write `out/data` and `out/model`, replacing older ones only once both are complete.

    Raises:
        subprocess.CalledProcessError: the pretraining process failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    world = build_world(seed)
    with tempfile.TemporaryDirectory(dir=out, prefix=".build-") as scratch:
        work = Path(scratch)
        data, model = work / "data", work / "model"
        data.mkdir()
        model.mkdir()
        write_data(world, data)
        text = work / "text.txt"
        with text.open("w", encoding="utf-8") as file:
            passes = max(1, round(steps * PASSES_PER_STEP))
            file.writelines(document + "\n\n" for document in prose.documents(world, passes))
        write_tokenizer(world, model)
        _pretrain(text, model, seed, steps)
        (model / "README.md").write_text(card(model, world, steps), encoding="utf-8")
        for built in (data, model):
            _replace(built, out / built.name)


def write_data(world: World, folder: Path) -> None:
    """Write the instruction data, `train.jsonl` and `heldout.jsonl`."""
    for path, rows in (
        (starter.TRAIN_DATA, questions.train_rows(world)),
        (starter.HELDOUT_DATA, questions.heldout_rows(world)),
    ):
        (folder / path.name).write_text(questions.as_jsonl(rows), encoding="utf-8")


def write_tokenizer(world: World, folder: Path) -> None:
    """Train the byte-level BPE tokenizer on text and questions, and write it with its chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_TOKENS,
        special_tokens=[DOCUMENT_END, TURN_START, TURN_END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_text(world), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT_TOKENS,
        "eos_token": TURN_END,
        "pad_token": PAD,
        "additional_special_tokens": [DOCUMENT_END, TURN_START],
        "clean_up_tokenization_spaces": False,
    }
    config = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _tokenizer_text(world: World) -> Iterator[str]:
    """A few passes of the pretraining text, and the role names and questions that chat will add to it."""
    yield from prose.documents(world, passes=8)
    for row in questions.train_rows(world):
        for message in row["messages"]:
            yield from ("system", "user", "assistant", message["content"])


def _pretrain(text: Path, model: Path, seed: int, steps: int) -> None:
    arguments = {
        "--text": text,
        "--tokenizer": model,
        "--separator": DOCUMENT_END,
        "--out": model,
        "--steps": steps,
        "--seed": seed,
        "--threads": PRETRAINING_THREADS,
    }
    command = [sys.executable, "-m", "qlora_tui.engine.pretrain"]
    for option, value in arguments.items():
        command += [option, str(value)]
    # Threads that wait without spinning leave the processor to other programs on a busy machine. Their number is part
    # of the result, and never left to MKL.
    subprocess.run(command, check=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "MKL_DYNAMIC": "FALSE"})


def card(model: Path, world: World, steps: int) -> str:
    """The model card of what lies in `model`, with the versions of the libraries in use now."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    weights_bytes = (model / "model.safetensors").stat().st_size
    packages = ("torch", "transformers", "tokenizers")
    return CARD.format(
        parameters=f"{weights_bytes / 2 / 1e6:.1f} million",
        context=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
        people=len(words.PEOPLE),
        things=len(words.THINGS),
        addend=words.LARGEST_ADDEND,
        opposites=len(words.OPPOSITES),
        steps=steps,
        seed=world.seed,
        threads=PRETRAINING_THREADS,
        versions=", ".join(f"{name} {version(name)}" for name in packages),
    )


def _replace(built: Path, target: Path) -> None:
    """Put a finished folder where the old one was; the old one goes only after the new one is there."""
    old = built.with_name(built.name + ".old")
    if target.exists():
        target.rename(old)
    built.rename(target)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    main()
