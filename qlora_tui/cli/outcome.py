"""How a run ended, as a last line and an exit code."""

from qlora_tui.errors import CancelledError, ExitCode, QloraError, StorageError
from qlora_tui.memory.stored_estimate import StoredEstimate
from qlora_tui.runs.checkpoints import newest_complete
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder
from qlora_tui.terminal import narrate
from qlora_tui.units import disk, memory


def report(follower: Follower) -> None:
    """Say how the run ended. Raises CancelledError, or a QloraError with the exit code of the failure or crash."""
    run, state, status = follower.run, follower.state, follower.status
    if follower.is_removed:
        raise _removed(follower)
    if status == "finished":
        _finished(run, state)
    elif status == "stopped":
        narrate(f"{run.name} stopped at step {state.step_number}; continue with: qlora-tui resume {run.name}")
    elif status == "cancelled":
        raise CancelledError(f"{run.name} was cancelled at step {state.step_number}", hint=how_to_resume(run))
    elif status == "failed" and state.failed is not None:
        failure = QloraError(state.failed.message, hint=state.failed.hint)
        known = state.failed.exit_code in ExitCode.__members__.values()
        failure.exit_code = ExitCode(state.failed.exit_code) if known else ExitCode.INTERNAL
        raise failure
    elif status == "crashed":
        raise QloraError(crash(run, state), hint=how_to_resume(run))
    else:
        narrate(f"{run.name} is {status}")


def _removed(follower: Follower) -> StorageError:
    """Return the error for a folder that was moved or deleted. Its worker ends by itself."""
    name, moved = follower.run.name, follower.moved_to()
    if moved is None:
        return StorageError(
            f"the folder of {name} was moved or deleted while it was followed: {follower.run.path} is gone",
            hint="The worker is ending. If the folder was moved, move it back and resume the run.",
        )
    return StorageError(
        f"the folder of {name} was moved to {moved.path} while it was followed, which ends its worker",
        hint=f"`qlora-tui resume {moved.name}` continues it there.",
    )


def crash(run: RunFolder, state: RunState) -> str:
    """What is known of a worker that died without a last word."""
    where = f" while {state.stage.stage}" if state.stage else ""
    return f"the worker of {run.name} died at step {state.step_number}{where}; its output is in {run.stdio}"


def how_to_resume(run: RunFolder) -> str:
    checkpoint, _ = newest_complete(run.checkpoints, by_content=False)
    origin = f"from step {checkpoint.step}" if checkpoint else "from the start: there is no checkpoint yet"
    return f"`qlora-tui resume {run.name}` continues {origin}."


def _finished(run: RunFolder, state: RunState) -> None:
    finished = state.finished
    if finished is None:
        return
    metrics = "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in finished.metrics.items())
    peak = f", peak memory {memory(finished.peak_bytes)}{_estimated(run)}" if finished.peak_bytes else ""
    narrate(f"{run.name} finished: {finished.step} steps in {finished.train_seconds:.1f} s{metrics}{peak}")
    narrate(f"adapter: {run.adapter} ({disk(finished.adapter_bytes)})")
    narrate(f"talk to it: qlora-tui chat {run.name}")


def _estimated(run: RunFolder) -> str:
    expected = StoredEstimate.of(read_plan(run))
    if expected is None:
        return ""
    said = f"{memory(expected.full_bytes)} estimated"
    return f" ({said} for {expected.covers})" if expected.covers else f" ({said})"
