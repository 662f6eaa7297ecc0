"""The layer program: what every step waits for, where tensors lie, and that all of them can be observed."""

from collections import Counter

import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.golden.trace import trace_shapes
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Port, Sink, Source
from s2tdpt.hw.plan.records import constant_words, final_cooldown, weight_rows
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.test_core import CASES, random_case

SHAPES = {**CASES, "digits": (load_config("digits"), Machine())}
SHAPES |= {f"random {seed}": random_case(seed)[:2] for seed in range(40)}
WRITERS = {"x": "fc2", "mlp_in": "proj", "hidden": "fc1"}


@pytest.fixture(params=SHAPES, scope="module")
def program(request):
    return build_program(*SHAPES[request.param], 20)


def layers_of(config):
    """Weight layers in the order of the data."""
    names = [f"sps.{i}" for i in range(len(config.sps_channels))]
    for b in range(config.depth):
        names += [f"block.{b}.{part}" for part in ("q", "k", "v", "proj", "fc1", "fc2")]
    return [*names, "head"]


def last_step(program, layer):
    return max(i for i, step in enumerate(program.steps) if step.layer == layer)


def writer_of(program, tensor):
    """Layer that writes a spike tensor, from its name alone."""
    config = program.network
    kind, number, what = tensor.split(".")
    if kind == "sps":
        return f"sps.{int(number) - 1 if what == 'pooled' else number}"
    if what == "x":
        return f"sps.{len(config.sps_channels) - 1}" if number == "0" else f"block.{int(number) - 1}.fc2"
    return f"block.{number}.{WRITERS[what]}"


def test_every_layer_is_covered_once(program):
    assert list(dict.fromkeys(step.layer for step in program.steps)) == layers_of(program.network)
    lanes = program.machine.lanes
    for layer in layers_of(program.network):
        steps = [step for step in program.steps if step.layer == layer]
        packing = steps[0].packing_out
        assert [step.group for step in steps] == list(range(packing.groups))
        assert sum(step.channels for step in steps) == packing.channels
        assert all(0 < step.lanes_used <= lanes for step in steps)


def test_steps_wait_for_what_they_read(program):
    for index, step in enumerate(program.steps):
        assert -1 <= step.after < index
        if step.source is Source.PIXELS:
            assert (step.after, step.after_attention) == (-1, 0)
        elif step.source is Source.HEAD_SUM:
            assert step.after == last_step(program, f"block.{program.network.depth - 1}.fc2")
        elif step.reads.endswith(".attn"):
            # The attention is complete, and with it all projections.
            assert step.after_attention == int(step.reads.split(".")[1]) + 1
        else:
            assert step.after == last_step(program, writer_of(program, step.reads))
            assert step.after_attention == 0


def test_heads_become_ready_in_order(program):
    """`heads_ready` speaks of complete q, k and v only, and the last step speaks of all heads."""
    net, packing = program.network, program.head_packing
    for b in range(net.depth):
        steps = [s for s in program.steps if s.layer in {f"block.{b}.{part}" for part in "qkv"}]
        assert [step.layer[-1] for step in steps] == list("qkv") * packing.groups
        done = {0: 0, 1: 0, 2: 0}  # slots so far
        before = 0
        for step in steps:
            assert (step.sink, step.projection) == (Sink.ATTENTION, "qkv".index(step.layer[-1]))
            done[step.projection] = step.group * program.machine.lanes + step.lanes_used
            heads = [
                h
                for h in range(net.heads)
                if packing.slots()[(h + 1) * net.head_dim - 1] < min(done.values())
            ]
            if step.heads_ready:
                assert before <= step.heads_ready <= len(heads)
                before = step.heads_ready
        assert steps[-1].heads_ready == net.heads


def regions_of(program):
    """(tensor, base, words, first writer, last reader) of every tensor in the spike memory."""
    found = {}
    for index, step in enumerate(program.steps):
        if step.source is Source.SPIKES:
            words = step.positions * step.packing_in.groups
            entry = found[step.reads]
            assert entry[:2] == [step.src_base, words], step.reads
            entry[3] = index
        written = None
        if step.sink is Sink.ATTENTION:
            written = step.reads.replace(".x", ".attn")
        elif step.writes_spikes:
            traces = [t for t in step.traces if t.port in (Port.PIECE, Port.WRITE)]
            written = traces[-1].tensor
        if written is not None:
            trace = next(t for s in program.steps for t in s.traces if t.tensor == written)
            entry = found.setdefault(
                written, [step.dst_base, trace.positions * trace.packing.groups, index, index]
            )
            assert entry[0] == step.dst_base
            assert trace.port is not Port.WRITE or trace.base == step.dst_base
    return found


def test_regions_never_overlap_while_alive(program):
    regions = list(regions_of(program).items())
    for i, (one, (base, words, first, last)) in enumerate(regions):
        assert base + words <= program.spike_words
        assert last > first, f"{one} is never read"
        for other, (base2, words2, first2, last2) in regions[:i]:
            apart = base + words <= base2 or base2 + words2 <= base
            assert apart or last < first2 or last2 < first, (one, other)


def test_nothing_is_written_where_an_earlier_step_may_still_read(program):
    """A step may start while the one before is drained: its writes must not meet words being read."""
    regions = regions_of(program)
    for name, (base, words, first, _) in regions.items():
        for other, (base2, words2, first2, last2) in regions.items():
            if first2 < first and (base < base2 + words2 and base2 < base + words):
                assert last2 < first, (name, other)


def test_every_golden_tensor_is_observable(program):
    shapes = trace_shapes(program.network)
    seen = Counter()
    for step in program.steps:
        for trace in step.traces:
            t, positions, channels = shapes[trace.tensor]
            assert (program.network.timesteps, trace.positions, trace.packing.channels) == (
                *(t, positions, channels),
            )
            seen[trace.tensor, step.layer] += 1
    names = [tensor for tensor, _ in seen]
    assert len(names) == len(set(names))  # of one layer each
    assert set(names) == {name for name in shapes if not name.startswith("head.")}
    for (tensor, layer), count in seen.items():
        tiles = sum(step.layer == layer for step in program.steps)
        whole = tensor.endswith((".y", ".attn"))  # of the last tile of v
        assert count == (1 if whole else tiles), tensor


def test_rows_and_constants_are_numbered_in_order(program):
    machine, rows, consts = program.machine, 0, 0
    for step in program.steps:
        assert (step.tile_base, step.const_base) == (rows, consts)
        slots = [step.packing_in.lanes_of(word) for word in range(step.packing_in.groups)]
        tap = sum(-(-count // machine.banks) for count in slots)
        assert step.tap_rows(machine) == tap
        assert step.tile_rows(machine) == step.kernel**2 * tap
        assert step.subgroups(machine) == -(-step.lanes_used // machine.post_lanes)
        rows += step.tile_rows(machine)
        consts += step.subgroups(machine)
    assert (program.rows, program.const_words) == (rows, consts)
    assert program.max_tile_rows == max(step.tile_rows(machine) for step in program.steps)
    if machine.weight_memory == "stream":
        ring = weight_rows(program)
        assert ring & (ring - 1) == 0 and program.max_tile_rows <= ring
        assert constant_words(program) == 4 * machine.subgroups
    assert final_cooldown(program) == max(machine.subgroups, 1) + 2


def test_residual_stream_has_one_first_writer(program):
    writers = [step for step in program.steps if step.sink is Sink.RESIDUAL]
    last = len(program.network.sps_channels) - 1
    assert {step.layer for step in writers if step.first_writer} == {f"sps.{last}"}
    assert all(step.first_writer == (step.layer == f"sps.{last}") for step in writers)
    summed = {step.layer for step in program.steps if step.sums_head}
    assert summed == {f"block.{program.network.depth - 1}.fc2"}
    assert all(step.writes_spikes != step.sums_head for step in writers)


@pytest.mark.parametrize("steps, pixel, head", [(1, 8, 20), (2, 4, 10), (3, 3, 7), (5, 2, 4), (8, 1, 3)])
def test_passes_of_planes(steps, pixel, head):
    program = build_program(network(timesteps=steps), Machine(lanes=4, banks=2, post_lanes=2), 20)
    assert (program.pixel_passes, program.head_passes) == (pixel, head)
    assert program.piece_bits == 2 * steps
    assert [program.steps[0].passes, program.steps[-1].passes] == [pixel, head]
    assert {step.passes for step in program.steps[1:-1] if step.source is Source.SPIKES} == {1}
