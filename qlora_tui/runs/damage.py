"""Find damaged files of a run and what can still be used. Only reads files."""

from pathlib import Path

from qlora_tui.errors import ModelError, StorageError
from qlora_tui.runs import checkpoints, checksums, log_length
from qlora_tui.runs.checksums import reason
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

ADAPTER_LIST = "checksums.json"
"""In an adapter's folder: its files with sizes and checksums, except those that users may edit."""


def found(run: RunFolder, state: RunState, *, by_content: bool = False) -> list[str]:
    """One sentence for each damaged file. Without `by_content` the adapter is compared by the sizes of its files."""
    said = [_config(run), _plan(run, state), _events(run, state), of_adapter(run, by_content=by_content)]
    return [sentence for sentence in said if sentence]


def _config(run: RunFolder) -> str:
    try:
        run.check_config()
    except (OSError, ValueError) as error:
        used = "The copy of the settings in plan.json is used if it is intact."
        return f"run.toml is damaged: {reason(error)}. {used}"
    return ""


def _plan(run: RunFolder, state: RunState) -> str:
    try:
        checksums.read_json(run.plan)
    except FileNotFoundError:
        return "plan.json is missing. The identity of data and model is taken from the events." if state.attempt else ""
    except (OSError, ValueError) as error:
        return f"plan.json is damaged: {reason(error)}. The identity of data and model is taken from the events."
    return ""


def _events(run: RunFolder, state: RunState) -> str:
    truncated = log_length.truncated_lines(run, state.last_line)
    parts = [
        f"{_lines(state.damaged_lines)} damaged and skipped" if state.damaged_lines else "",
        f"{_lines(state.missing_lines)} missing" if state.missing_lines else "",
        f"{_lines(truncated)} missing at the end, where the worker had ended" if truncated else "",
    ]
    found = ", ".join(filter(None, parts))
    return f"events.jsonl is damaged: {found}. Checkpoints and adapter are not affected." if found else ""


def _lines(number: int) -> str:
    return "1 line is" if number == 1 else f"{number:,} lines are"


def of_adapter(run: RunFolder, *, by_content: bool) -> str:
    """Return what is wrong with the adapter and what can be used instead; empty if it is intact or missing."""
    if not run.adapter.is_dir():
        return ""
    try:
        problem = checksums.why_damaged(run.adapter, ADAPTER_LIST, by_content=by_content)
    except FileNotFoundError:  # saved before there were checksums
        return ""
    except OSError as error:
        problem = f"{error.filename} cannot be read: {error.strerror}"
    return f"The adapter is damaged: {problem}. {_whole(run)}" if problem else ""


def adapter_files(run: RunFolder) -> list[Path]:
    """Return the paths of the weights of the adapter and of its list of checksums, whether they exist or not."""
    return [run.adapter / "adapter_model.safetensors", run.adapter / ADAPTER_LIST]


def check_adapter(run: RunFolder, folder: Path) -> None:
    """Raise ModelError when the adapter in `folder` is damaged, StorageError when it cannot be read."""
    try:
        problem = checksums.why_damaged(folder, ADAPTER_LIST, by_content=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot read {error.filename}: {error.strerror}", hint="Check the disk.") from error
    if problem:
        raise ModelError(f"the adapter in {folder} is damaged: {problem}", hint=_whole(run))


def _whole(run: RunFolder) -> str:
    """Return what can be used instead of the adapter."""
    try:
        whole, _ = checkpoints.newest_complete(run.checkpoints)
    except StorageError:
        whole = None
    if whole is None:
        return "There is no intact checkpoint. Train again with the same settings."
    return f"The checkpoint of step {whole.step} is intact: use it with --checkpoint {whole.step}."
