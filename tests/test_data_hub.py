"""Hub datasets through the real hub libraries, from a server on this machine that serves rows of the same schemas."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer

from qlora_tui.data.registry import KNOWN

PROGRAM = """
import json, sys
from qlora_tui.config.data import SourceSpec
from qlora_tui.data.load import load_source, to_example
from qlora_tui.errors import QloraError

def answer(request):
    asked, told = [], []
    def consent(download):
        asked.append([download.what, download.size_bytes, str(download.destination)])
        return request["yes"]
    spec = SourceSpec(**request["spec"])
    try:
        loaded = load_source(spec, consent=consent, on_progress=lambda *now: told.append(now), **request["options"])
        rows = [to_example(row) for row in loaded.dataset]
        made = {
            "turns": [[turn["content"] for turn in row.turns] for row in rows],
            "text": [row.text for row in rows],
            "format": loaded.detection.format,
            "fingerprint": loaded.fingerprint,
            "commit": loaded.commit,
        }
    except QloraError as error:
        made = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    return {**made, "asked": asked, "told": told}

print(json.dumps([answer(request) for request in json.loads(sys.argv[1])]))
"""


class Repositories:
    """Writes the repositories that the server serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, content: bytes | str) -> None:
        path = self.folder / "datasets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def jsonl(self, name: str, rows: list[Any]) -> None:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        self.put(name, gzip.compress(content) if name.endswith(".gz") else content)

    def parquet(self, name: str, rows: list[Any]) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        self.put(name, sink.getvalue().to_pybytes())


def _fill(repositories: Repositories) -> None:
    """The known sets with the columns and file layout they have on the hub."""
    put, jsonl, parquet = repositories.put, repositories.jsonl, repositories.parquet
    guanaco = "timdettmers/openassistant-guanaco/openassistant_best_replies"
    jsonl(f"{guanaco}_train.jsonl", [{"text": f"### Human: q{n}### Assistant: a{n}"} for n in range(4)])
    jsonl(f"{guanaco}_eval.jsonl", [{"text": "### Human: held### Assistant: out"}])
    # Contents differ from file to file, since the hub library fetches equal ones only once.
    pair = {"chosen": "\n\nHuman: q0\n\nAssistant: a0", "rejected": "\n\nHuman: q0\n\nAssistant: no"}
    for part in ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"):
        for split in ("train", "test"):
            jsonl(
                f"Anthropic/hh-rlhf/{part}/{split}.jsonl.gz",
                [{**pair, "rejected": f"{pair['rejected']} {part} {split}"}],
            )
    jsonl("Anthropic/hh-rlhf/red-team-attempts/red_team_attempts.jsonl.gz", [{"transcript": "x"}])
    put("Anthropic/hh-rlhf/README.md", "---\nlicense: mit\n---\n# A card\n")
    alpaca = [{"instruction": "q0", "input": "", "output": "a0"}] * 3
    parquet("tatsu-lab/alpaca/data/train-00000-of-00001-a09b.parquet", [{**row, "text": "all"} for row in alpaca])
    put("yahma/alpaca-cleaned/alpaca_data_cleaned.json", json.dumps(alpaca, indent=4))
    put("yizhongw/self_instruct/self_instruct.py", "raise SystemExit('this must never run')\n")
    completion = [{"prompt": "q0", "completion": "a0"}] * 3
    converted = "yizhongw/self_instruct@refs--convert--parquet"
    parquet(f"{converted}/self_instruct/train/0000.parquet", completion)
    parquet(f"{converted}/p3/train/0000.parquet", [{"prompt": "other", "completion": "other"}] * 9)
    for split in ("train", "validation", "test"):
        row = {"input": "q0", "output": "a0", "source": "C4", "subset": "c4"}
        parquet(f"akoksal/LongForm/data/{split}-00000-of-00001-cd5b.parquet", [row] * 3)
    jsonl("laion/OIG/unified_chip2.jsonl", [{"text": "<human>: q0\n<bot>: a0", "metadata": {"source": "chip2"}}] * 3)
    jsonl("laion/OIG/unified_other.jsonl", [{"text": "other", "metadata": {"source": "other"}}] * 9)
    instance = {"instruction_with_input": "q0", "input": "x", "constraints": "None.", "output": "a0"}
    again = {"instruction": "r", "instruction_with_input": "q1", "input": "x", "output": "a1"}
    nested = {"instruction": "i", "instances": [instance], "reformulations": [again]}
    parquet("mrm8488/unnatural-instructions-full/data/train-00000-of-00001-84cd.parquet", [nested] * 3)
    for part in range(2):
        row = {
            "prompt": "q0",
            "completion": "a0",
            "task_source": "x",
            "task_name": f"part {part}",
            "template_type": "z",
        }
        parquet(f"itay1itzhak/flan_2022_350k/data/train-{part:05}-of-00002.parquet", [row] * 2)


def _fill_difficult(repositories: Repositories) -> None:
    """Sets that cannot be had as they are named, or only with a config."""
    put, jsonl = repositories.put, repositories.jsonl
    completion = [{"prompt": "q0", "completion": "a0"}] * 3
    jsonl("closed/gated/train.jsonl", completion)
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.jsonl\n"
        for name in ("small", "large")
    )
    put("many/configs/README.md", f"---\nconfigs:\n{configs}---\n")
    jsonl("many/configs/small.jsonl", completion)
    jsonl("many/configs/large.jsonl", completion * 2)
    put("only/pictures/image.png", b"\x89PNG")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("hub")
    _fill(Repositories(folder))
    _fill_difficult(Repositories(folder))
    with HubServer(folder, gated=("closed/gated",)) as server:
        yield server


def _environment(hub: HubServer, folder: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "QLORA_TUI_HOME": str(folder / "home"),
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "NO_PROXY": "*",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


@pytest.fixture
def environment(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    hub.requests.clear()
    return _environment(hub, tmp_path)


def load_all(environment: dict[str, str], requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Load in a process of its own: the hub library reads its environment once, at import."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(requests)],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def load(environment: dict[str, str], source: str, *, yes: bool = True, **rest: Any) -> dict[str, Any]:
    options = {key: rest.pop(key) for key in ("sample_rows", "streaming", "purpose") if key in rest}
    return load_all(environment, [{"spec": {"source": source, **rest}, "yes": yes, "options": options}])[0]


EXPECTED = {
    "oasst1": ("guanaco", 4, "### Human: q0### Assistant: a0"),
    "hh-rlhf": ("hh-rlhf", 4, "\n\nHuman: q0\n\nAssistant: a0"),
    "alpaca": ("alpaca", 3, ["q0", "a0"]),
    "alpaca-clean": ("alpaca", 3, ["q0", "a0"]),
    "self-instruct": ("prompt-completion", 3, ["q0", "a0"]),
    "longform": ("input-output", 3, ["q0", "a0"]),
    "chip2": ("chip2", 3, ["q0", "a0"]),
    "unnatural-instructions": ("input-output", 6, ["q0", "a0"]),
    "flan-v2": ("prompt-completion", 4, ["q0", "a0"]),
}


def test_every_known_set_has_an_expectation_here() -> None:
    assert set(EXPECTED) == set(KNOWN)


@pytest.fixture(scope="module")
def known_sets(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    requests = [{"spec": {"source": name}, "yes": True, "options": {}} for name in EXPECTED]
    answers = load_all(_environment(hub, tmp_path_factory.mktemp("known")), requests)
    return dict(zip(EXPECTED, answers, strict=True))


@pytest.mark.parametrize("name", EXPECTED)
def test_each_known_set_loads_with_its_mapping(known_sets: dict[str, dict[str, Any]], name: str) -> None:
    format_name, rows, expected = EXPECTED[name]
    loaded = known_sets[name]
    assert loaded.get("format") == format_name, loaded
    assert len(loaded["turns"]) == rows
    assert expected in (loaded["turns"][0], loaded["text"][0])
    (what, size_bytes, _) = loaded["asked"][0]
    assert KNOWN[name].hub_id in what
    assert size_bytes > 0
    assert ["downloading", size_bytes, size_bytes] in loaded["told"]


def test_nothing_is_fetched_without_a_yes(hub: HubServer, environment: dict[str, str]) -> None:
    refused = load(environment, "alpaca", yes=False)
    assert refused["error"] == "DataError"
    assert "would be downloaded" in refused["message"]
    assert "kB" in refused["message"]
    assert "--yes" in refused["hint"]
    assert not [line for line in hub.file_requests() if "train-" in line]


def test_the_second_load_asks_for_nothing_and_works_offline(hub: HubServer, environment: dict[str, str]) -> None:
    wanted = {"spec": {"source": "alpaca"}, "options": {}}
    first, again = load_all(environment, [{**wanted, "yes": True}, {**wanted, "yes": False}])
    assert again["turns"] == first["turns"]
    assert again["fingerprint"] == first["fingerprint"]
    assert (len(first["asked"]), again["asked"]) == (1, [])
    hub.requests.clear()
    offline = load({**environment, "HF_HUB_OFFLINE": "1"}, "alpaca", yes=False)
    assert offline["turns"] == first["turns"]
    assert offline["commit"] == first["commit"] and f"at {first['commit'][:12]} " in first["asked"][0][0]
    assert hub.requests == []


def test_a_downloaded_set_works_offline_without_our_own_cache(environment: dict[str, str], tmp_path: Path) -> None:
    """The hub cache alone is enough: it says which commit a branch is."""
    specs = [{"source": "many/configs", "config": "small"}, {"source": "self-instruct"}]
    first = load_all(environment, [{"spec": spec, "yes": True, "options": {}} for spec in specs])
    shutil.rmtree(tmp_path / "home")
    no = [{"spec": spec, "yes": False, "options": {}} for spec in specs]
    offline = load_all({**environment, "HF_HUB_OFFLINE": "1"}, no)
    assert [one.get("turns") for one in offline] == [one["turns"] for one in first], offline


def test_a_commit_that_was_read_before_is_read_again_without_the_hub(
    hub: HubServer, environment: dict[str, str]
) -> None:
    first = load(environment, "alpaca")
    hub.requests.clear()
    again = load(environment, "alpaca", revision=first["commit"], yes=False)
    assert (again.get("turns"), again["asked"], hub.requests) == (first["turns"], [], [])
    assert again["fingerprint"] == first["fingerprint"]


def test_a_config_that_is_only_partly_here_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    load(environment, "many/configs", config="large")
    shutil.rmtree(tmp_path / "home")
    offline = load({**environment, "HF_HUB_OFFLINE": "1"}, "many/configs", config="large", yes=False)
    assert "small.jsonl" in offline["message"], offline
    assert "not all of it is on this machine" in offline["hint"]


def test_offline_says_what_is_missing(hub: HubServer, environment: dict[str, str]) -> None:
    load(environment, "longform", yes=False)
    hub.requests.clear()
    sets = [{"spec": {"source": name}, "yes": True, "options": {}} for name in ("alpaca", "longform")]
    unknown, seen_before = load_all({**environment, "HF_HUB_OFFLINE": "1"}, sets)
    assert "tatsu-lab/alpaca is not on this machine" in unknown["message"]
    assert "HF_HUB_OFFLINE" in unknown["hint"]
    assert "missing data/train-00000-of-00001-cd5b.parquet" in seen_before["message"]
    assert hub.requests == []


def test_a_set_fetched_by_the_hubs_own_tool_works_offline(environment: dict[str, str]) -> None:
    fetch = "from huggingface_hub import snapshot_download; snapshot_download('many/configs', repo_type='dataset')"
    subprocess.run([sys.executable, "-c", fetch], check=True, capture_output=True, timeout=120, env=environment)
    offline = load({**environment, "HF_HUB_OFFLINE": "1"}, "many/configs", config="large", yes=False)
    assert len(offline.get("turns", [])) == 6, offline


def test_streaming_and_a_quick_look_read_without_keeping(environment: dict[str, str], tmp_path: Path) -> None:
    stream = {"spec": {"source": "flan-v2"}, "yes": True, "options": {"streaming": True}}
    look = {"spec": {"source": "oasst1"}, "yes": True, "options": {"sample_rows": 2}}
    streamed, first = load_all(environment, [stream, look])
    assert (len(streamed["turns"]), len(first["text"])) == (4, 2)
    assert not [path for path in (tmp_path / "hf").rglob("*") if path.suffix in {".parquet", ".jsonl"}]


def test_evaluation_takes_the_sets_own_held_out_split(environment: dict[str, str]) -> None:
    held_out = load(environment, "longform", purpose="eval")
    assert "data/validation-00000" in held_out["asked"][0][0]


PROBLEMS: list[tuple[dict[str, Any], str, str]] = [
    ({"source": "nobody/nothing"}, "no dataset nobody/nothing on the hub", "spelling"),
    ({"source": "closed/gated"}, "closed/gated is gated", "hf auth login"),
    ({"source": "yizhongw/self_instruct"}, "is a Python script (self_instruct.py), which is never run", "refs/convert"),
    ({"source": "many/configs"}, "several configs: small, large", 'data.config = "small"'),
    ({"source": "many/configs", "config": "smal"}, "no config 'smal'; its configs: small, large", "'small'"),
    ({"source": "longform", "split": "trian"}, "has no split 'trian'; its splits: train, validation, test", "'train'"),
    ({"source": "longform", "revision": "v9"}, "has no such revision", "branches"),
    ({"source": "only/pictures"}, "only/pictures", ""),
]


def test_what_cannot_be_had_says_why(environment: dict[str, str]) -> None:
    requests = [{"spec": spec, "yes": True, "options": {}} for spec, _, _ in PROBLEMS]
    for refused, (_, problem, hint) in zip(load_all(environment, requests), PROBLEMS, strict=True):
        assert refused.get("error") == "DataError", refused
        assert problem in refused["message"]
        assert hint in refused["hint"]


def test_a_hub_out_of_reach_is_one_clear_error(environment: dict[str, str]) -> None:
    refused = load({**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}, "alpaca")
    assert refused["error"] == "DataError"
    assert "cannot be reached at http://127.0.0.1:9" in refused["message"]
