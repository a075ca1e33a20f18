"""The process environment every engine program sets before it imports the torch stack."""

import os

_DEFAULTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "warning",
    "OMP_WAIT_POLICY": "passive",
}
"""OpenMP threads that wait passively leave the cores to others: on busy cores training is several times faster."""


def prepare(*, allow_download: bool) -> None:
    """Switch telemetry and progress bars off, and every download too unless it was allowed.

    Must run before transformers, huggingface_hub or datasets is imported: they read the environment once.
    """
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    if not allow_download:
        os.environ["HF_HUB_OFFLINE"] = "1"
