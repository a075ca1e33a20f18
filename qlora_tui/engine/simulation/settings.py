"""What `resolve` would decide on a GPU with bfloat16, on a machine that has none."""

from dataclasses import dataclass, fields
from unittest.mock import patch

import torch

from qlora_tui.config.run import RunConfig
from qlora_tui.engine.resolve import Settings, resolve


@dataclass(slots=True)
class GpuSettings(Settings):
    """Of a GPU that is imitated by CPU tensors."""

    @property
    def autocast_bf16(self) -> bool:
        return self.compute_dtype == torch.bfloat16

    @property
    def autocast_fp16(self) -> bool:
        return self.compute_dtype == torch.float16


def on_gpu(config: RunConfig) -> GpuSettings:
    """The settings of a run on a GPU with bfloat16. Checkpointing left to choose itself is on."""
    training = config.training
    if training.gradient_checkpointing == "auto":
        # The choice depends on free memory, and an estimate must not ask another one.
        training = training.model_copy(update={"gradient_checkpointing": "on"})
    model = config.model.model_copy(update={"device": "cuda"})
    config = config.model_copy(update={"model": model, "training": training})
    with (
        patch("torch.cuda.is_available", lambda: True),
        patch("torch.cuda.is_bf16_supported", lambda **_: True),
        patch("torch.cuda.get_device_capability", lambda *_: (8, 0)),
    ):
        settings = resolve(config)
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return GpuSettings(**values | {"device": torch.device("cpu")})
