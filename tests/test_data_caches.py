"""Caches of rows: whole or absent, found by content, kept small; and what is read without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from data_files import ANSWERS, GOOD, LINES, answers, load, put

from qlora_tui.data import content, row_cache, sweeping
from qlora_tui.data.bad_rows import BadRows
from qlora_tui.errors import DataError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLORA_TUI_HOME", str(tmp_path / "home"))


def test_the_second_load_reads_the_cache_and_equals_the_first(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", LINES)
    stages: list[str] = []
    first = load(path, on_progress=lambda stage, done, total: stages.append(stage))
    assert "reading" in stages
    stages.clear()
    second = load(path, on_progress=lambda stage, done, total: stages.append(stage))
    assert "reading" not in stages
    assert (second.fingerprint, answers(second)) == (first.fingerprint, answers(first))


def test_rows_that_nothing_read_for_long_are_deleted(tmp_path: Path) -> None:
    load(put(tmp_path / "old.jsonl", LINES))
    (old,) = row_cache.folder().iterdir()
    load(put(tmp_path / "used.jsonl", LINES.replace("p3", "used")))
    used = next(home for home in row_cache.folder().iterdir() if home != old)
    for home in (old, used):
        os.utime(home, (0, 0))
    load(tmp_path / "used.jsonl")
    load(put(tmp_path / "new.jsonl", LINES.replace("p3", "new")))
    left = set(row_cache.folder().iterdir())
    assert old not in left
    assert used in left
    assert len(left) == 2


def test_the_oldest_rows_make_room_for_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "_UNUSED_S", 1e12)
    for number in range(3):
        load(put(tmp_path / f"{number}.jsonl", LINES.replace("p3", f"n{number}")))
        (new,) = (home for home in row_cache.folder().iterdir() if home.stat().st_mtime > 1000)
        os.utime(new, (1 + number, 1 + number))
    one_bytes = sum(file.stat().st_size for file in new.iterdir())
    monkeypatch.setattr(sweeping, "MAX_BYTES", 2 * one_bytes)
    load(put(tmp_path / "last.jsonl", LINES.replace("p3", "n9")))
    ages = sorted(int(home.stat().st_mtime) for home in row_cache.folder().iterdir())
    assert ages[:2] == [2, 3] and len(ages) == 3


def test_a_large_file_is_hashed_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that keeps size and time of change, as a copying program can, is noticed all the same."""
    monkeypatch.setattr(content, "_REMEMBERED_FROM_BYTES", 0)
    monkeypatch.setattr(content, "_SETTLED_S", 0.0)
    path = put(tmp_path / "a.jsonl", LINES)
    stages: list[str] = []

    def fingerprint() -> str:
        stages.clear()
        return load(path, on_progress=lambda stage, done, total: stages.append(stage)).fingerprint

    first = fingerprint()
    assert "hashing" in stages
    assert fingerprint() == first
    assert "hashing" not in stages
    times = path.stat()
    path.write_text(LINES.replace("p3", "q3"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint() != first
    assert "hashing" in stages


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    first = load(put(tmp_path / "one" / "a.jsonl", LINES)).fingerprint
    assert load(put(tmp_path / "two" / "a.jsonl", LINES)).fingerprint == first
    assert load(put(tmp_path / "three" / "a.jsonl", LINES.replace("p3", "q3"))).fingerprint != first
    assert load(tmp_path / "one" / "a.jsonl", split="train[:5]").fingerprint != first


def test_a_cache_with_skipped_rows_does_not_hide_them(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", GOOD * 3 + "{\n")
    assert load(path, skip_bad_rows=True).bad_row_count == 1
    assert load(path, skip_bad_rows=True).bad_row_count == 1
    with pytest.raises(DataError, match=r"a\.jsonl:4"):
        load(path)


def test_two_processes_may_write_the_same_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"messages": None, "text": "x", "tools": None, "rejected": None, "origin": "a"}
    rename, others = Path.rename, [True]

    def after_another(path: Path, target: Path) -> Path:
        if others and others.pop():
            row_cache.write("key", [row], BadRows(False))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_another)
    written = row_cache.write("key", [row], BadRows(False))
    assert datasets.Dataset.from_file(str(written))["text"][:] == ["x"]
    assert [home.name for home in row_cache.folder().iterdir()] == ["key"]


def test_a_failed_load_leaves_no_cache(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load(put(tmp_path / "a.jsonl", GOOD * 5000 + "{\n"))
    assert list(row_cache.folder().iterdir()) == []


def test_a_full_disk_says_so_and_leaves_no_cache(tmp_path: Path) -> None:
    """The file size limit stands in for a full disk: the same failed write, inside the real process."""
    path = put(tmp_path / "a.jsonl", (json.dumps({"prompt": "a" * 500, "completion": "b"}) + "\n") * 20000)
    program = (
        "import resource, signal, sys\n"
        "from qlora_tui.config.data import SourceSpec\n"
        "from qlora_tui.data.load import load_source\n"
        "from qlora_tui.errors import StorageError\n"
        "import datasets\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: load_source(SourceSpec(source=sys.argv[1]))\n"
        "except StorageError as error: print(error.message, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120)
    assert "cannot write the cache of rows" in done.stdout, done.stderr
    assert list(row_cache.folder().iterdir()) == []


def test_a_quick_look_reads_only_the_start(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", LINES + GOOD * 500 + "{ broken far behind\n")
    loaded = load(path, sample_rows=4)
    assert answers(loaded) == ANSWERS[:4]
    assert loaded.fingerprint.startswith("quick:")
    assert not row_cache.folder().exists()


def test_streaming_gives_the_same_rows_in_each_pass(tmp_path: Path) -> None:
    loaded = load(put(tmp_path / "a.jsonl", LINES), streaming=True, split="train[:6]")
    assert isinstance(loaded.dataset, datasets.IterableDataset)
    assert answers(loaded) == answers(loaded) == ANSWERS[:6]
