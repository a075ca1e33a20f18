"""What the hub's libraries raise about a dataset or a model, as one sentence and what to do."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from qlora_tui.errors import DataError, QloraError

_NETWORK_LIBRARIES = {"httpx", "httpx2", "httpcore", "aiohttp"}


@dataclass(frozen=True)
class Repositories:
    """One kind of repository on the hub."""

    noun: str
    pages: str
    """What stands before the id in the address of its page."""

    error: type[QloraError]
    missing: type[QloraError]
    gated: type[QloraError]
    unreachable: type[QloraError]
    no_id: str
    """What a name that cannot be an id is, to be read after the name."""

    without_network: str
    """What works without a connection."""


DATASETS = Repositories(
    noun="dataset",
    pages="datasets/",
    error=DataError,
    missing=DataError,
    gated=DataError,
    unreachable=DataError,
    no_id="is no hub id",
    without_network="what is already in the hub cache works with HF_HUB_OFFLINE=1.",
)


@contextlib.contextmanager
def hub_errors(repo_id: str, kind: Repositories = DATASETS) -> Iterator[None]:
    """Turn the errors of huggingface_hub, datasets and the network into one of `kind` about `repo_id`."""
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT

    page, noun = f"{ENDPOINT}/{kind.pages}{repo_id}", kind.noun
    try:
        yield
    except errors.GatedRepoError as error:
        raise kind.gated(
            f"{noun} {repo_id} is gated: its owner must let you in",
            hint=f"Accept its conditions at {page}, then log in with `hf auth login`.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise kind.missing(
            f"no {noun} {repo_id} on the hub, or it is private",
            hint=f"Check the spelling; for a private {noun} log in with `hf auth login`.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise kind.error(f"{noun} {repo_id} has no such revision", hint=f"Its branches and tags: {page}.") from error
    except errors.HFValidationError as error:
        raise kind.error(f"{repo_id!r} {kind.no_id}", hint=f"A hub {noun} is written owner/name.") from error
    except errors.OfflineModeIsEnabled as error:
        raise kind.unreachable(
            f"{noun} {repo_id}: the hub is off (HF_HUB_OFFLINE)", hint="Unset HF_HUB_OFFLINE."
        ) from error
    except Exception as error:
        if type(error) is FileNotFoundError:  # A file that the repository names and does not hold: no matter of reach.
            raise
        library = type(error).__module__.partition(".")[0]
        if library == "datasets":  # Some of its errors are OSErrors too, and say nothing of the connection.
            raise kind.error(f"{noun} {repo_id} cannot be used: {_first_line(error)}") from error
        if library in _NETWORK_LIBRARIES or isinstance(error, (errors.HfHubHTTPError, OSError)):
            raise _unreachable(repo_id, kind, ENDPOINT, error) from error
        raise


def _unreachable(repo_id: str, kind: Repositories, endpoint: str, error: Exception) -> QloraError:
    return kind.unreachable(
        f"{kind.noun} {repo_id} cannot be reached at {endpoint}: {_first_line(error)}",
        hint=f"Check the connection; {kind.without_network}",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
