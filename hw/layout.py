"""Where channels and tensors lie in the spike memory.

A spike word holds the spikes of one token and one group of channels for all time steps: bit
``lane * T + t``. Two packings map channels to (group, lane):

"plain"
    Channel c is lane ``c % L`` of group ``c // L``.
"heads"
    The layout of q, k, v and of the attention's output: ``L // d_h`` whole heads share a word, so that
    a head never straddles two words. Lanes left over never spike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Packing:
    """How `channels` channels lie in words of `lanes` lanes.

    Parameters
    ----------
    channels, lanes : int
    head_dim : int or None
        Channels of a head for the "heads" packing, None for "plain".

    Raises
    ------
    ValueError
        A head is wider than a word.
    """

    channels: int
    lanes: int
    head_dim: int | None = None

    def __post_init__(self) -> None:
        if self.head_dim is not None and self.head_dim > self.lanes:
            raise ValueError(f"a head of {self.head_dim} channels does not fit into {self.lanes} lanes")

    @property
    def full_lanes(self) -> int:
        """Lanes used in every group but the last."""
        if self.head_dim is None:
            return min(self.lanes, self.channels)
        return min(self.lanes // self.head_dim * self.head_dim, self.channels)

    @property
    def groups(self) -> int:
        return -(-self.channels // self.full_lanes)

    @property
    def last_lanes(self) -> int:
        """Lanes used in the last group."""
        return self.channels - (self.groups - 1) * self.full_lanes

    @property
    def span(self) -> int:
        """Slots from the first channel to the last, ``group * lanes + lane`` counted, plus one."""
        return (self.groups - 1) * self.lanes + self.last_lanes

    def slots(self) -> np.ndarray:
        """Slot ``group * lanes + lane`` of every channel, shape [channels]."""
        channel = np.arange(self.channels)
        return channel // self.full_lanes * self.lanes + channel % self.full_lanes

    def pack(self, spikes: np.ndarray) -> list[int]:
        """Words of a spike map [T, N, channels] of zeros and ones, in address order: N x groups."""
        steps, positions, _ = spikes.shape
        lanes = np.zeros((positions, self.groups * self.lanes, steps), np.uint8)
        lanes[:, self.slots()] = spikes.transpose(1, 2, 0)
        bits = np.packbits(lanes.reshape(positions * self.groups, -1), axis=1, bitorder="little")
        return [int.from_bytes(word.tobytes(), "little") for word in bits]

    def unpack(self, words: list[int], timesteps: int) -> np.ndarray:
        """The inverse of `pack`: uint8 [T, N, channels]; lanes without a channel are ignored."""
        size = self.lanes * timesteps
        raw = b"".join(int(word).to_bytes(-(-size // 8), "little") for word in words)
        bits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(len(words), -1), axis=1, bitorder="little")
        lanes = bits[:, :size].reshape(-1, self.groups * self.lanes, timesteps)
        return lanes[:, self.slots()].transpose(2, 0, 1)


class Regions:
    """First-fit allocator of spike memory words by lifetime.

    `place` is called in program order; a region lives from the operation that writes it to the last one
    that reads it, and its words may then be used again.
    """

    def __init__(self) -> None:
        self._placed: list[tuple[int, int, int]] = []  # (base, end, last reader)
        self.depth = 0

    def place(self, words: int, first: int, last: int) -> int:
        """Reserve `words` words from operation `first` through `last`; returns the base address."""
        live = sorted((base, end) for base, end, until in self._placed if until >= first)
        base = 0
        for start, end in live:
            if base + words <= start:
                break
            base = max(base, end)
        self._placed.append((base, base + words, last))
        self.depth = max(self.depth, base + words)
        return base
