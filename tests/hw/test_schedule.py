"""The layer program: dataflow, regions and weights of small networks and of the published shapes."""

import dataclasses
import math

import pytest

from s2tdpt.golden.config import load_config, named_configs
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.trace import trace_shapes
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.operation import OperationLayout, operation_fields
from s2tdpt.hw.schedule import build_program
from tests.hw.core_bench import network

CASES = {
    "tiny": (network(depth=2), HardwareConfig(lanes=4, post_lanes=2, rows=2)),
    "one convolution": (network(sps_channels=(6,), sps_pool=(False,)), HardwareConfig(lanes=8, post_lanes=4)),
    "streamed": (network(), HardwareConfig(lanes=3, post_lanes=1, weight_memory="stream")),
    **{name: (load_config(name), HardwareConfig()) for name in named_configs()},
    "128 lanes": (load_config("s2tdpt-4-384"), HardwareConfig(lanes=128, rows=2, post_lanes=32)),
    "384 lanes": (load_config("s2tdpt-4-384"), HardwareConfig(lanes=384, rows=4, post_lanes=64)),
}


def program_of(name):
    return build_program(*CASES[name], head_sum_bits=24)


def words_of(op):
    """Words that the operation writes to the spike memory."""
    spikes = [t for t in op.trace if t.memory == "spike"]
    return sum(t.positions * t.groups for t in spikes)


def conflicts(program):
    """Reads of words that hold another tensor by then, and operations that overwrite what they read.

    Follows the contents of the spike memory word by word, as the machine would.
    """
    memory: dict[int, str] = {}
    found = []
    for op in program.ops:
        spikes = [t for t in op.trace if t.memory == "spike"]
        sources = [op.src_base, op.k_base, op.v_base][: len(op.reads)]
        read = set()
        if op.kind != "accumulate" or op.source == "spikes":
            for name, base in zip(op.reads, sources, strict=True):
                positions = trace_shapes(program.network)[name][1]
                region = range(base, base + positions * op.packing_in.groups)
                read |= set(region)
                found += [
                    f"{op.name} reads {memory.get(a)} for {name}" for a in region if memory.get(a) != name
                ]
        for t in spikes:
            region = range(t.base, t.base + t.positions * t.groups)
            assert region.stop <= program.spike_words
            assert t.base == op.dst_base
            found += [f"{op.name} overwrites its input" for a in region if a in read]
            memory |= {a: t.tensor for a in region}
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_operation_reads_what_was_written_for_it(name):
    assert conflicts(program_of(name)) == []


@pytest.mark.parametrize("name", CASES)
def test_every_layer_once_and_in_network_order(name):
    program = program_of(name)
    config = program.network
    layers = [op.name for op in program.ops if op.kind == "accumulate"]
    assert layers == list(config.layer_names())
    assert sum(op.kind == "pool" for op in program.ops) == sum(config.sps_pool)
    assert sum(op.kind == "attention" for op in program.ops) == config.depth
    writers = [op.name for op in program.ops if op.sink == "residual"]
    assert writers == [layer for layer in layers if config.is_writer(layer)]
    assert [op.name for op in program.ops if op.first_writer] == writers[:1]
    assert [op.name for op in program.ops if op.sums_head] == writers[-1:]


@pytest.mark.parametrize("name", CASES)
def test_every_traced_tensor_is_observable(name):
    """Each golden tensor but those of the head has exactly one place, of the right size."""
    program = program_of(name)
    seen = {t.tensor: t for op in program.ops for t in op.trace}
    shapes = {n: s for n, s in trace_shapes(program.network).items() if not n.startswith("head.")}
    assert seen.keys() == shapes.keys()
    assert sum(len(op.trace) for op in program.ops) == len(seen)
    for tensor, (_, positions, channels) in shapes.items():
        assert (seen[tensor].positions, seen[tensor].channels) == (positions, channels)
        assert seen[tensor].groups == seen[tensor].packing.groups


@pytest.mark.parametrize("name", CASES)
def test_weights_are_laid_out_without_gap_or_overlap(name):
    program = program_of(name)
    config, hardware = program.network, program.hardware
    rows = consts = tiles = weights = 0
    for op in program.ops:
        if op.kind != "accumulate":
            continue
        assert (op.tile_base, op.const_base) == (rows, consts)
        shape = config.weight_shape(op.name)
        assert (op.packing_out.channels, op.packing_in.channels) == shape[:2]
        used = [op.subgroups(g, hardware.post_lanes) for g in range(op.packing_out.groups)]
        assert all(1 <= n <= hardware.subgroups for n in used)
        rows += op.packing_out.groups * op.tile_rows
        consts += sum(used)
        tiles += op.packing_out.groups
        assert op.tile_rows <= program.max_tile_rows
        weights += op.kernel**2 * shape[0] * shape[1]
    assert (rows, consts, tiles) == (program.tile_words, program.const_words, program.tiles)
    # All weights have a place; the rest of the rows is padding.
    assert weights == sum(math.prod(config.weight_shape(layer)) for layer in config.layer_names())
    assert weights <= rows * hardware.lanes


def test_padding_of_the_published_network():
    """S2TDPT-4-384 on the default machine: 64 lanes waste little."""
    program = program_of("s2tdpt-4-384")
    weights = sum(
        op.kernel**2 * op.packing_in.channels * op.packing_out.channels
        for op in program.ops
        if op.kind == "accumulate"
    )
    assert weights / (program.tile_words * program.hardware.lanes) > 0.97
    assert len(program.ops) == 5 + 2 + 4 * 7 + 1


@pytest.mark.parametrize("name", CASES)
def test_records_hold_every_field(name):
    """The program ROM gives back the fields of every operation."""
    program = program_of(name)
    layout = OperationLayout(program)
    for op, word in zip(program.ops, layout.words(), strict=True):
        assert 0 <= word < 1 << layout.size
        for field, value in operation_fields(op, program).items():
            place = layout[field]
            assert word >> place.offset & (1 << place.width) - 1 == value, (op.name, field)


def test_head_slices_cover_the_proven_width():
    for bits, slices in ((1, 1), (8, 1), (9, 2), (24, 3), (25, 4)):
        program = build_program(*CASES["tiny"], head_sum_bits=bits)
        assert program.head_slices == program.op("head").width == slices


def test_lookup_by_name():
    program = program_of("tiny")
    assert program.op("block.1.fc2").name == "block.1.fc2"
    with pytest.raises(KeyError):
        program.op("block.2.fc2")


def test_refusals():
    with pytest.raises(
        UserError,
        match=r"^a head of 3 channels does not fit 2 lanes; expected lanes >= 3; "
        r"raise 'lanes' or the number of heads$",
    ):
        build_program(network(), HardwareConfig(lanes=2, post_lanes=1), head_sum_bits=20)
    with pytest.raises(
        UserError,
        match=r"^3 rows are more than the narrowest feature map is wide \(2\); "
        r"expected rows <= 2; lower 'rows'$",
    ):
        build_program(network(), HardwareConfig(lanes=4, post_lanes=2, rows=3), head_sum_bits=20)


def test_a_misplaced_region_is_noticed():
    program = program_of("tiny")
    ops = list(program.ops)
    index = next(i for i, op in enumerate(ops) if op.name == "block.0.k")
    trace = tuple(dataclasses.replace(t, base=ops[index].src_base) for t in ops[index].trace)
    ops[index] = dataclasses.replace(ops[index], dst_base=ops[index].src_base, trace=trace)
    assert conflicts(dataclasses.replace(program, ops=tuple(ops)))
