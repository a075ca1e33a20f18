"""What Setup says of a draft in a line, and where a draft comes from and is saved to."""

from pathlib import Path

from qlora_tui.config import presets
from qlora_tui.config.adoption import Adopted
from qlora_tui.config.command_line import text_of
from qlora_tui.config.differences import differences
from qlora_tui.config.fields import fields, value
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError, QloraError
from qlora_tui.memory import trainable
from qlora_tui.models.facts import ModelFacts
from qlora_tui.ui.screens.setup_dialogs import Beginning
from qlora_tui.units import count

_EDITED = ", edited"
_TOLD = 6
"""Maximum number of settings named in a message."""


def section_of(key: str) -> str:
    """The section in which a setting is edited."""
    table = key.partition(".")[0]
    return "adapter" if table == "quantization" else table


def summaries(config: RunConfig, facts: ModelFacts | None, data_format: str) -> dict[str, str]:
    """One line for each section."""
    return {
        "model": _model(config, facts),
        "adapter": _adapter(config, facts),
        "data": _data(config, data_format),
        "training": _training(config),
    }


def _model(config: RunConfig, facts: ModelFacts | None) -> str:
    said = [config.model.id]
    if facts is not None:
        said += [f"{count(facts.parameters)} parameters", facts.model_type, facts.licence or "licence not stated"]
    if config.model.device != "auto":
        said.append(f"on {config.model.device}")
    return ", ".join(said)


def _adapter(config: RunConfig, facts: ModelFacts | None) -> str:
    quantization, adapter = config.quantization, config.adapter
    kind = {"none": "16/32-bit", "8bit": "8-bit"}.get(quantization.kind, quantization.kind)
    double = " double" if quantization.is_four_bit and quantization.double_quantization else ""
    if adapter.kind == "full":
        return f"{kind}, every weight is trained"
    targets = adapter.target_modules
    on = targets if isinstance(targets, str) else f"{len(targets)} kinds of layers"
    variants = [name for name, used in (("DoRA", adapter.dora), ("rsLoRA", adapter.rank_stabilized)) if used]
    trained = ""
    if facts is not None:
        trained = f", {count(trainable.parameters(trainable.tensors(facts, adapter, 2)))} trained"
    return ", ".join([f"{kind}{double}", f"LoRA rank {adapter.rank} on {on}{trained}", *variants])


def _data(config: RunConfig, data_format: str) -> str:
    data = config.data
    said = [data.source, data_format if data.format == "auto" else data.format]
    said.append(f"rows up to {config.training.max_length_tokens:,} tokens")
    if data.mix:
        said.append(f"mixed with {len(data.mix)} more")
    if data.has_evaluation:
        said.append("with evaluation")
    return ", ".join(text for text in said if text)


def _training(config: RunConfig) -> str:
    training = config.training
    batch = f"batch {training.micro_batch_size} x {training.gradient_accumulation_steps}"
    length = f"{training.max_steps:,} steps" if training.max_steps is not None else f"{training.epochs:g} epochs"
    if training.max_steps is None and training.epochs == 1:
        length = "1 epoch"
    return f"{batch}, {length}, learning rate {training.learning_rate:g} {training.schedule}, {training.optimizer}"


def edited(source: str) -> str:
    """The source of a draft that was changed."""
    return source if source.endswith(_EDITED) else source + _EDITED


def unedited(source: str) -> str:
    """The source of a draft."""
    return source.removesuffix(_EDITED)


def base_of(source: str) -> RunConfig | None:
    """Return the initial configuration of a draft; None if it can no longer be read."""
    kind, _, name = unedited(source).partition(" ")
    if kind == "defaults":
        return RunConfig()
    try:
        return load(Beginning(kind, name, ""))
    except QloraError:
        return None


def told_adopted(before: RunConfig, adopted: Adopted) -> str:
    """Describe which settings changed with the model, and which edits were kept."""
    changed = [key for key in differences([before, adopted.config]) if key != "model.id"]
    shown = [f"{_short(key)} = {text_of(fields()[key], value(adopted.config, key)) or 'empty'}" for key in changed]
    more = f" and {len(shown) - _TOLD} more" if len(shown) > _TOLD else ""
    said = [f"Changed: {', '.join(shown[:_TOLD])}{more}." if shown else "No other setting changed."]
    if adopted.kept:
        said.append(f"Your edits were kept: {', '.join(map(_short, adopted.kept[:_TOLD]))}.")
    return " ".join([*said, "Press Ctrl+Z to undo."])


def _short(key: str) -> str:
    return key.partition(".")[2]


def preset_of(source: str) -> str | None:
    """The preset that a draft began from, if it did."""
    kind, _, name = unedited(source).partition(" ")
    return name if kind == "preset" and name else None


def suggested_run_name(config: RunConfig, source: str) -> str:
    """Default name of the run."""
    from qlora_tui.runs.creation import suggested_name

    return suggested_name(config, preset_of(source))


def run_name_problem(name: str) -> str:
    """Why a run cannot be called that; empty when it can, or when it is not named."""
    from qlora_tui import paths
    from qlora_tui.runs import store

    if not name:
        return ""
    try:
        store.check_name(name)
    except QloraError as error:
        return f"{error.message}. {error.hint}"
    return "there is a run of that name already" if (paths.runs() / name).exists() else ""


def title_of(preset: presets.Preset) -> str:
    """What the preset is for, or why its file cannot be read."""
    try:
        return preset.title
    except QloraError as error:
        return error.message


def beginnings() -> list[Beginning]:
    """The user's own presets, the shipped ones, then every run, the newest first."""
    from qlora_tui.runs import store

    ordered = sorted(presets.presets(), key=lambda preset: preset.origin != "user")
    found = [
        Beginning("preset", preset.name, ("yours: " if preset.origin == "user" else "") + title_of(preset))
        for preset in ordered
    ]
    return found + [Beginning("run", run.name, "its frozen configuration") for run in store.all_runs()]


def load(beginning: Beginning) -> RunConfig:
    """Return the configuration of a preset, or of a run as it trained last. Reads its log. Raises QloraError."""
    from qlora_tui.runs import extension, jobs, store

    if beginning.kind == "preset":
        return presets.find(beginning.name).config
    run = store.find(beginning.name)
    return extension.current_config(run, jobs.replay(run))


def name_problem(name: str) -> str:
    """Why a preset cannot be called that; empty when it can."""
    try:
        presets.user_path(name.strip())
    except ConfigError as error:
        return f"{error.message}. {error.hint}"
    return ""


def is_own_preset(name: str) -> bool:
    """Whether the user has a preset of that name."""
    return not name_problem(name) and presets.user_path(name.strip()).exists()


def save(config: RunConfig, name: str, *, replace: bool) -> Path:
    """Write the draft as a preset of the user's own, with absolute paths. Raises QloraError."""
    from qlora_tui.config.toml_file import to_toml
    from qlora_tui.runs.freeze import frozen

    comment = f"{name}: {config.model.id} on {config.data.source}"
    return presets.write(name, to_toml(frozen(config), sparse=True, comment=comment), replace=replace)
