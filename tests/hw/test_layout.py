"""Packing and regions: every channel has a slot of its own, no two live tensors share a word."""

import numpy as np
import pytest

from s2tdpt.hw.plan.layout import Packing, Regions

SHAPES = [
    (channels, lanes, head_dim, part)
    for channels in (1, 2, 6, 7, 12, 24)
    for lanes in (1, 4, 6, 7, 16)
    for head_dim, part in [(None, 1), (1, 1), (2, 2), (2, 4), (3, 2), (3, 3), (6, 4), (12, 1)]
    if head_dim is None or (channels % head_dim == 0 and lanes % part == 0)
]


@pytest.mark.parametrize("channels, lanes, head_dim, part", SHAPES)
def test_slots(channels, lanes, head_dim, part):
    packing = Packing(channels, lanes, head_dim, part)
    slots = packing.slots().tolist()
    # Independent: slot by slot; a head begins at the next multiple of `part`.
    free, expected = 0, []
    for channel in range(channels):
        if head_dim and channel % head_dim == 0:
            while free % part:
                free += 1
        expected.append(free)
        free += 1
    assert slots == expected
    assert packing.span == free
    words = [slot // lanes for slot in slots]
    assert packing.groups == words[-1] + 1
    used = [packing.lanes_of(group) for group in range(packing.groups)]
    assert used[:-1] == [lanes] * (packing.groups - 1)
    assert used[-1] == free - (packing.groups - 1) * lanes > 0
    if head_dim:  # no piece belongs to two heads
        heads = {}
        for channel, slot in enumerate(slots):
            heads.setdefault(slot // part, set()).add(channel // head_dim)
        assert all(len(owners) == 1 for owners in heads.values())


@pytest.mark.parametrize("channels, lanes, head_dim, part", SHAPES)
def test_words(channels, lanes, head_dim, part):
    """Bit ``lane * T + t`` of word ``position * groups + group``, and nothing else is set."""
    packing = Packing(channels, lanes, head_dim, part)
    spikes = np.random.default_rng(channels).integers(0, 2, (3, 4, channels)).astype(np.uint8)
    words = packing.pack(spikes)
    expected = [0] * (4 * packing.groups)
    for step, position, channel in np.argwhere(spikes).tolist():
        group, lane = divmod(int(packing.slots()[channel]), lanes)
        expected[position * packing.groups + group] |= 1 << lane * 3 + step
    assert words == expected
    assert np.array_equal(packing.unpack(words, 3), spikes)


def random_regions(seed):
    """Random tensors: (words, step that writes it, last step that reads it), in program order."""
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(1, 30)), i, i + int(rng.integers(0, 6))) for i in range(40)]


def place(tensors):
    regions = Regions()
    return [regions.place(*t) for t in tensors], regions.depth


def overlapping(tensors, bases):
    """Pairs that are live at the same time and share a word."""
    return [
        (i, j)
        for i in range(len(tensors))
        for j in range(i)
        if tensors[j][2] >= tensors[i][1]
        and bases[i] < bases[j] + tensors[j][0]
        and bases[j] < bases[i] + tensors[i][0]
    ]


@pytest.mark.parametrize("seed", range(20))
def test_live_regions_never_overlap(seed):
    tensors = random_regions(seed)
    bases, depth = place(tensors)
    assert overlapping(tensors, bases) == []
    assert depth == max(base + words for base, (words, _, _) in zip(bases, tensors, strict=True))
    peak = max(
        sum(words for words, first, last in tensors if first <= now <= last) for now in range(len(tensors))
    )
    assert peak <= depth <= sum(words for words, _, _ in tensors)


def test_words_are_used_again():
    bases, depth = place([(10, 0, 1), (10, 1, 2), (10, 2, 3), (10, 3, 4)])
    assert (bases, depth) == ([0, 10, 0, 10], 20)


def test_a_hole_is_filled():
    bases, depth = place([(4, 0, 9), (6, 1, 2), (4, 2, 9), (3, 3, 9), (3, 4, 9), (1, 5, 9)])
    assert (bases, depth) == ([0, 4, 10, 4, 7, 14], 15)


def test_comparison_notices_an_overlap():
    tensors = random_regions(0)
    bases, _ = place(tensors)
    bases[1] = bases[0]
    assert overlapping(tensors, bases)
