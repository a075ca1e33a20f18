"""Errors that the user can act on, and their exit codes.

    QloraError                     1  internal error (also any unexpected exception)
    ├── UsageError                 2  wrong command line
    ├── ConfigError                3  bad configuration: file, key or value
    ├── NotFoundError              4  no such run, preset, file or checkpoint
    ├── RunConflictError           5  name taken, run busy, run not in the needed state
    ├── DoesNotFitError            6  the estimate says that it cannot fit
    ├── OutOfMemoryError           7  memory ran out while running
    ├── CancelledError             8  stopped by the user
    ├── ModelError                 9  the model cannot be loaded
    ├── DataError                 10  the dataset cannot be used
    ├── StorageError              11  disk full, read-only or unreadable
    └── EnvironmentProblem        12  missing or broken driver, library or device

13 is not an error: `estimate` reports that the run may just fit.

A message says what is wrong and where; a hint says what to do. Both may hold foreign text, so callers print them
through `terminal.printable`. Neither holds a secret: they are redacted when the error is made.
"""

from enum import IntEnum

from qlora_tui.redaction import redacted


class ExitCode(IntEnum):
    """Exit codes of the `qlora-tui` command; scripts may rely on them."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    CONFIG = 3
    NOT_FOUND = 4
    CONFLICT = 5
    DOES_NOT_FIT = 6
    OUT_OF_MEMORY = 7
    CANCELLED = 8
    MODEL = 9
    DATA = 10
    STORAGE = 11
    ENVIRONMENT = 12
    TIGHT = 13


class QloraError(Exception):
    """Base of every error that is shown as one sentence and a hint instead of a traceback."""

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = redacted(message)
        self.hint = redacted(hint)
        super().__init__(self.message)


class UsageError(QloraError):
    exit_code = ExitCode.USAGE


class ConfigError(QloraError):
    exit_code = ExitCode.CONFIG


class NotFoundError(QloraError):
    exit_code = ExitCode.NOT_FOUND


class RunConflictError(QloraError):
    exit_code = ExitCode.CONFLICT


class DoesNotFitError(QloraError):
    exit_code = ExitCode.DOES_NOT_FIT


class OutOfMemoryError(QloraError):
    exit_code = ExitCode.OUT_OF_MEMORY


class CancelledError(QloraError):
    exit_code = ExitCode.CANCELLED


class ModelError(QloraError):
    exit_code = ExitCode.MODEL


class DataError(QloraError):
    exit_code = ExitCode.DATA


class StorageError(QloraError):
    exit_code = ExitCode.STORAGE


class EnvironmentProblem(QloraError):
    exit_code = ExitCode.ENVIRONMENT


def nearest(wrong: str, known: list[str]) -> str:
    """A hint that names the nearest known value, or lists them all when nothing is near."""
    from difflib import get_close_matches

    close = get_close_matches(wrong, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return "Known: " + ", ".join(sorted(known)) + "."
