"""The replay of PyTorch's caching allocator."""

import random

import pytest

from qlora_tui.memory import allocator
from qlora_tui.memory.allocator import MIB, Trace, replay, rounded, smallest_capacity


def trace_of(*sizes: int) -> Trace:
    trace = Trace()
    for size in sizes:
        trace.alloc(size)
    return trace


@pytest.mark.parametrize(("size", "charged"), [(0, 0), (1, 512), (512, 512), (513, 1024)])
def test_requests_are_charged_in_steps_of_512_bytes(size: int, charged: int) -> None:
    assert rounded(size) == charged


@pytest.mark.parametrize(
    ("size", "reserved"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (9 * MIB, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (11 * MIB - 1, 12 * MIB),
    ],
)
def test_one_request_reserves_a_segment_of_its_kind(size: int, reserved: int) -> None:
    assert replay(trace_of(size)).reserved_bytes == reserved


def test_small_requests_share_a_segment() -> None:
    assert replay(trace_of(*[MIB // 2] * 4)).reserved_bytes == 2 * MIB
    assert replay(trace_of(*[MIB // 2] * 5)).reserved_bytes == 4 * MIB


def test_a_freed_block_is_used_again() -> None:
    trace = Trace()
    trace.free(trace.alloc(64 * MIB))
    trace.alloc(64 * MIB)
    assert replay(trace).reserved_bytes == 64 * MIB


def test_neighbours_grow_together_when_both_are_free() -> None:
    trace = Trace()
    trace.free(trace.alloc(64 * MIB))
    first, second = trace.alloc(32 * MIB), trace.alloc(32 * MIB)
    trace.free(first)
    trace.free(second)
    trace.alloc(64 * MIB)
    assert replay(trace).reserved_bytes == 64 * MIB


def test_cached_segments_are_given_back_before_memory_runs_out() -> None:
    trace = Trace()
    trace.free(trace.alloc(64 * MIB))
    trace.alloc(96 * MIB)
    assert replay(trace).reserved_bytes == 160 * MIB
    assert replay(trace, 96 * MIB).fits
    assert not replay(trace, 95 * MIB).fits
    assert smallest_capacity(trace) == 96 * MIB


def test_an_emptied_cache_holds_nothing() -> None:
    trace = Trace()
    trace.free(trace.alloc(64 * MIB))
    trace.empty_cache()
    trace.alloc(96 * MIB)
    assert replay(trace).reserved_bytes == 96 * MIB


def test_fragments_need_more_than_the_sum() -> None:
    """Every other block of one segment is free, but none is large enough for what comes."""
    trace = Trace()
    trace.free(trace.alloc(160 * MIB))
    blocks = [trace.alloc(20 * MIB) for _ in range(8)]
    for block in blocks[::2]:
        trace.free(block)
    trace.alloc(40 * MIB)
    assert trace.peak_bytes == 160 * MIB
    assert smallest_capacity(trace) > 180 * MIB
    assert replay(trace, 200 * MIB).fits


@pytest.mark.parametrize("seed", range(20))
def test_the_smallest_capacity_lies_between_allocated_and_reserved(seed: int) -> None:
    choose = random.Random(seed)
    trace, live = Trace(), []
    for _ in range(400):
        if live and choose.random() < 0.48:
            trace.free(live.pop(choose.randrange(len(live))))
        else:
            live.append(trace.alloc(int(2 ** choose.uniform(9, 28))))
    found = smallest_capacity(trace, tolerance_bytes=MIB)
    assert trace.peak_bytes <= found <= replay(trace).reserved_bytes
    assert replay(trace, found).fits
    assert found == trace.peak_bytes or not replay(trace, found - MIB).fits or found - MIB < trace.peak_bytes


def test_a_search_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace()
    held = [trace.alloc(3 << 20) for _ in range(5)]
    for number in held[::2]:
        trace.free(number)
    trace.alloc(5 << 20)
    found = allocator.smallest_capacity(trace)
    monkeypatch.setattr(allocator, "replay", None)
    assert allocator.smallest_capacity(trace) == found
