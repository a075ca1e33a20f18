"""The product's own trainer around a model without data: two made-up rows and a tokenizer of three words."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from qlora_tui.config.run import RunConfig
from qlora_tui.engine.resolve import Settings
from qlora_tui.engine.trainer import make_trainer

_WORDS = {"<pad>": 0, "<eos>": 1, "word": 2}


def stub_trainer(model: Any, config: RunConfig, settings: Settings, output: Path) -> Any:
    """A trainer ready for `training_step`. Its attribute `prepared` is the model as the training loop calls it."""
    words = Tokenizer(WordLevel(_WORDS, unk_token="word"))  # noqa: S106 - a token of a vocabulary, no secret
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")  # noqa: S106
    rows = Dataset.from_dict({"input_ids": [[2, 1]] * 2, "labels": [[2, 1]] * 2})
    # Packing and grouping only change the rows, which are given to the step directly.
    quiet = {"packing": False, "group_by_length": False, "trackers": [], "best_checkpoint": False}
    config = config.model_copy(update={"training": config.training.model_copy(update=quiet)})
    trainer = make_trainer(model, tokenizer, rows, None, config, settings, output)
    if settings.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs
        )
    trainer.current_gradient_accumulation_steps = config.training.gradient_accumulation_steps
    trainer.model.train()
    trainer.prepared = trainer.accelerator.prepare_model(trainer.model)
    return trainer
