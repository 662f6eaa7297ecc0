"""The spike memory as its clients see it: the port, and where a spike lies in it.

A *word* holds `lanes` channels of one token (or map position) for all time steps, so that one read
feeds every step of a layer: bit ``lane * timesteps + t`` is the spike of that lane in step ``t``.

Two layouts share the words:

* channels: channel ``c`` of position ``n`` is lane ``c % lanes`` of word
  ``base + n * groups + c // lanes`` with ``groups = ceil(channels / lanes)``;
* heads (queries, keys, values, attention output): ``hpg = lanes // head_dim`` whole heads a word; head
  ``h`` is lanes ``(h % hpg) * head_dim ..`` of word ``base + n * groups + h // hpg`` with
  ``groups = ceil(heads / hpg)``. A head never straddles two words.

Lanes that no channel uses are 0 in every word. `layout.Packing` holds both layouts.
"""

from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from s2tdpt.hw.layout import Packing

__all__ = [
    "SpikeMemoryClient",
    "channel_groups",
    "head_groups",
    "pack_channels",
    "pack_heads",
    "unpack_channels",
    "unpack_heads",
]


class SpikeMemoryClient(wiring.Signature):
    """Port of an operation onto the spike memory: one read and one write a cycle, independent.

    Read data is valid in the cycle after ``rd_en`` and only then. A read and a write of the same address
    in the same cycle return the old word. Reads need no acceptance: one operation owns the memory.

    Parameters
    ----------
    addr_width : int
        Address bits.
    lanes : int
        Channels in a word.
    timesteps : int
        Time steps in a word.
    post_lanes : int
        Lanes covered by one write enable; divides `lanes`.

    Members
    -------
    rd_en : ``Out(1)``
        Read strobe.
    rd_addr : ``Out(addr_width)``
        Read address.
    rd_data : ``In(lanes * timesteps)``
        The word read one cycle earlier.
    wr_en : ``Out(lanes // post_lanes)``
        Write strobe of each `post_lanes` lanes, lowest lanes first.
    wr_addr : ``Out(addr_width)``
        Write address.
    wr_data : ``Out(lanes * timesteps)``
        Word to be written.
    """

    def __init__(self, addr_width, lanes, timesteps, post_lanes):
        for name, value in (
            ("addr_width", addr_width),
            ("lanes", lanes),
            ("timesteps", timesteps),
            ("post_lanes", post_lanes),
        ):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"spike memory {name} must be a positive integer, not {value!r}")
        if lanes % post_lanes:
            raise ValueError(
                f"spike memory post_lanes must divide lanes, but {lanes} % {post_lanes} is "
                f"{lanes % post_lanes}"
            )
        self._addr_width = addr_width
        self._lanes = lanes
        self._timesteps = timesteps
        self._post_lanes = post_lanes
        super().__init__(
            {
                "rd_en": Out(1),
                "rd_addr": Out(addr_width),
                "rd_data": wiring.In(lanes * timesteps),
                "wr_en": Out(lanes // post_lanes),
                "wr_addr": Out(addr_width),
                "wr_data": Out(lanes * timesteps),
            }
        )

    @property
    def addr_width(self):
        return self._addr_width

    @property
    def lanes(self):
        return self._lanes

    @property
    def timesteps(self):
        return self._timesteps

    @property
    def post_lanes(self):
        return self._post_lanes

    def __eq__(self, other):
        return isinstance(other, SpikeMemoryClient) and (
            self._addr_width,
            self._lanes,
            self._timesteps,
            self._post_lanes,
        ) == (other._addr_width, other._lanes, other._timesteps, other._post_lanes)

    def __repr__(self):
        return f"SpikeMemoryClient({self._addr_width}, {self._lanes}, {self._timesteps}, {self._post_lanes})"


def channel_groups(channels, lanes):
    """Words a position takes in the channel layout."""
    return Packing(channels, lanes).groups


def head_groups(heads, head_dim, lanes):
    """Words a token takes in the head layout."""
    return Packing(heads * head_dim, lanes, head_dim).groups


def pack_channels(spikes, lanes):
    """Words of a spike map ``[T, N, C]`` in the channel layout, in address order."""
    return Packing(spikes.shape[2], lanes).pack(spikes)


def unpack_channels(words, *, tokens, channels, lanes, timesteps):
    """Spikes ``[T, N, C]`` (uint8) of the words of `tokens` positions in the channel layout."""
    packing = Packing(channels, lanes)
    return packing.unpack(words[: tokens * packing.groups], timesteps)


def pack_heads(spikes, lanes, head_dim):
    """Words of queries, keys, values or attention output ``[T, N, D]`` in the head layout."""
    return Packing(spikes.shape[2], lanes, head_dim).pack(spikes)


def unpack_heads(words, *, tokens, heads, head_dim, lanes, timesteps):
    """Spikes ``[T, N, heads * head_dim]`` (uint8) of the words of `tokens` tokens in the head layout."""
    packing = Packing(heads * head_dim, lanes, head_dim)
    return packing.unpack(words[: tokens * packing.groups], timesteps)
