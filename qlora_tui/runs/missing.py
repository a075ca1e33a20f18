"""What a run would have to download before it can train. Asked before anybody is asked for a yes.

`python -m qlora_tui.runs.missing` answers the same for a process that must stay light.
"""

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from qlora_tui.config.data import SourceSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.data.downloads import Download
from qlora_tui.data.splits import Purpose
from qlora_tui.runs import precheck
from qlora_tui.units import disk


def missing_downloads(config: RunConfig, *, to_train: bool = True) -> list[Download]:
    """The model and the data that are not on this machine, with size and destination; nothing is downloaded here.

    With `to_train` a run that could not train after its downloads is refused. Raises ModelError, DataError or
    NotFoundError for unavailable files, and the errors of the checks.
    """
    from qlora_tui.data.sources import find_source
    from qlora_tui.models.folder import location
    from qlora_tui.models.hub import missing_download

    if to_train:
        precheck.check_trackers(config.training.trackers)
        precheck.check_module_names(config)
    location(config.model)
    model = missing_download(config.model)
    found = [] if model is None else [model]

    class Asked(Exception):
        """Ends the search for a source at the question, so that nothing is downloaded here."""

    def ask(download: Download) -> bool:
        found.append(download)
        raise Asked

    wanted: list[tuple[SourceSpec, Purpose]] = [(spec, "train") for spec in (config.data, *config.data.mix)]
    if config.data.eval_spec is not None:
        wanted.append((config.data.eval_spec, "eval"))
    for spec, purpose in wanted:
        with suppress(Asked):
            streaming = config.data.streaming and purpose == "train"
            find_source(spec, purpose, streaming=streaming, consent=ask, on_progress=None)
    if to_train and found:
        precheck.check(config, found)
    return found


def sentence(download: Download) -> str:
    """What would be downloaded, how much of it, and where to."""

    return f"{download.what} is not on this machine: {disk(download.size_bytes)} would go to {download.destination}"


def main() -> None:
    """Answer for one configuration: JSON of a RunConfig on stdin, JSON of what is missing or of the error on stdout."""
    from qlora_tui.errors import QloraError

    # Libraries may print; stdout holds the answer alone.
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        config = RunConfig.model_validate_json(sys.stdin.read())
        found = [asdict(one) | {"destination": str(one.destination)} for one in missing_downloads(config)]
        answer: dict[str, Any] = {"downloads": found}
    except QloraError as error:
        answer = {"message": error.message, "hint": error.hint}
    out.write(json.dumps(answer))


if __name__ == "__main__":
    main()
