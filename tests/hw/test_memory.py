"""Word layouts of the spike memory and its port."""

import numpy as np
import pytest

from s2tdpt.hw.memory import (
    SpikeMemoryClient,
    channel_groups,
    head_groups,
    pack_channels,
    pack_heads,
    unpack_channels,
    unpack_heads,
)


@pytest.mark.parametrize("channels, lanes", [(1, 1), (5, 4), (8, 8), (12, 4), (3, 32)])
@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_channel_layout(channels, lanes, steps):
    rng = np.random.default_rng(channels)
    spikes = rng.integers(0, 2, (steps, 6, channels), dtype=np.uint8)
    words = pack_channels(spikes, lanes)
    groups = channel_groups(channels, lanes)
    assert len(words) == 6 * groups
    for n in range(6):
        for c in range(groups * lanes):
            for t in range(steps):
                bit = words[n * groups + c // lanes] >> (c % lanes * steps + t) & 1
                assert bit == (spikes[t, n, c] if c < channels else 0)
    assert np.array_equal(
        unpack_channels(words, tokens=6, channels=channels, lanes=lanes, timesteps=steps), spikes
    )


@pytest.mark.parametrize("heads, head_dim, lanes", [(1, 3, 3), (5, 3, 8), (4, 4, 8), (2, 8, 12)])
@pytest.mark.parametrize("steps", [1, 4])
def test_head_layout(heads, head_dim, lanes, steps):
    rng = np.random.default_rng(heads)
    spikes = rng.integers(0, 2, (steps, 5, heads * head_dim), dtype=np.uint8)
    words = pack_heads(spikes, lanes, head_dim)
    per_word = lanes // head_dim
    groups = head_groups(heads, head_dim, lanes)
    expected = [0] * (5 * groups)
    for t, n, c in np.argwhere(spikes):
        head, inside = divmod(int(c), head_dim)
        expected[n * groups + head // per_word] |= 1 << (head % per_word * head_dim + inside) * steps + int(t)
    assert words == expected
    assert np.array_equal(
        unpack_heads(words, tokens=5, heads=heads, head_dim=head_dim, lanes=lanes, timesteps=steps), spikes
    )


def test_port():
    port = SpikeMemoryClient(10, 8, 4, 2)
    assert port == SpikeMemoryClient(10, 8, 4, 2) and port != SpikeMemoryClient(10, 8, 4, 4)
    assert repr(port) == "SpikeMemoryClient(10, 8, 4, 2)"
    members = port.create()
    assert len(members.wr_en) == 4
    assert len(members.rd_data) == len(members.wr_data) == 32


def test_messages():
    with pytest.raises(ValueError, match=r"^spike memory timesteps must be a positive integer, not 0$"):
        SpikeMemoryClient(10, 8, 0, 2)
    with pytest.raises(ValueError, match=r"^spike memory post_lanes must divide lanes, but 8 % 3 is 2$"):
        SpikeMemoryClient(10, 8, 4, 3)
    with pytest.raises(ValueError, match=r"^a head of 9 channels does not fit into 8 lanes$"):
        head_groups(2, 9, 8)
