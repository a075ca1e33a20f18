"""Elo ratings of a tournament: one pass in a given order, or the mean over many random orders.

Elo, A. E., The Rating of Chessplayers (1978): expected score 1 / (1 + 10^((other - own) / scale)), and after a match
both ratings move by K times (score - expected). The result depends on the order of the matches, which mean nothing
here, so they are played in thousands of random orders at once: one vector operation plays match number n of all orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qlora_tui.arena.matches import Matches

_BLOCK_ORDERS = 2048
"""So many orders are played together: enough to pay for each vector operation, few enough to stay in the cache."""

_BLOCK_BYTES = 128 << 20
"""Shuffled matches of one block, at most; two blocks are held at once."""

_SHUFFLED_ROWS = 128
_MATCHES_A_REPORT = 1000

Progress = Callable[[float], None]
"""Told the share that is done, from 0 to 1."""


@dataclass(frozen=True)
class EloSettings:
    """K, the rating that everyone starts with, and the difference that means odds of ten to one."""

    k: float = 32.0
    start: float = 1000.0
    scale: float = 400.0
    orders: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class EloResult:
    """Arrays with one entry a model."""

    mean: NDArray[np.float64]
    order_sd: NDArray[np.float64]
    """Standard deviation between orders."""

    orders: int

    @property
    def monte_carlo_error(self) -> NDArray[np.float64]:
        """Standard error of the mean that comes from having played a finite number of orders."""
        error: NDArray[np.float64] = self.order_sd / self.orders**0.5
        return error


def one_pass(matches: Matches, settings: EloSettings) -> NDArray[np.float64]:
    """Ratings after playing the matches once, in the order of the file."""
    import numpy as np

    ratings = [settings.start] * len(matches.models)
    rows = zip(matches.first.tolist(), matches.second.tolist(), matches.score.tolist(), strict=True)
    for first, second, score in rows:
        gain = settings.k * (score - expected(ratings[first], ratings[second], settings.scale))
        ratings[first] += gain
        ratings[second] -= gain
    return np.array(ratings)


def expected(own: float, other: float, scale: float) -> float:
    """The expected score of a model rated `own` against one rated `other`."""
    return float(1 / (1 + 10 ** min(300.0, max(-300.0, (other - own) / scale))))


def over_orders(matches: Matches, settings: EloSettings, progress: Progress | None = None) -> EloResult:
    """Mean and spread over `settings.orders` random orders, each of which plays every match once."""
    import numpy as np

    codebook = _Codebook(matches)
    total = np.zeros(len(matches.models))
    squares = np.zeros(len(matches.models))
    block_orders = _block_orders(len(matches), codebook.codes.itemsize)
    done = 0
    for grid in _grids(codebook, settings, block_orders):
        orders = grid.shape[1]
        inner = None if progress is None else _part_of(progress, done / settings.orders, orders / settings.orders)
        final = _play(codebook, grid, settings, inner) - settings.start
        total += final.sum(axis=0)
        squares += (final**2).sum(axis=0)
        done += orders
    mean = total / settings.orders
    variance = np.maximum(0, squares / settings.orders - mean**2)
    variance *= settings.orders / max(1, settings.orders - 1)
    return EloResult(mean + settings.start, np.sqrt(variance), settings.orders)


@dataclass(frozen=True)
class EloInterval:
    """What drawing the questions again does to the mean over orders; arrays with one entry a model."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    samples: int
    orders: int


def bootstrap_interval(
    matches: Matches, settings: EloSettings, *, samples: int = 200, orders: int = 20, level: float = 0.95,
    progress: Progress | None = None,
) -> EloInterval:  # fmt: skip
    """Percentile interval over `samples` draws of the questions with replacement.

    Each draw is played in `orders` random orders. Their mean still carries a known share of the spread between orders,
    which is taken out, so that the interval tells of the questions alone.
    """
    import numpy as np

    codebook = _Codebook(matches)
    rng = np.random.default_rng([settings.seed, 1])
    draws = _Draws(matches, codebook)
    block_samples = max(1, _block_orders(draws.longest(), codebook.codes.itemsize) // orders)
    means = np.empty((samples, len(matches.models)))
    within = np.zeros(len(matches.models))
    for begin in range(0, samples, block_samples):
        end = min(samples, begin + block_samples)
        rows = draws.rows(rng, end - begin).repeat(orders, axis=0)
        inner = None if progress is None else _part_of(progress, begin / samples, (end - begin) / samples)
        final = _play(codebook, _shuffled(rows, np.random.SeedSequence([settings.seed, 2, begin])), settings, inner)
        final = final.reshape(end - begin, orders, -1)
        means[begin:end] = final.mean(axis=1)
        within += final.var(axis=1, ddof=1).sum(axis=0) if orders > 1 else 0
    spread = means.var(axis=0, ddof=1) if samples > 1 else np.zeros(len(matches.models))
    noise = within / samples / orders
    kept = np.sqrt(np.clip(1 - noise / np.where(spread > 0, spread, 1), 0, 1))
    centre = means.mean(axis=0)
    low, high = np.quantile(centre + (means - centre) * kept, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return EloInterval(low, high, samples, orders)


class _Codebook:
    """Each distinct (model, model, score) as a small number, so that an order is a string of one or two bytes a match.

    The last code is a match that changes nothing: a draw against oneself, which fills up shorter draws of questions.
    """

    def __init__(self, matches: Matches) -> None:
        import numpy as np

        played = np.stack([matches.first, matches.second, (matches.score * 2).astype(np.intp)])
        distinct, codes = np.unique(played, axis=1, return_inverse=True)
        self.models = len(matches.models)
        self.nothing = distinct.shape[1]
        self.first = np.append(distinct[0], self.models)
        self.second = np.append(distinct[1], self.models)
        self.score = np.append(distinct[2] / 2, 0.5)
        kind: type[np.unsignedinteger] = np.uint8 if self.nothing < 256 else np.uint16
        if self.nothing >= 1 << 16:
            kind = np.uint32
        self.codes: NDArray[np.unsignedinteger] = codes.reshape(-1).astype(kind)


class _Draws:
    """Rows of codes for draws of the questions with replacement."""

    def __init__(self, matches: Matches, codebook: _Codebook) -> None:
        import numpy as np

        self._codebook = codebook
        order = np.argsort(matches.question, kind="stable")
        bounds = np.searchsorted(matches.question[order], np.arange(1, len(matches.questions)))
        self._of_question = np.split(codebook.codes[order], bounds)
        self._sizes = np.array([len(codes) for codes in self._of_question])

    def longest(self) -> int:
        """Matches in the longest draw that will ever be, give or take chance."""
        mean, sd = float(self._sizes.mean()), float(self._sizes.std())
        return int(len(self._sizes) * mean + 6 * sd * len(self._sizes) ** 0.5) + 1

    def rows(self, rng: np.random.Generator, samples: int) -> NDArray[np.unsignedinteger]:
        import numpy as np

        drawn = rng.integers(0, len(self._sizes), (samples, len(self._sizes)))
        lengths = self._sizes[drawn].sum(axis=1)
        codes = self._codebook.codes
        rows = np.full((samples, int(lengths.max())), self._codebook.nothing, dtype=codes.dtype)
        for row, questions, length in zip(rows, drawn, lengths, strict=True):
            row[:length] = np.concatenate([self._of_question[question] for question in questions])
        return rows


def _play(
    codebook: _Codebook, grid: NDArray[np.unsignedinteger], settings: EloSettings, progress: Progress | None
) -> NDArray[np.float64]:  # fmt: skip
    """Final ratings, [orders, models], of playing a grid of codes, [matches, orders]."""
    import numpy as np

    length, orders = grid.shape
    width = codebook.models + 1
    unit = np.log(10) / settings.scale
    gain = settings.k * unit
    # Ratings are kept relative to the start and in natural-log units, so that the expected score is 1 / (1 + exp).
    ratings = np.zeros(orders * width)
    offset = np.arange(orders, dtype=np.intp) * width
    at_first, at_second = np.empty(orders, np.intp), np.empty(orders, np.intp)
    own, other, move, score = (np.empty(orders) for _ in range(4))
    for number in range(length):
        codes = grid[number]
        codebook.first.take(codes, out=at_first, mode="clip")
        codebook.second.take(codes, out=at_second, mode="clip")
        codebook.score.take(codes, out=score, mode="clip")
        np.add(at_first, offset, out=at_first)
        np.add(at_second, offset, out=at_second)
        ratings.take(at_first, out=own, mode="clip")
        ratings.take(at_second, out=other, mode="clip")
        np.subtract(other, own, out=move)
        np.minimum(move, 700, out=move)
        np.exp(move, out=move)
        np.add(move, 1, out=move)
        np.reciprocal(move, out=move)
        np.subtract(score, move, out=move)
        np.multiply(move, gain, out=move)
        np.add(own, move, out=own)
        np.subtract(other, move, out=other)
        ratings[at_first] = own
        ratings[at_second] = other
        if progress is not None and number % _MATCHES_A_REPORT == 0:
            progress(number / length)
    final: NDArray[np.float64] = ratings.reshape(orders, width)[:, :-1] / unit + settings.start
    return final


def _shuffled(rows: NDArray[np.unsignedinteger], seed: np.random.SeedSequence) -> NDArray[np.unsignedinteger]:
    """[matches, orders]: each row in a random order of its own, the same match number of all orders together."""
    import numpy as np

    rng = np.random.default_rng(seed)
    orders, length = rows.shape
    grid = np.empty((length, orders), dtype=rows.dtype)
    for begin in range(0, orders, _SHUFFLED_ROWS):
        part = rows[begin : begin + _SHUFFLED_ROWS].copy()
        rng.permuted(part, axis=1, out=part)
        grid[:, begin : begin + len(part)] = part.T
    return grid


def _block_orders(matches: int, code_bytes: int) -> int:
    return max(1, min(_BLOCK_ORDERS, _BLOCK_BYTES // max(1, matches * code_bytes)))


def _grids(codebook: _Codebook, settings: EloSettings, block_orders: int) -> Iterator[NDArray[np.unsignedinteger]]:
    """Shuffled blocks until there are `settings.orders`; the next is shuffled on another core while one is played."""
    import numpy as np

    def shuffled(begin: int) -> NDArray[np.unsignedinteger]:
        orders = min(block_orders, settings.orders - begin)
        rows = np.broadcast_to(codebook.codes, (orders, len(codebook.codes)))
        return _shuffled(rows, np.random.SeedSequence([settings.seed, 0, begin]))

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(shuffled, 0)
        for begin in range(block_orders, settings.orders + block_orders, block_orders):
            grid = following.result()
            if begin < settings.orders:
                following = pool.submit(shuffled, begin)
            yield grid


def _part_of(progress: Progress, begin: float, share: float) -> Progress:
    def report(done: float) -> None:
        progress(begin + share * done)

    return report
