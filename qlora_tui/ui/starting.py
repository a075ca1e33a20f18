"""Starting a run from the screen: the same steps as the command's, in a thread of the app."""

from qlora_tui.config.run import RunConfig
from qlora_tui.runs import jobs, queue
from qlora_tui.runs.creation import create
from qlora_tui.runs.freeze import frozen
from qlora_tui.runs.store import RunFolder
from qlora_tui.ui.messages import StartRequested


def start(wanted: StartRequested) -> RunFolder:
    """Create the run's folder and start its worker. Blocks until the worker's first event; raises QloraError."""
    run = create(frozen(wanted.config), wanted.name, wanted.preset, estimate=wanted.estimate)
    jobs.start(run, allow_download=wanted.allow_download)
    return run


def enqueue(config: RunConfig, preset: str, *, allow_download: bool) -> str:
    """Create the folder of a run that waits for its turn; returns its name. Blocking; raises QloraError."""
    run = create(frozen(config), None, preset)
    queue.add(run.name, allow_download=allow_download)
    queue.ensure_running()
    return run.name
