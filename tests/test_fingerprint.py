"""A resumed run reads the data of the commits it began with."""

from qlora_tui.config.run import RunConfig
from qlora_tui.runs import store
from qlora_tui.runs.fingerprint import pinned_data, record


def config(**data: object) -> RunConfig:
    return RunConfig.model_validate({"data": data})


def pinned(config: RunConfig, commits: dict[str, str]) -> list[str | None]:
    """The revision of the main source and of each mixed one."""
    run = store.create("one", config, {})
    record(run, data_commits=commits)
    data = pinned_data(run, config).data
    return [data.revision, *(spec.revision for spec in data.mix)]


def test_each_hub_set_is_read_at_the_commit_the_run_began_with() -> None:
    mixed = config(source="some/rows", revision="v1", mix=[{"source": "other/rows"}, {"source": "/rows.jsonl"}])
    assert pinned(mixed, {"some/rows": "a" * 40, "other/rows": "b" * 40}) == ["a" * 40, "b" * 40, None]


def test_evaluation_rows_of_the_same_set_are_of_the_same_commit() -> None:
    held_out = config(source="some/rows", eval_split="test")
    run = store.create("one", held_out, {})
    record(run, data_commits={"some/rows": "a" * 40})
    spec = pinned_data(run, held_out).data.eval_spec
    assert spec is not None
    assert spec.revision == "a" * 40


def test_a_set_mixed_with_another_revision_of_itself_keeps_both() -> None:
    twice = config(source="some/rows", revision="v1", mix=[{"source": "some/rows", "revision": "v2"}])
    assert pinned(twice, {"some/rows": "a" * 40}) == ["v1", "v2"]


def test_converted_copies_keep_their_branch_which_says_how_they_are_laid_out() -> None:
    converted = config(source="self-instruct", mix=[{"source": "a/b", "revision": "refs/convert/parquet"}])
    assert pinned(converted, {"self-instruct": "a" * 40, "a/b": "b" * 40}) == [None, "refs/convert/parquet"]


def test_a_new_or_damaged_run_reads_what_its_configuration_says() -> None:
    assert pinned(config(source="some/rows"), {}) == [None]
