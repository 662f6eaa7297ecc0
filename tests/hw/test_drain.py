"""DrainSequencer: a tag for every piece of every position, by loops over the layer program."""

import numpy as np
import pytest

from s2tdpt.hw.blocks.drain import DrainSequencer
from s2tdpt.hw.blocks.step_rom import StepRecords
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Sink, Source
from s2tdpt.hw.plan.records import FETCH_CYCLES, STREAM_CONSTANT_TILES, Sizes
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.sim.cases import network
from tests.hw.util import simulate

PROGRAMS = {
    "tiny": (network(), Machine(lanes=4, banks=2, post_lanes=2)),
    "streamed": (
        network(sps_channels=(3, 10), timesteps=3, num_classes=5),
        Machine(lanes=4, banks=1, post_lanes=1, weight_memory="stream"),
    ),
    "odd maps": (
        network(image_height=5, image_width=3, sps_channels=(3, 4, 6), sps_pool=(False, True, True)),
        Machine(lanes=3, banks=1, post_lanes=3),
    ),
    "two blocks": (network(depth=2, timesteps=5), Machine(lanes=6, banks=1, post_lanes=2)),
}


def tags_of(program):
    """For every arrival of an image: (cycles until the next may come, tags of its pieces)."""
    machine, found = program.machine, []
    slot = 0
    for number, step in enumerate(program.steps):
        pieces, groups = step.subgroups(machine), step.packing_out.groups
        address = step.dst_base + (0 if step.sink is Sink.ATTENTION else step.group)
        signed = step.source is Source.HEAD_SUM or (
            step.source is Source.PIXELS and program.network.pixel_zero_point != 0
        )
        for y in range(step.height):
            for x in range(step.width):
                position = y * step.width + x
                for plane_pass in range(step.passes):
                    end = (position, plane_pass) == (step.positions - 1, step.passes - 1)
                    tags = []
                    for s in range(pieces):
                        piece = step.group * machine.subgroups + s
                        constant = slot + s if machine.weight_memory == "stream" else step.const_base + s
                        tag = {
                            "step": number,
                            "sink": step.sink.value,
                            "by_planes": step.source is not Source.SPIKES,
                            "signed_planes": signed,
                            "first_writer": step.first_writer,
                            "sums_head": step.sums_head,
                            "pooled": step.pooled,
                            "projection": step.projection,
                            "first_pass": plane_pass == 0,
                            "last_pass": plane_pass == step.passes - 1,
                            "first_position": position == 0,
                            "position": position,
                            "piece": piece,
                            "subgroup": s,
                            "final": step.group == groups - 1 and s == pieces - 1,
                            "column": x // 2,
                            "odd_x": x % 2,
                            "last_x": x == step.width - 1,
                            "first_y": y == 0,
                            "odd_y": y % 2,
                            "last_y": y == step.height - 1,
                            "tile_end": end and s == pieces - 1,
                            "heads_ready": step.heads_ready,
                            "constant": constant,
                        }
                        if step.sink in (Sink.SPIKES, Sink.RESIDUAL) and step.writes_spikes:
                            place = position
                            if step.pooled:
                                # Written with the last position of a 2 x 2 window, at the map's edge earlier.
                                place = y // 2 * -(-step.width // 2) + x // 2
                            if not step.pooled or (
                                (x % 2 or x == step.width - 1) and (y % 2 or y == step.height - 1)
                            ):
                                tag["address"] = address + place * groups
                        if step.sink is Sink.RESIDUAL:
                            tag["residual_address"] = position * program.residual_pieces + piece
                        if step.sink is Sink.ATTENTION:
                            tag["base"] = step.dst_base
                        tags.append(tag)
                    found.append((pieces + (FETCH_CYCLES if end else 0), tags))
        slot = (slot + machine.subgroups) % (STREAM_CONSTANT_TILES * machine.subgroups)
    return found


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("pause", [0, 4])
def test_tags_of_an_image(name, pause):
    """The first piece is named in the cycle of `arrived`, then one a cycle; as close as may be."""
    program = build_program(*PROGRAMS[name], 20)
    sizes = Sizes(program)
    dut = DrainSequencer(program, sizes, StepRecords(program))
    arrivals = tags_of(program) * (2 if program.machine.weight_memory == "rom" else 1)
    rng = np.random.default_rng(1)

    async def testbench(ctx):
        for _ in range(FETCH_CYCLES + 1):
            assert not ctx.get(dut.valid)
            await ctx.tick()
        for wait, tags in arrivals:
            wait += int(rng.integers(pause + 1))
            for cycle in range(wait):
                ctx.set(dut.arrived, cycle == 0)
                assert ctx.get(dut.valid) == (cycle < len(tags))
                if cycle < len(tags):
                    value = ctx.get(dut.tag)
                    got = {
                        field: int(value[field].value if field == "sink" else value[field])
                        for field in tags[cycle]
                        if field != "constant"
                    }
                    got["constant"] = ctx.get(dut.constant)
                    assert got == {field: int(wanted) for field, wanted in tags[cycle].items()}
                await ctx.tick()

    simulate(dut, testbench, deadline=100 + sum(wait + pause for wait, _ in arrivals))
