"""The layer program: what the machine does for one image, step by step.

`build_program` turns a network and a machine into a list of operations. `core` executes exactly this list,
`images` lays out the weights by it, `cycles` counts it and the co-simulation reads from it where every
tensor lies, so that none of them can drift from the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.hw.config import PIXEL_PLANES, HardwareConfig, check_fit
from s2tdpt.hw.layout import Packing, Regions


@dataclass(frozen=True)
class TraceMap:
    """Where a golden trace tensor can be read while an operation runs.

    Parameters
    ----------
    tensor : str
        Name in the golden trace.
    memory : {"spike", "residual", "y"}
        Which observation record carries it.
    base : int
        First address (spike memory only).
    positions, groups, channels : int
        Tokens, words a token, channels.
    packing : Packing
    """

    tensor: str
    memory: Literal["spike", "residual", "y"]
    base: int
    positions: int
    groups: int
    channels: int
    packing: Packing


@dataclass(frozen=True)
class Operation:
    """One step of the layer program.

    Parameters
    ----------
    name : str
        "sps.0", "sps.1.pool", "block.0.q", "block.0.attention", ..., "head".
    kind : {"accumulate", "pool", "attention"}
    source : {"pixels", "spikes", "head_sum"}
        Where an accumulate operation takes its events from.
    sink : {"spikes", "residual", "logits"}
        What its post-processing does with the sums.
    height, width : int
        Grid of output positions (accumulate) or of input positions (pool). Linear layers: 1 x tokens;
        head: 1 x slices of the head sum.
    kernel : {1, 3}
    packing_in, packing_out : Packing or None
    src_base, dst_base : int
        Spike memory regions.
    k_base, v_base : int
        Attention: regions of K and V (`src_base` is Q).
    first_writer, writes_spikes, sums_head : bool
        Residual sink: it initialises U; its LIF(U) spikes are wanted; U is summed for the head.
    tile_base, const_base : int
        First row of its weights and first word of its constants in the on-chip image.
    reads : tuple of str
        Golden trace tensors it reads: spikes, "pixels" or "head.sum".
    trace : tuple of TraceMap
        Golden trace tensors that can be observed while it runs.
    """

    name: str
    kind: Literal["accumulate", "pool", "attention"]
    height: int
    width: int
    source: Literal["pixels", "spikes", "head_sum"] = "spikes"
    sink: Literal["spikes", "residual", "logits"] = "spikes"
    kernel: int = 1
    packing_in: Packing | None = None
    packing_out: Packing | None = None
    src_base: int = 0
    dst_base: int = 0
    k_base: int = 0
    v_base: int = 0
    first_writer: bool = False
    writes_spikes: bool = False
    sums_head: bool = False
    tile_base: int = 0
    const_base: int = 0
    reads: tuple[str, ...] = ()
    trace: tuple[TraceMap, ...] = ()

    @property
    def positions(self) -> int:
        return self.height * self.width

    @property
    def rows_tap(self) -> int:
        """Weight rows of one tap: a row for every input slot."""
        return self.packing_in.span

    @property
    def tile_rows(self) -> int:
        """Weight rows of a tile (one group of output channels)."""
        return self.kernel * self.kernel * self.rows_tap

    def subgroups(self, group: int, post_lanes: int) -> int:
        """Post-processing groups that hold channels in output group `group`."""
        packing = self.packing_out
        used = packing.last_lanes if group == packing.groups - 1 else packing.full_lanes
        return -(-used // post_lanes)


@dataclass(frozen=True)
class Program:
    """The layer program of one network on one machine.

    Parameters
    ----------
    ops : tuple of Operation
    spike_words : int
        Depth of the spike memory.
    tile_words, const_words : int
        Weight rows and constant words of the whole network.
    max_tile_rows : int
        Rows of the largest tile (the bank size of a streamed tile memory).
    tiles : int
        Tiles of a frame, in program order.
    head_slices : int
        8-bit slices of a head sum.
    """

    network: NetworkConfig
    hardware: HardwareConfig
    ops: tuple[Operation, ...]
    spike_words: int
    tile_words: int
    const_words: int
    max_tile_rows: int
    tiles: int
    head_slices: int

    def op(self, name: str) -> Operation:
        """The operation of that name; KeyError if there is none."""
        for op in self.ops:
            if op.name == name:
                return op
        raise KeyError(name)


def build_program(network: NetworkConfig, hardware: HardwareConfig, head_sum_bits: int) -> Program:
    """Schedule `network` on `hardware`.

    Parameters
    ----------
    head_sum_bits : int
        Proven signed width of the head sums (`golden.bounds`), which sets the number of slices.

    Raises
    ------
    UserError
        The network does not fit the machine.
    """
    check_fit(network, hardware)
    head_slices = -(-head_sum_bits // PIXEL_PLANES)
    ops, words = _operations(network, hardware, head_slices)
    ops, depth = _place(ops, words)
    ops, tile_words, const_words, tiles = _lay_out_weights(ops, hardware)
    return Program(
        network=network,
        hardware=hardware,
        ops=tuple(_with_trace(op, network, words) for op in ops),
        spike_words=depth,
        tile_words=tile_words,
        const_words=const_words,
        max_tile_rows=max(op.tile_rows for op in ops if op.kind == "accumulate"),
        tiles=tiles,
        head_slices=head_slices,
    )


@dataclass(frozen=True)
class _Tensor:
    """A spike tensor of the program: how many words it takes, which operations read it."""

    name: str
    positions: int
    packing: Packing


def _operations(net: NetworkConfig, hw: HardwareConfig, head_slices: int):
    """Operations with symbolic regions: [(op, reads, writes)] and the spike tensors by name."""
    lanes, n, d = hw.lanes, net.tokens, net.embed_dim
    plain = Packing(d, lanes)
    heads = Packing(d, lanes, net.head_dim)
    hidden = Packing(net.hidden_dim, lanes)
    tensors: dict[str, _Tensor] = {}
    ops: list[tuple[Operation, tuple[str, ...], str | None]] = []

    def add(op: Operation, reads=(), writes: str | None = None, positions: int = n):
        if writes is not None:
            packing = op.packing_out if op.kind == "accumulate" else op.packing_in
            tensors[writes] = _Tensor(writes, positions, packing)
        ops.append((op, tuple(reads), writes))

    previous = None
    for i, channels in enumerate(net.sps_channels):
        height, width = net.map_size(i)
        packing_in = Packing(net.sps_channels[i - 1] if i else net.image_channels, lanes)
        if net.sps_pool[i]:
            in_height, in_width = net.map_size(i - 1)
            pool = Operation(f"sps.{i}.pool", "pool", in_height, in_width, packing_in=packing_in)
            add(pool, [previous], f"sps.{i}.pooled", height * width)
            previous = f"sps.{i}.pooled"
        last = i == net.sps_depth - 1
        op = Operation(
            f"sps.{i}",
            "accumulate",
            height,
            width,
            kernel=3,
            source="spikes" if i else "pixels",
            sink="residual" if last else "spikes",
            packing_in=packing_in,
            packing_out=Packing(channels, lanes),
            first_writer=last,
            writes_spikes=True,
        )
        written = "block.0.x" if last else f"sps.{i}.spikes"
        add(op, [previous] if i else [], written, height * width)
        previous = written

    for b in range(net.depth):
        block = f"block.{b}"
        linear = Operation(block, "accumulate", 1, n, packing_in=plain, packing_out=plain, writes_spikes=True)
        for letter in "qkv":
            op = replace(linear, name=f"{block}.{letter}", packing_out=heads)
            add(op, [f"{block}.x"], f"{block}.{letter}")
        attention = Operation(f"{block}.attention", "attention", 1, n, packing_in=heads)
        add(attention, [f"{block}.q", f"{block}.k", f"{block}.v"], f"{block}.attn")
        proj = replace(linear, name=f"{block}.proj", packing_in=heads, sink="residual")
        add(proj, [f"{block}.attn"], f"{block}.mlp_in")
        add(replace(linear, name=f"{block}.fc1", packing_out=hidden), [f"{block}.mlp_in"], f"{block}.hidden")
        last = b == net.depth - 1
        fc2 = replace(
            linear,
            name=f"{block}.fc2",
            packing_in=hidden,
            sink="residual",
            writes_spikes=not last,
            sums_head=last,
        )
        add(fc2, [f"{block}.hidden"], None if last else f"block.{b + 1}.x")

    head = Operation(
        "head",
        "accumulate",
        1,
        head_slices,
        source="head_sum",
        sink="logits",
        packing_in=Packing(d, hw.post_lanes),
        packing_out=Packing(net.num_classes, lanes),
    )
    add(head)
    return ops, tensors


def _place(ops, tensors: dict[str, _Tensor]) -> tuple[list[Operation], int]:
    """Give every spike tensor its region; returns the operations with addresses and the memory depth."""
    last_read = {name: i for i, (_, reads, _) in enumerate(ops) for name in reads}
    regions = Regions()
    base: dict[str, int] = {}
    placed = []
    for i, (op, reads, writes) in enumerate(ops):
        if writes is not None:
            tensor = tensors[writes]
            words = tensor.positions * tensor.packing.groups
            base[writes] = regions.place(words, i, last_read[writes])
        addresses = [base[name] for name in reads] + [0] * (3 - len(reads))
        fields = {"src_base": addresses[0], "k_base": addresses[1], "v_base": addresses[2]}
        names = reads or {"pixels": ("pixels",), "head_sum": ("head.sum",)}[op.source]
        placed.append(replace(op, dst_base=base[writes] if writes else 0, reads=names, **fields))
    return placed, regions.depth


def _lay_out_weights(ops: list[Operation], hw: HardwareConfig):
    """Number the weight rows and constant words in program order."""
    rows = consts = tiles = 0
    laid = []
    for op in ops:
        if op.kind == "accumulate":
            groups = op.packing_out.groups
            op = replace(op, tile_base=rows, const_base=consts)
            rows += groups * op.tile_rows
            consts += sum(op.subgroups(g, hw.post_lanes) for g in range(groups))
            tiles += groups
        laid.append(op)
    return laid, rows, consts, tiles


def _with_trace(op: Operation, net: NetworkConfig, tensors: dict[str, _Tensor]) -> Operation:
    """Attach the golden tensors that can be observed while `op` runs."""
    maps = []

    def spike(name: str):
        tensor = tensors[name]
        packing = tensor.packing
        maps.append(
            TraceMap(name, "spike", op.dst_base, tensor.positions, packing.groups, packing.channels, packing)
        )

    def other(name: str, memory: Literal["residual", "y"], packing: Packing):
        maps.append(TraceMap(name, memory, 0, net.tokens, packing.groups, packing.channels, packing))

    parts = op.name.split(".")
    if op.kind == "pool":
        spike(f"sps.{parts[1]}.pooled")
    elif op.kind == "attention":
        other(f"block.{parts[1]}.y", "y", op.packing_in)
        spike(f"block.{parts[1]}.attn")
    elif op.sink == "spikes":
        spike(
            {"sps": f"{op.name}.spikes", "fc1": f"block.{parts[1]}.hidden"}.get(
                parts[0] if parts[0] == "sps" else parts[-1], op.name
            )
        )
    elif op.sink == "residual":
        block = int(parts[1])
        names = {
            "sps": ("sps.u", "block.0.x"),
            "proj": (f"block.{block}.u_attn", f"block.{block}.mlp_in"),
            "fc2": (f"block.{block}.u", f"block.{block + 1}.x"),
        }["sps" if parts[0] == "sps" else parts[-1]]
        other(names[0], "residual", op.packing_out)
        if op.writes_spikes:
            spike(names[1])
    return replace(op, trace=tuple(maps))
