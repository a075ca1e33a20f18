"""Named pipes, devices, sockets and endless files instead of regular files are refused without blocking."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Cli, command, fake_worker

from qlora_tui import paths
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ExitCode, ModelError, StorageError
from qlora_tui.models.folder import check_folder, read_config
from qlora_tui.regular_files import UnsuitableFileError, open_to_append, open_to_read, read_bytes
from qlora_tui.runs import control, jobs, store
from qlora_tui.runs.checkpoints import CheckpointFolder, seal, why_incomplete
from qlora_tui.runs.event_log import EventReader, EventWriter
from qlora_tui.runs.shelf import Shelf
from qlora_tui.runs.store import RunFolder
from qlora_tui.starter import MODEL_DIR

__all__ = ["command", "fake_worker"]

PATIENCE_S = 60
"""Much longer than a command takes on a busy machine."""


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


SPECIAL = [pipe, device, unix_socket]
ENDLESS = [*SPECIAL, huge]
Make = Callable[[Path], None]


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Opening a pipe waits in the kernel: a test that does it fails instead of waiting forever."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError("a file was waited for")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run() -> RunFolder:
    return store.create("one", RunConfig(), {})


def replace(path: Path, make: Make) -> None:
    path.unlink(missing_ok=True)
    make(path)


@pytest.mark.parametrize("make", ENDLESS)
def test_only_regular_files_are_read(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "x")
    with pytest.raises(UnsuitableFileError):
        read_bytes(tmp_path / "x")
    if make is not huge:
        for opener in (open_to_read, open_to_append):
            with pytest.raises(UnsuitableFileError, match="not a regular file"):
                opener(tmp_path / "x")


def test_folders_and_missing_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "missing")


NAMES = ("run.toml", "plan.json", "events.jsonl", "control.jsonl", "tags.json", "heartbeat", "lock", "stdio.log")


@pytest.mark.parametrize("make", ENDLESS)
@pytest.mark.parametrize("name", NAMES)
def test_special_files_in_a_run_do_not_block_the_list(run: RunFolder, name: str, make: Make) -> None:
    replace(run.path / name, make)
    (glimpse,) = Shelf().read()
    assert glimpse.name == "one"


@pytest.mark.parametrize("name", NAMES)
def test_special_files_in_a_run_do_not_block_commands(
    run: RunFolder, name: str, fake_worker: Callable[[str], None], command: Cli
) -> None:
    replace(run.path / name, pipe)
    for words in (["runs", "list"], ["runs", "show", "one", "--json"], ["resume", "one", "--detach"]):
        ended = command(*words)
        assert ended.code in (ExitCode.OK, ExitCode.STORAGE, ExitCode.CONFIG), ended.err
        assert "internal error" not in ended.err
        if ended.code:
            assert "named pipe" in ended.err


@pytest.mark.parametrize("make", SPECIAL)
def test_log_that_is_not_a_regular_file_is_reported(run: RunFolder, make: Make) -> None:
    replace(run.events, make)
    with pytest.raises(StorageError, match=r"events\.jsonl.*not a regular file"):
        list(EventReader(run.events).read())
    with pytest.raises(StorageError, match=r"events\.jsonl.*not a regular file"):
        EventWriter(run.events)
    replace(run.control, make)
    with pytest.raises(StorageError, match=r"control\.jsonl.*not a regular file"):
        control.send(run.control, "cancel")
    replace(run.lock, make)
    with pytest.raises(StorageError, match=r"lock.*not a regular file"), jobs.hold(run):
        pass


def test_a_log_without_an_end_is_read_to_its_first_endless_line(run: RunFolder) -> None:
    huge(run.events)
    reader = EventReader(run.events)
    assert list(reader.read()) == []
    assert reader.unreadable_lines == 1


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("name", ["complete.json", "trainer_state.json", "adapter_model.safetensors"])
def test_checkpoint_with_a_special_file_is_incomplete(run: RunFolder, name: str, make: Make) -> None:
    folder = run.checkpoints / "checkpoint-3"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text('{"global_step": 3}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    seal(folder)
    assert why_incomplete(CheckpointFolder(folder, 3)) is None
    replace(folder / name, make)
    problem = why_incomplete(CheckpointFolder(folder, 3))
    assert problem is not None and name in problem


@pytest.mark.parametrize("make", ENDLESS)
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors.index.json", "tokenizer.json", "chat_template.jinja", "x.txt"]
)
def test_a_model_folder_is_refused_before_a_library_opens_it(tmp_path: Path, name: str, make: Make) -> None:
    for file in MODEL_DIR.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if name.startswith("model."):
        (tmp_path / "model.safetensors").unlink()
    replace(tmp_path / name, make)
    with pytest.raises(ModelError, match=f"{name} cannot be read: it is"):
        check_folder(tmp_path, RunConfig().model)
    if name == "config.json":
        with pytest.raises(ModelError, match="cannot be read: it is"):
            read_config(tmp_path)


@pytest.mark.parametrize("make", ENDLESS)
@pytest.mark.parametrize("place", ["queue.json", "settings.toml", "presets/x.toml", "themes/x.toml"])
def test_files_of_the_user_do_not_block_either(place: str, make: Make, command: Cli) -> None:
    home = paths.data() if place == "queue.json" else paths.config()
    file = home / place
    file.parent.mkdir(parents=True)
    make(file)
    for words in (["queue", "list"], ["presets", "list"], ["runs", "list"]):
        assert "internal error" not in command(*words).err
