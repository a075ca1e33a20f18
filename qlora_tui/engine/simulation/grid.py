"""The cases in which the shipped programs are held against full dry runs: 40 models, four times, other switches."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from qlora_tui.config.run import RunConfig
from qlora_tui.engine.simulation.hf_config import from_keys
from qlora_tui.engine.simulation.simulate import Workload
from qlora_tui.models import catalogue
from qlora_tui.models.assemble import assemble
from qlora_tui.models.facts import ModelFacts

MODELS = (
    "HuggingFaceTB/SmolLM2-135M", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.2-1B",
    "google/gemma-3-1b-pt", "google/gemma-2-2b", "microsoft/Phi-3-mini-4k-instruct", "mistralai/Mistral-7B-v0.3",
    "huggyllama/llama-7b", "Qwen/Qwen2.5-7B", "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B", "google/gemma-2-9b",
    "meta-llama/Llama-3.2-3B", "microsoft/phi-4", "Qwen/Qwen2.5-14B", "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-70B",
)  # fmt: skip
FURTHER_MODELS = (
    "HuggingFaceTB/SmolLM3-3B", "CohereLabs/c4ai-command-r7b-12-2024", "google/gemma-7b", "allenai/OLMo-2-0425-1B",
    "allenai/OLMo-2-1124-7B", "EleutherAI/gpt-neox-20b", "CohereLabs/aya-expanse-8b", "google/gemma-2b",
    "stabilityai/stablelm-2-1_6b", "stabilityai/stablelm-3b-4e1t", "microsoft/phi-2", "EleutherAI/pythia-1.4b",
    "ibm-granite/granite-3.1-2b-base",
)  # fmt: skip
PLAIN_MODELS = (
    "openai-community/gpt2", "facebook/opt-1.3b", "bigscience/bloom-1b7", "openai-community/gpt2-xl",
    "facebook/opt-6.7b",
)  # fmt: skip
MIXTURES = (
    "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b", "Qwen/Qwen1.5-MoE-A2.7B", "mistralai/Mixtral-8x7B-v0.1",
)  # fmt: skip
_WITHOUT_DROPOUT = ("Qwen/Qwen3-30B-A3B", "mistralai/Mixtral-8x7B-v0.1")
"""PEFT's adapters of experts have none."""

ROUNDS = 4
MOST_TOKENS = 16384
DEPTHS = (12, 18)
"""Layers of a model after its first round, in which it has all of its own."""

SAMPLE = 40
"""Cases of any model with any linear layers adapted."""

_LATER: tuple[tuple[str, str, Any], ...] = (
    ("THUDM/GLM-4-9B-0414", "on", "all-linear"),
    ("THUDM/GLM-4-9B-0414", "off", ["gate_up_proj", "q_proj"]),
    ("HuggingFaceTB/SmolLM3-3B", "on", ["q_proj", "down_proj"]),
    ("Qwen/Qwen3-30B-A3B", "on", "all-linear"),
)
_FULLY_TRAINED = (
    "HuggingFaceTB/SmolLM2-135M", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen3-0.6B", "google/gemma-3-1b-pt", "google/gemma-2-2b",
    "microsoft/Phi-3-mini-4k-instruct", "microsoft/phi-2", "allenai/OLMo-2-0425-1B", "ibm-granite/granite-3.1-2b-base",
    "HuggingFaceTB/SmolLM3-3B", "stabilityai/stablelm-2-1_6b", "EleutherAI/pythia-1.4b", "openai-community/gpt2",
    "facebook/opt-1.3b", "bigscience/bloom-1b7", "google/gemma-2b", "meta-llama/Llama-3.2-1B",
)  # fmt: skip
_SEED = 11
_FULL_SEED = 3
_SAMPLE_SEED = 2026
_SHARE_OF_LISTS = 0.7
"""Cases of the sample that adapt some linear layers only."""

_SAMPLED_FAMILIES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "phi3", "phi", "olmo2", "granite", "cohere",
    "cohere2", "smollm3", "stablelm", "gpt_neox", "gpt2", "opt",
)  # fmt: skip
_GROUPS = (MODELS, FURTHER_MODELS, MIXTURES, PLAIN_MODELS)
_CHECKPOINTING = ("on", "off", "on", "off")
"""In each round of the later groups, whose models take few cases, so that each has both."""
_WITHOUT_PACKING = ("facebook/opt-1.3b", "bigscience/bloom-1b7", "facebook/opt-6.7b")
"""Their attention takes no positions: packed rows would see each other, and training does not pack them."""

_POSITIONS: Mapping[str, int] = {
    "openai-community/gpt2": 1024, "openai-community/gpt2-xl": 1024,
    "facebook/opt-1.3b": 2048, "facebook/opt-6.7b": 2048,
}  # fmt: skip
"""Most tokens of a row where each position has an embedding of its own."""
_SINGLE_ROWS = ("EleutherAI/gpt-neox-20b", "microsoft/phi-4", "microsoft/Phi-3-mini-4k-instruct")
"""Models of a fused projection, which eager attention keeps alive of a single row."""

_KINDS = ("plain", "plain", "packed", "eager", "full loss", "plain", "plain", "full loss", "packed")
Case = dict[str, Any]


def cases() -> list[Case]:
    """Every model in each round with other switches, always the same ones."""
    choose = random.Random(_SEED)  # noqa: S311 - a sample, no secret
    found: list[Case] = []
    order = [(turn, model) for models in _GROUPS for turn in range(ROUNDS) for model in models]
    for number, (turn, model) in enumerate(order):
        tokens, rows = choose.choice((512, 1024, 2048, 4096, 8192)), choose.choice((1, 2, 4))
        tokens = min(tokens, _POSITIONS.get(model, tokens))
        kind = _KINDS[(number + number // len(MODELS)) % len(_KINDS)]
        found.append(
            {
                "number": number,
                "model": model,
                "depth": choose.choice(DEPTHS) if turn else None,
                "tokens": tokens,
                "rows": 1 if kind == "full loss" or rows * tokens > MOST_TOKENS else rows,
                "packing": kind == "packed" and model not in _WITHOUT_PACKING,
                "attention": "eager" if kind == "eager" else "sdpa",
                "loss": "full" if kind == "full loss" else "tiled",
                "accumulate": choose.choice((1, 16)),
                "rank": choose.choice((8, 16, 64)),
                "dropout": 0.0 if model in _WITHOUT_DROPOUT else choose.choice((0.0, 0.05)),
                "recipe": choose.choice(("lean", "lean", "original")),
                "checkpointing": choose.choice(("on", "on", "off")) if model in MODELS else _CHECKPOINTING[turn],
                "double_quantization": choose.choice((True, True, False)),
                "optimizer": choose.choice(
                    ("paged_adamw_32bit", "adamw_bnb_8bit", "paged_adamw_8bit", "adamw_torch_fused", "adamw_torch")
                ),
            }
        )
    found += [case | {"number": len(found) + more} for more, case in enumerate(_single_rows())]
    found += [case | {"number": len(found) + more} for more, case in enumerate(_sample())]
    found += [case | {"number": len(found) + more} for more, case in enumerate(_later_cases())]
    found += [case | {"number": len(found) + more} for more, case in enumerate(_full_cases())]
    return [case for case in found if case["loss"] == "tiled"]


def _sample() -> Iterator[Case]:
    """Any model of the catalogue that has programs, with any linear layers adapted, and any kind of base."""
    choose = random.Random(_SAMPLE_SEED)  # noqa: S311 - a sample, no secret
    known = [(model, source.config) for model in catalogue.ids() if (source := catalogue.find(model))]
    models = [model for model, keys in known if keys["model_type"] in _SAMPLED_FAMILIES]
    for _ in range(SAMPLE):
        model, tokens = choose.choice(models), choose.choice((512, 1024, 2048, 4096))
        kind, some = choose.choices(("nf4", "none", "8bit"), (5, 2, 2))[0], choose.random() < _SHARE_OF_LISTS
        source = catalogue.find(model)
        assert source is not None
        leaves = {group.name.rpartition(".")[2] for group in assemble(source).linear_layers}
        targets = choose.sample(sorted(leaves), choose.randint(1, len(leaves) - 1)) if some else "all-linear"
        yield {
            "model": model, "depth": choose.choice(DEPTHS), "tokens": min(tokens, _positions(source.config, tokens)),
            "rows": choose.choice((1, 2, 4)), "packing": False, "attention": "sdpa", "loss": "tiled",
            "accumulate": choose.choice((1, 16)), "rank": choose.choice((8, 16, 64)),
            "dropout": choose.choice((0.0, 0.05)), "recipe": "lean", "checkpointing": choose.choice(("on", "off")),
            "double_quantization": True, "optimizer": "paged_adamw_8bit", "kind": kind, "targets": targets,
        }  # fmt: skip


def _later_cases() -> Iterator[Case]:
    """Families that came after the sample was drawn, and what it lacks of the others."""
    for model, checkpointing, targets in _LATER:
        yield {
            "model": model, "depth": DEPTHS[0], "tokens": 1024, "rows": 2, "packing": False, "attention": "sdpa",
            "loss": "tiled", "accumulate": 16, "rank": 16, "dropout": 0.0 if model in _WITHOUT_DROPOUT else 0.05,
            "recipe": "lean", "checkpointing": checkpointing, "double_quantization": True,
            "optimizer": "paged_adamw_8bit", "kind": "nf4", "targets": targets,
        }  # fmt: skip


def _full_cases() -> Iterator[Case]:
    """Full finetuning of small models of each sampled family."""
    choose = random.Random(_FULL_SEED)  # noqa: S311 - a sample, no secret
    for model in _FULLY_TRAINED * 2:
        source = catalogue.find(model)
        assert source is not None
        yield {
            "model": model, "depth": DEPTHS[0], "tokens": min(1024, _positions(source.config, 1024)),
            "rows": choose.choice((1, 2, 4)), "packing": False, "attention": "sdpa", "loss": "tiled",
            "accumulate": choose.choice((1, 16)), "rank": 16, "dropout": 0.0, "recipe": "lean",
            "checkpointing": choose.choice(("on", "off")), "double_quantization": True,
            "optimizer": choose.choice(("adamw_torch_fused", "paged_adamw_32bit", "paged_adamw_8bit")),
            "kind": "none", "adapter": "full", "dtype": choose.choice(("auto", "bfloat16")),
        }  # fmt: skip


def _positions(keys: Mapping[str, Any], tokens: int) -> int:
    """Most tokens of a row where each position has an embedding of its own."""
    return int(keys.get("n_positions") or keys.get("max_position_embeddings") or tokens)


def _single_rows() -> Iterator[Case]:
    for model, checkpointing, depth in zip(_SINGLE_ROWS * 2, _CHECKPOINTING * 2, DEPTHS * 3, strict=False):
        yield {
            "model": model, "depth": depth, "tokens": 2048, "rows": 1, "packing": False, "attention": "eager",
            "loss": "tiled", "accumulate": 1, "rank": 16, "dropout": 0.05, "recipe": "lean",
            "checkpointing": checkpointing, "double_quantization": True, "optimizer": "paged_adamw_8bit",
        }  # fmt: skip


def run_config(case: Case) -> RunConfig:
    """The case as a run's configuration."""
    return RunConfig.model_validate(
        {
            "model": {"id": case["model"], "attention": case["attention"], "dtype": case.get("dtype", "auto")},
            "quantization": {"double_quantization": case["double_quantization"], "kind": case.get("kind", "nf4")},
            "adapter": {
                "kind": case.get("adapter", "lora"),
                "rank": case["rank"],
                "dropout": case["dropout"],
                "target_modules": case.get("targets", "all-linear"),
            },
            "training": {
                "recipe": case["recipe"],
                "micro_batch_size": case["rows"],
                "gradient_accumulation_steps": case["accumulate"],
                "max_length_tokens": case["tokens"],
                "packing": case["packing"],
                "gradient_checkpointing": case["checkpointing"],
                "optimizer": case["optimizer"],
            },
        }
    )


def workload(case: Case) -> Workload:
    """What the dry run is told beside the configuration."""
    return Workload(
        tokens=case["tokens"],
        padded=case["rows"] > 1 and not case["packing"],
        packed=case["packing"],
    )


def model(case: Case) -> tuple[Any, ModelFacts]:
    """transformers' config and what level 1 knows of the model, both of so many layers as the case says."""
    known = catalogue.find(case["model"])
    assert known is not None
    keys = dict(known.config)
    if case["depth"]:
        layers = "n_layer" if "n_layer" in keys else "num_hidden_layers"
        keys[layers] = min(case["depth"], keys[layers])
        if keys.get("layer_types"):
            keys["layer_types"] = keys["layer_types"][: keys["num_hidden_layers"]]
    return from_keys(keys), assemble(replace(known, config=keys))
