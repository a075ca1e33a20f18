"""What the hub's libraries raise, as one sentence and what to do."""

import contextlib
from collections.abc import Iterator

from qlora_tui.errors import DataError


@contextlib.contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub, datasets and the network into a DataError about `repo_id`."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT

    page = f"{ENDPOINT}/datasets/{repo_id}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise DataError(
            f"dataset {repo_id} is gated: its owner must let you in",
            hint=f"Accept its conditions at {page}, then log in with `hf auth login`.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"no dataset {repo_id} on the hub, or it is private",
            hint="Check the spelling; for a private set log in with `hf auth login`.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"dataset {repo_id} has no such revision", hint=f"Its branches and tags: {page}.") from error
    except errors.HFValidationError as error:
        raise DataError(f"{repo_id!r} is no hub id", hint="A hub dataset is written owner/name.") from error
    except errors.OfflineModeIsEnabled as error:
        raise DataError(f"dataset {repo_id}: the hub is off (HF_HUB_OFFLINE)", hint="Unset HF_HUB_OFFLINE.") from error
    except DatasetsError as error:
        raise DataError(f"dataset {repo_id} cannot be used: {_first_line(error)}") from error
    except (errors.HfHubHTTPError, OSError) as error:
        raise _unreachable(repo_id, ENDPOINT, error) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in {"httpx", "httpx2", "httpcore", "aiohttp"}:
            raise _unreachable(repo_id, ENDPOINT, error) from error
        raise


def _unreachable(repo_id: str, endpoint: str, error: Exception) -> DataError:
    return DataError(
        f"dataset {repo_id} cannot be reached at {endpoint}: {_first_line(error)}",
        hint="Check the connection; what is already in the hub cache works with HF_HUB_OFFLINE=1.",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
