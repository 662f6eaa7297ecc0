"""Where channels and tensors lie in the spike memory.

A spike word holds `lanes` channels of one token (or map position) for all time steps: bit ``lane * T + t``.
Channels are numbered by *slots*, slot ``s`` being lane ``s % lanes`` of word ``s // lanes``:

"plain"
    Channel c is slot c.
"heads"
    The layout of q, k, v and of the attention's output. A head starts at a multiple of `part`
    (the post-processing lanes), so that a piece of `part` channels never belongs to two heads. Slots left
    over never spike.
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
    part : int
        Heads start at multiples of it.
    """

    channels: int
    lanes: int
    head_dim: int | None = None
    part: int = 1

    @property
    def head_slots(self) -> int:
        """Slots of a head; "heads" packing only."""
        return -(-self.head_dim // self.part) * self.part

    @property
    def span(self) -> int:
        """Slots in use: one more than the last channel's."""
        return int(self.slots()[-1]) + 1

    @property
    def groups(self) -> int:
        """Words a position takes."""
        return -(-self.span // self.lanes)

    def lanes_of(self, group: int) -> int:
        """Slots in use in word `group`, from lane 0 on."""
        return min(self.lanes, self.span - group * self.lanes)

    def slots(self) -> np.ndarray:
        """Slot of every channel, shape [channels]."""
        channel = np.arange(self.channels)
        if self.head_dim is None:
            return channel
        return channel // self.head_dim * self.head_slots + channel % self.head_dim

    def spread(self, spikes: np.ndarray) -> np.ndarray:
        """[..., channels] to [..., groups * lanes]: every channel at its slot, zeros elsewhere."""
        wide = np.zeros((*spikes.shape[:-1], self.groups * self.lanes), spikes.dtype)
        wide[..., self.slots()] = spikes
        return wide

    def pack(self, spikes: np.ndarray) -> list[int]:
        """Words of a spike map [T, N, channels] of zeros and ones, in address order: N x groups."""
        steps, positions, _ = spikes.shape
        lanes = self.spread(np.asarray(spikes, np.uint8)).transpose(1, 2, 0)
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

    `place` is called in program order; a region lives from the step that writes it first to the last one
    that reads it, and its words may then be used again.
    """

    def __init__(self) -> None:
        self._placed: list[tuple[int, int, int]] = []  # (base, end, last reader)
        self.depth = 0

    def place(self, words: int, first: int, last: int) -> int:
        """Reserve `words` words from step `first` through `last`; returns the base address."""
        live = sorted((base, end) for base, end, until in self._placed if until >= first)
        base = 0
        for start, end in live:
            if base + words <= start:
                break
            base = max(base, end)
        self._placed.append((base, base + words, last))
        self.depth = max(self.depth, base + words)
        return base
