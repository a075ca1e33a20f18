"""Detect models that cannot be fine-tuned, from the first keys of config.json, before any download."""

from collections.abc import Mapping
from typing import Any

from qlora_tui.errors import ModelError

OTHER_HEADS = ("ForMaskedLM", "ForPreTraining", "Classification", "ForQuestionAnswering", "ForMultipleChoice")
"""Name suffixes of architectures that do not generate text."""

_ENCODER_DECODERS = {
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "encoder-decoder", "fsmt", "led", "longt5", "m2m_100",
    "marian", "mbart", "moonshine", "mt5", "mvp", "nllb-moe", "pegasus", "pegasus_x", "plbart", "prophetnet",
    "seamless_m4t", "speech-encoder-decoder", "speecht5", "switch_transformers", "t5", "t5gemma", "t5gemma2", "udop",
    "umt5", "vision-encoder-decoder", "whisper",
}  # fmt: skip
_ENCODERS = {
    "albert", "beit", "bert", "camembert", "clap", "clip", "convnext", "deberta", "deberta-v2", "deit", "detr",
    "dinov2", "distilbert", "electra", "ernie", "esm", "flaubert", "fnet", "hubert", "layoutlm", "longformer",
    "modernbert", "mpnet", "nomic_bert", "rembert", "resnet", "roberta", "sam", "segformer", "siglip", "squeezebert",
    "swin", "vit", "wav2vec2", "wavlm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
_HINT = "Choose a model that continues text, such as Llama, Qwen, Gemma or Mistral."


def why(config: Mapping[str, Any]) -> str | None:
    """Return why a model with this (partial) config.json cannot be fine-tuned, or None."""
    model_type = config.get("model_type")
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else ""
    if config.get("is_encoder_decoder") is True or model_type in _ENCODER_DECODERS:
        return "is an encoder-decoder model, which cannot be trained here"
    if isinstance(architecture, str) and architecture.endswith(OTHER_HEADS):
        return f"is saved as {architecture}, which does not write text: a head that does would start untrained"
    if model_type in _ENCODERS and not str(architecture).endswith(("LMHeadModel", "ForCausalLM")):
        return f"is an encoder ({model_type}), which does not write text"
    return None


def refuse(config: Mapping[str, Any], origin: object) -> None:
    """Raise ModelError when the model cannot be fine-tuned."""
    reason = why(config)
    if reason is not None:
        raise ModelError(f"{origin} {reason}", hint=_HINT)
