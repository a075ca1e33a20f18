"""What plan.json says of the data and the model a run began with, and refusing to resume on others."""

from contextlib import suppress
from typing import Any

from qlora_tui.config.data import SourceSpec
from qlora_tui.config.run import RunConfig
from qlora_tui.data.registry import is_converted
from qlora_tui.errors import DataError, ModelError, QloraError
from qlora_tui.models.identity import weights_fingerprint
from qlora_tui.runs import checksums
from qlora_tui.runs.event_log import EventReader
from qlora_tui.runs.events import DatasetReady, ModelLoaded
from qlora_tui.runs.store import RunFolder


def check_data(run: RunFolder, fingerprint: str, *, resuming: bool, accept: bool) -> None:
    """Raise DataError when a run is resumed on rows or an order other than those it began with."""
    began_with = identity(run).get("data_fingerprint")
    if resuming and not accept and began_with not in (None, fingerprint):
        raise DataError(
            f"the dataset of run {run.name!r} has changed since it started",
            hint="Restore the data, or continue with the changed rows: `qlora-tui resume --accept-changed-data`.",
        )


def check_base(run: RunFolder, config: RunConfig, *, resuming: bool) -> None:
    """Keep which weights the run begins with. Raises ModelError when it is resumed on others."""
    found = weights_fingerprint(config.model)
    if resuming and found not in (None, identity(run).get("model_fingerprint", found)):
        raise ModelError(
            f"the weights of {config.model.id} are not those that run {run.name!r} began with",
            hint=f"Bring them back, or train a new run with the same settings: `qlora-tui train {run.config}`.",
        )
    if found is not None:
        record(run, model_fingerprint=found)


def has_other_base(run: RunFolder, config: RunConfig) -> bool:
    """Whether the model's folder holds other weights than those the run began with. Raises ModelError.

    The bundled starter changes with the program; what is on the hub is held to its commit instead (`pinned`).
    """
    began_with = identity(run).get("model_fingerprint")
    return began_with is not None and weights_fingerprint(config.model) not in (None, began_with)


def identity(run: RunFolder) -> dict[str, Any]:
    """Return plan.json; if it is missing or damaged, the data and model facts from the run's events."""
    try:
        return checksums.read_json(run.plan)
    except (OSError, ValueError):
        return _from_events(run)


def _from_events(run: RunFolder) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for event in EventReader(run.events).read():
        if isinstance(event, ModelLoaded):
            facts |= {"model_fingerprint": event.fingerprint, "model_commit": event.commit}
        elif isinstance(event, DatasetReady):
            report = event.report
            facts |= {"data_fingerprint": report.get("fingerprint"), "data_commits": report.get("commits")}
    return {key: value for key, value in facts.items() if value is not None}


def check_plan(run: RunFolder, *, resuming: bool, accept: bool) -> str | None:
    """Rebuild plan.json from the run's events if it is missing or damaged. Return a description of the repair.

    Raises DataError when a run is resumed and its original data and model are unknown.
    """
    try:
        checksums.read_json(run.plan)
        return None
    except FileNotFoundError:
        problem = f"{run.plan.name} of run {run.name!r} is missing"
    except (OSError, ValueError) as error:
        problem = f"{run.plan.name} of run {run.name!r} is damaged: {checksums.reason(error)}"
    facts = _from_events(run)
    known = "data_fingerprint" in facts and facts.keys() & {"model_fingerprint", "model_commit"}
    if resuming and not known and not accept:
        raise DataError(
            f"{problem}; it is unknown whether data and model have changed",
            hint=f"Restore the file, or accept the current data and model: "
            f"`qlora-tui resume {run.name} --accept-changed-data`.",
        )
    with suppress(QloraError):
        facts["config"] = run.load_config().model_dump(mode="json")
    checksums.write_json(run.plan, facts)
    return f"{problem}. It was rebuilt from the data and model recorded in the events; the estimate is lost."


def record(run: RunFolder, **facts: Any) -> None:
    """Add facts that became known only while the run was prepared to plan.json."""
    plan = identity(run)
    if any(plan.get(key) != value for key, value in facts.items()):
        checksums.write_json(run.plan, {**plan, **facts})


def pinned(run: RunFolder, config: RunConfig) -> RunConfig:
    """The configuration with the model's commit that the run began with: a branch may have moved on since."""
    commit = identity(run).get("model_commit")
    if not isinstance(commit, str):
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"revision": commit})})


def pinned_data(run: RunFolder, config: RunConfig) -> RunConfig:
    """The configuration with the commits of the hub sets that the run began with.

    Left as they are: converted copies, whose branch says how they are laid out; a set that is mixed with another
    revision of itself; and a separate `data.eval_source`, which has no revision.
    """
    commits = identity(run).get("data_commits")
    data = config.data
    sources = (data, *data.mix)
    if not isinstance(commits, dict):
        return config

    def commit_of(spec: SourceSpec) -> str | None:
        alone = len({other.revision for other in sources if other.source == spec.source}) == 1
        commit = commits.get(spec.source)
        return commit if alone and isinstance(commit, str) and not is_converted(spec) else spec.revision

    mix = [spec.model_copy(update={"revision": commit_of(spec)}) for spec in data.mix]
    changed = data.model_copy(update={"revision": commit_of(data), "mix": mix})
    return config.model_copy(update={"data": changed})


def read_plan(run: RunFolder) -> dict[str, Any]:
    """Return plan.json, or an empty dict when it is missing or damaged, so that displays do not fail.

    Without the copy of the configuration, which is read from run.toml.
    """
    try:
        plan = checksums.read_json(run.plan)
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in plan.items() if key != "config"}
