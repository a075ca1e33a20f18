"""Load tokenizers, which are untrusted: rules and templates run under limits, and their errors become ModelErrors.

The only module that calls `from_pretrained` of a tokenizer. Imports no PyTorch.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qlora_tui.data.template_environment import LimitedEnvironment
from qlora_tui.errors import ModelError, QloraError
from qlora_tui.limits import at_most_half_of_ram, limited
from qlora_tui.models import tokenizer_file
from qlora_tui.models.folder import check_files
from qlora_tui.regular_files import read_bytes

_JSON_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
_LOAD_CPU_S = 300.0
"""Converting a large SentencePiece vocabulary takes about a minute."""
_LOAD_MEMORY_BYTES = 6 << 30
_ENCODE_CPU_S = 30.0
_ENCODE_CPU_S_PER_CHARACTER = 2e-5
"""Real tokenizers need less than a twentieth of this."""
_MEMORY_BYTES = 3 << 30
_MEMORY_BYTES_PER_CHARACTER = 1000
_PROBE = "def main():\n    print('hello 12345')\n\n\t It's 1,000.50 — naïve café\r\n  数据 🙂 don't   stop ABCdef\n\n\n"
_HINT = "Choose another model, or download the tokenizer again."


def load(
    place: Path | str,
    *,
    name: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
    explain: Callable[[Exception], QloraError] | None = None,
) -> Any:
    """Load the tokenizer of a folder or hub id; messages call it `name`.

    Raises ModelError if it cannot be loaded, or
    what `explain` makes of an OSError, ValueError, KeyError, ImportError or RuntimeError.
    """
    from transformers.utils import chat_template_utils

    # Every template that this process compiles from now on renders under limits.
    chat_template_utils.ImmutableSandboxedEnvironment = LimitedEnvironment
    if Path(place).is_dir():
        check_files(Path(place))
    if file := _tokenizer_file(place, revision):
        tokenizer_file.check(file)
    with _naming_damaged_file(place), _errors_of(name, "cannot be loaded", _LOAD_CPU_S, _LOAD_MEMORY_BYTES, explain):
        if _is_generic(place):
            from transformers import PreTrainedTokenizerFast

            tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(place)
        else:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(
                place, revision=revision, trust_remote_code=trust_remote_code, local_files_only=local_files_only
            )
    backend = getattr(tokenizer, "_tokenizer", None)
    if backend is not None:
        tokenizer._tokenizer = LimitedBackend(backend, name)
    with _errors_of(name, "cannot be used", _LOAD_CPU_S, _LOAD_MEMORY_BYTES):
        _use(tokenizer)
    return tokenizer


def difference_from_file(tokenizer: Any, place: Path | str, revision: str | None = None) -> str | None:
    """Return a warning if the tokenizer's class splits text differently from the tokenizer.json it was loaded from.

    Some classes replace the rules in the file by those of their model family. None if a test text is split equally.
    """
    from tokenizers import Tokenizer

    path = _tokenizer_file(place, revision)
    try:
        alone = Tokenizer.from_file(str(path)).encode(_PROBE, add_special_tokens=False).ids
    except Exception:  # foreign code on a foreign file: without a file that can be read there is nothing to compare
        return None
    ids = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    if ids == alone:
        return None
    return (
        f"{type(tokenizer).__name__} splits text differently from the tokenizer.json it was loaded from "
        f"({len(ids)} against {len(alone)} tokens for a test text); the class is used, in training and here"
    )


def _tokenizer_file(place: Path | str, revision: str | None) -> Path | None:
    """Return the path of tokenizer.json in a folder or in the hub cache; None without one."""
    from transformers.utils import cached_file

    try:
        found = cached_file(place, "tokenizer.json", revision=revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


@contextmanager
def _naming_damaged_file(place: Path | str) -> Iterator[None]:
    """Replace a ModelError of the block by one that names the file that is not a JSON object, if any."""
    try:
        yield
    except ModelError as error:
        for file in (Path(place) / name for name in _JSON_FILES):
            try:
                is_object = not file.is_file() or isinstance(json.loads(read_bytes(file)), dict)
            except (OSError, ValueError, RecursionError) as problem:
                raise ModelError(f"{file} cannot be read: {problem}", hint=_HINT) from error
            if not is_object:
                raise ModelError(f"{file} is not a JSON object", hint=_HINT) from error
        raise


def _is_generic(place: Path | str) -> bool:
    """Return whether the tokenizer's class adds nothing to tokenizer.json, so that no model class is imported."""
    try:
        settings = json.loads(read_bytes(Path(place) / "tokenizer_config.json"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and settings.get("tokenizer_class") in _GENERIC_CLASSES


def _use(tokenizer: Any) -> None:
    """Check the types of settings now, so that they do not fail later during training."""
    ids = tokenizer("a", add_special_tokens=True)["input_ids"]
    tokenizer.decode(ids, skip_special_tokens=True)
    if not isinstance(tokenizer.model_max_length, int | float):
        raise TypeError(f"model_max_length must be a number, got {tokenizer.model_max_length!r}")
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, dict) else [template]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise TypeError("chat_template must be a text")


class LimitedBackend:
    """A `tokenizers.Tokenizer` whose rules run under limits. All other attributes are forwarded.

    Only batch methods are called: they release the GIL, so that the limits can be monitored.
    """

    def __init__(self, backend: Any, name: str) -> None:
        object.__setattr__(self, "_backend", backend)
        object.__setattr__(self, "_name", name)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") or attribute in ("_backend", "_name"):  # asked for by copy and pickle
            raise AttributeError(attribute)
        return getattr(self._backend, attribute)

    def __setattr__(self, attribute: str, value: Any) -> None:
        setattr(self._backend, attribute, value)

    def __getstate__(self) -> tuple[Any, str]:
        return self._backend, self._name

    def __setstate__(self, state: tuple[Any, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def encode_batch(self, texts: Sequence[Any], *args: Any, **options: Any) -> Any:
        with self._limits("cannot tokenize this text", sum(map(_characters, texts))):
            return self._backend.encode_batch(texts, *args, **options)

    def encode_batch_fast(self, texts: Sequence[Any], *args: Any, **options: Any) -> Any:
        with self._limits("cannot tokenize this text", sum(map(_characters, texts))):
            return self._backend.encode_batch_fast(texts, *args, **options)

    def encode(self, text: Any, pair: Any = None, *args: Any, **options: Any) -> Any:
        return self.encode_batch([text if pair is None else (text, pair)], *args, **options)[0]

    def decode_batch(self, sequences: Sequence[Sequence[int]], *args: Any, **options: Any) -> Any:
        with self._limits("cannot decode these tokens", sum(map(len, sequences))):
            return self._backend.decode_batch(sequences, *args, **options)

    def decode(self, ids: Sequence[int], *args: Any, **options: Any) -> Any:
        return self.decode_batch([ids], *args, **options)[0]

    def _limits(self, what: str, characters: int) -> Any:
        cpu_s = _ENCODE_CPU_S + characters * _ENCODE_CPU_S_PER_CHARACTER
        memory_bytes = _MEMORY_BYTES + characters * _MEMORY_BYTES_PER_CHARACTER
        return _errors_of(self._name, what, cpu_s, memory_bytes)


def _characters(text: Any) -> int:
    return len(text) if isinstance(text, str) else sum(map(_characters, text))


@contextmanager
def _errors_of(
    name: str,
    what: str,
    cpu_s: float,
    memory_bytes: int,
    explain: Callable[[Exception], QloraError] | None = None,
) -> Iterator[None]:
    """Apply limits to the block and raise ModelError for any exception: damaged files can raise any type."""

    def beyond(reason: str) -> ModelError:
        return ModelError(f"the tokenizer of {name} {what}: it {reason}", hint=_HINT)

    try:
        with limited(cpu_s, at_most_half_of_ram(memory_bytes), beyond, beyond):
            yield
    except (QloraError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise (explain(error) if explain else _failed(name, what, error)) from error
    except MemoryError as error:
        raise ModelError(f"the tokenizer of {name} {what}: it uses too much memory", hint=_HINT) from error
    except BaseException as error:  # a panic of Rust is no Exception
        raise _failed(name, what, error) from error


def _failed(name: str, what: str, error: BaseException) -> ModelError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(f"the tokenizer of {name} {what}: {reason}", hint=_HINT)
