"""Two real training steps on the longest batch, and what they took: `python -m qlora_tui.engine.probe`.

Reads {"config": ..., "tokens": ...} as JSON from stdin. Writes one JSON object a line to stdout: {"stage": ...} while
it works, and at last {"result": ...} or {"error": ..., "hint": ..., "exit_code": ...}. Nothing is kept.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from qlora_tui import limits
from qlora_tui.engine import environment
from qlora_tui.errors import ExitCode, QloraError

_STEPS = 2


def main() -> int:
    request = json.load(sys.stdin)
    environment.prepare(allow_download=False)
    environment.choose_gpu(request["config"]["model"]["device"])
    limits.last_words = _report
    try:
        _tell({"stage": "importing"})
        _tell({"result": _measured(request["config"], int(request["tokens"]))})
    except QloraError as error:
        _report(error)
        return error.exit_code
    return ExitCode.OK


def _report(error: QloraError) -> None:
    _tell({"error": error.message, "hint": error.hint, "exit_code": int(error.exit_code)})


def _tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _measured(settings: dict[str, Any], tokens: int) -> dict[str, Any]:
    import torch

    from qlora_tui.config.run import RunConfig
    from qlora_tui.engine import oom
    from qlora_tui.engine.resolve import resolve_to_train

    config = _short(RunConfig.model_validate(settings))
    chosen = resolve_to_train(config)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _train(config, chosen, tokens, Path(folder))
    except (RuntimeError, MemoryError) as error:
        if not oom.is_out_of_memory(error):
            raise
        raise oom.Exhausted(config, chosen.gradient_checkpointing, chosen.device) from error
    on_gpu = chosen.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(chosen.device) if on_gpu else "RAM",
        "kind": chosen.device.type,
        "peak_bytes": oom.peak_bytes(chosen.device),
        "reserved_bytes": int(torch.cuda.max_memory_reserved(chosen.device)) if on_gpu else 0,
        "context_bytes": _context_bytes(chosen.device) if on_gpu else 0,
        "gradient_checkpointing": chosen.gradient_checkpointing,
        "rows": config.training.micro_batch_size,
        "row_tokens": tokens,
    }


def _short(config: Any) -> Any:
    """The run cut to two steps; accumulation stays accumulation, but of two batches."""
    spec = config.training
    changes = {
        "max_steps": _STEPS,
        "gradient_accumulation_steps": min(2, spec.gradient_accumulation_steps),
        "eval_every_steps": None,
        "best_checkpoint": False,
        "early_stopping_evals": None,
        "group_by_length": False,  # rows are as long as they get already
        "trackers": [],
    }
    return config.model_copy(update={"training": spec.model_copy(update=changes)})


def _train(config: Any, settings: Any, tokens: int, folder: Path) -> None:
    from datasets import Dataset
    from transformers import set_seed
    from transformers.trainer_utils import SaveStrategy

    from qlora_tui.engine import adapters, loading
    from qlora_tui.engine.trainer import make_trainer

    set_seed(config.training.seed)
    tokenizer = loading.load_tokenizer(config.model)
    _tell({"stage": "loading"})
    base = loading.load_model(config, settings, tokenizer)
    vocabulary = base.get_input_embeddings().weight.shape[0]
    model = adapters.attach(base, config, settings)
    rows = config.training.micro_batch_size * config.training.gradient_accumulation_steps * _STEPS
    ids = [[(row * 7 + place) % vocabulary for place in range(tokens)] for row in range(rows)]
    data = Dataset.from_dict({"input_ids": ids, "labels": ids, "length": [tokens] * rows})
    _tell({"stage": "training"})
    trainer = make_trainer(model, tokenizer, data, None, config, settings, folder)
    trainer.args.save_strategy = SaveStrategy.NO  # else a checkpoint is written after the last step
    trainer.train()


def _context_bytes(device: Any) -> int:
    """What the card holds beside PyTorch's own memory: this process's context, if no other uses the card."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return max(0, int(total - free - torch.cuda.memory_reserved(device)))


if __name__ == "__main__":
    sys.exit(main())
