"""Whole networks on the core: every tensor, logit, class and cycle as modelled; planted faults are found."""

import dataclasses

import numpy as np
import pytest
from amaranth import Signal

import s2tdpt.hw.engine
from s2tdpt.golden.params import Params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.hw.cycles import SEQUENCER_CYCLES, frame_cycles
from s2tdpt.hw.scanner import SpikeScanner
from tests.hw.core_bench import (
    build_case,
    check,
    differences,
    liveliness,
    network,
    run_and_check,
    run_core,
    traces_of,
)

GREY_ONE_STEP = dict(timesteps=1, heads=3)
RGB_SINGLE_CONV = dict(
    image_height=3,
    image_width=5,
    image_channels=3,
    sps_channels=(5,),
    sps_pool=(False,),
    heads=1,
    pixel_zero_point=128,
)
DEEP = dict(depth=2, weight_bits=4, num_classes=11, sps_channels=(3, 4, 6), sps_pool=(False, False, True))

CASES = {
    # Three tokens a row, two rows: the last position of a map row and the first of the next run together.
    "two_rows": (network(), HardwareConfig(lanes=4, rows=2, post_lanes=2)),
    "one_step": (network(**GREY_ONE_STEP), HardwareConfig(lanes=5, rows=1, post_lanes=1)),
    "eight_steps": (network(timesteps=8), HardwareConfig(lanes=8, rows=1, post_lanes=8)),
    "single_convolution": (network(**RGB_SINGLE_CONV), HardwareConfig(lanes=8, rows=3, post_lanes=4)),
    "two_blocks": (network(**DEEP), HardwareConfig(lanes=6, rows=1, post_lanes=3)),
    "streamed": (network(), HardwareConfig(lanes=4, rows=2, post_lanes=4, weight_memory="stream")),
    "streamed_int4": (network(**DEEP), HardwareConfig(lanes=3, rows=1, post_lanes=1, weight_memory="stream")),
    "one_lane": (
        network(heads=3, sps_channels=(2, 3), mlp_ratio=1),
        HardwareConfig(lanes=1, rows=2, post_lanes=1),
    ),
    "one_pixel": (network(image_height=1, image_width=1), HardwareConfig(lanes=4, rows=1, post_lanes=2)),
    "one_column": (
        network(image_width=1, image_height=6, sps_pool=(False, False)),
        HardwareConfig(lanes=16, rows=1, post_lanes=2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_golden_model_and_cycle_model(name):
    config, hardware = CASES[name]
    case, result = run_and_check(config, hardware, seed=4)
    # Nothing is proven about what lies behind a layer that is silent.
    assert liveliness(case.golden) == 1
    # The second frame was waiting: it follows at the sequencer's pace.
    steps, ops = result.dump.steps, len(case.program.ops)
    assert steps.start[ops] - steps.done[ops - 1] == SEQUENCER_CYCLES + 1


@pytest.mark.parametrize("stalls", ["random", "bursty", "starved"])
@pytest.mark.parametrize("weight_memory", ["rom", "stream"])
def test_stalls_on_every_stream(weight_memory, stalls):
    hardware = HardwareConfig(lanes=4, rows=2, post_lanes=2, weight_memory=weight_memory)
    # Late pixels and a slow sink cost nothing inside an operation; late weights do.
    run_and_check(network(), hardware, seed=4, stalls=stalls, cycles=weight_memory == "rom")


def test_blocked_results_hold_the_machine_before_the_next_head():
    """Nothing is lost: the head of the second image waits for the first one's class, the third for a bank."""
    case = build_case(network(), CASES["two_rows"][1], seed=4, frames=3)
    opens = 3 * frame_cycles(case.program, traces_of(case)[0])[1]
    result = run_core(case, sink_opens=opens)
    check(case, result, cycles=False)
    steps, ops = result.dump.steps, len(case.program.ops)
    second_head = steps.start[2 * ops - 1]
    assert steps.done[2 * ops - 2] < opens - 200 and opens < second_head


@pytest.mark.parametrize("name, fraction", [("two_rows", 0.4), ("streamed_int4", 1.2)])
def test_reset_in_the_middle_of_an_image(name, fraction):
    """Whatever state the machine is in: after one cycle of reset it computes as if new."""
    case = build_case(*CASES[name], seed=4, frames=1)
    total = frame_cycles(case.program, traces_of(case)[0])[1]
    check(case, run_core(case, reset_at=int(fraction * total)))


def test_wrong_weight_frame_is_flagged():
    case = build_case(*CASES["streamed"], seed=4, frames=1)
    result = run_core(case, weights_last=-2)
    assert result.errors == (0, 0, 1)
    assert differences(case, result) == []


def random_case(seed: int):
    """Any small network on any machine that fits it."""
    rng = np.random.default_rng(seed)

    def pick(*choices):
        return choices[rng.integers(len(choices))]

    heads, head_dim, convolutions = pick(1, 2, 3, 4), pick(1, 2, 3, 5), pick(1, 2, 3)
    channels = [int(c) for c in rng.integers(1, 9, convolutions - 1)] + [heads * head_dim]
    config = network(
        image_height=pick(1, 2, 3, 5),
        image_width=pick(2, 3, 4),
        image_channels=pick(1, 2, 3),
        num_classes=pick(2, 3, 9),
        timesteps=pick(1, 2, 3, 4, 5, 8),
        sps_channels=tuple(channels),
        sps_pool=(False, *(pick(False, True) for _ in channels[1:])),
        depth=pick(1, 1, 2),
        heads=heads,
        mlp_ratio=pick(1, 2),
        weight_bits=pick(4, 8),
        pixel_zero_point=pick(0, 128),
    )
    narrowest = min(config.map_size(i)[1] for i in range(convolutions))
    lanes = max(head_dim, config.image_channels) + pick(0, 1, 3, 8)
    hardware = HardwareConfig(
        lanes=lanes,
        rows=pick(*range(1, min(narrowest, 4) + 1)),
        post_lanes=pick(*(p for p in range(1, lanes + 1) if lanes % p == 0)),
        weight_memory=pick("rom", "stream"),
    )
    return config, hardware, pick("none", "none", "random", "bursty")


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(60))
def test_random_networks_on_random_machines(seed):
    config, hardware, stalls = random_case(seed)
    exact = hardware.weight_memory == "rom" or stalls == "none"
    run_and_check(config, hardware, seed=seed, stalls=stalls, cycles=exact)


# ---- planted faults --------------------------------------------------------------------------------------

MACHINE = HardwareConfig(lanes=4, rows=1, post_lanes=2)


@pytest.fixture(scope="module")
def sound():
    """A case that the unaltered hardware computes correctly, as the other tests show."""
    return build_case(network(), MACHINE, seed=4, frames=1)


def with_change(params: Params, name: str, change) -> Params:
    """Copy of `params` whose tensor `name` was altered in place by ``change(tensor)``."""
    tensors = {key: value.copy() for key, value in params.tensors.items()}
    change(tensors[name])
    return dataclasses.replace(params, tensors=tensors)


def flip_weight_bit(tensor):
    # One bit of one weight, of an input channel that fires in `sound`.
    tensor[1, 0] ^= 64


def fire_always(tensor):
    tensor[3] = 1


def add_one(tensor):
    tensor += 1


def swap_potentiation_and_depression(tensor):
    tensor[:] = tensor[::-1].copy()


@pytest.mark.parametrize(
    "tensor, change, where",
    [
        pytest.param("sps.1.weight", flip_weight_bit, "sps.u: image 0, step ", id="stem weight"),
        pytest.param(
            "block.0.proj.weight", flip_weight_bit, "block.0.u_attn: image 0, step ", id="proj weight"
        ),
        pytest.param(
            "block.0.fc1.threshold", fire_always, "block.0.hidden: image 0, step ", id="mlp threshold"
        ),
        pytest.param("block.0.k.threshold", fire_always, "block.0.k: image 0, step ", id="key threshold"),
        pytest.param(
            "stdp.lut", swap_potentiation_and_depression, "block.0.y: image 0, step ", id="stdp table"
        ),
        pytest.param("head.bias", add_one, "head.logits: image 0, channel 0: expected ", id="head bias"),
    ],
)
def test_altered_memory_contents_are_found_and_located(sound, tensor, change, where):
    result = run_core(sound, built_from=with_change(sound.params, tensor, change))
    found = differences(sound, result)
    assert found and found[0].startswith(where), found
    with pytest.raises(AssertionError):
        check(sound, result)


class DroppedSpike(SpikeScanner):
    """Loses one spike, the `lost`-th of an image."""

    lost = 0

    def elaborate(self, platform):
        m = super().elaborate(platform)
        count = Signal(16)
        spike = self.event.valid & self.event.ready & (self.event.payload.fire | (count == self.lost))
        with m.If(spike):
            m.d.sync += count.eq(count + 1)
        with m.If(count == self.lost):
            m.d.comb += self.event.payload.fire.eq(0)
        return m


class LostCycle(SpikeScanner):
    """Computes correctly but pauses once."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        paused = Signal()
        with m.If(self.request.valid & ~paused):
            m.d.sync += paused.eq(1)
            m.d.comb += [self.request.ready.eq(0), self.read_en.eq(0)]
        return m


def test_dropped_spike_is_found_and_located(sound, monkeypatch):
    operations, _ = frame_cycles(sound.program, traces_of(sound)[0])
    names = [o.name for o in operations]
    monkeypatch.setattr(DroppedSpike, "lost", sum(o.events for o in operations[: names.index("sps.1")]))
    monkeypatch.setattr(s2tdpt.hw.engine, "SpikeScanner", DroppedSpike)
    result = run_core(sound)
    assert differences(sound, result)[0].startswith("sps.u: image 0, step 0, "), differences(sound, result)
    with pytest.raises(AssertionError):
        check(sound, result)


def test_lost_cycle_is_found(sound, monkeypatch):
    monkeypatch.setattr(s2tdpt.hw.engine, "SpikeScanner", LostCycle)
    result = run_core(sound)
    assert differences(sound, result) == []
    with pytest.raises(AssertionError, match=r"sps\.0: (\d+) cycles, (\d+) events; model \d+, \2"):
        check(sound, result)
    check(sound, result, cycles=False)
