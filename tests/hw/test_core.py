"""Whole networks on the core: every tensor, logit, class and cycle as modelled; planted faults are found."""

import dataclasses

import numpy as np
import pytest
from amaranth import Signal

import s2tdpt.hw.attention.unit
import s2tdpt.hw.blocks.front
import s2tdpt.hw.blocks.step_rom
from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.neuron import NEURONS
from s2tdpt.golden.params import Params
from s2tdpt.hw.attention.timeline import attention_lead, emission_period
from s2tdpt.hw.blocks.overlap import settle_cycles
from s2tdpt.hw.blocks.reader import WordReader
from s2tdpt.hw.blocks.scanner import BankScanner
from s2tdpt.hw.estimate.cycles import FrameModel
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.hw.plan.widths import derive_widths
from s2tdpt.sim.cases import liveliness, network, random_network
from tests.hw.core_bench import (
    build_case,
    check,
    differences,
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
    "two_banks": (network(), Machine(lanes=4, banks=2, post_lanes=2)),
    "one_step": (network(**GREY_ONE_STEP), Machine(lanes=5, banks=1, post_lanes=1)),
    "eight_steps": (network(timesteps=8), Machine(lanes=4, banks=4, post_lanes=4, queue=2)),
    "single_convolution": (
        network(**RGB_SINGLE_CONV),
        Machine(lanes=12, banks=3, post_lanes=4, queue=16, attention_steps=1),
    ),
    "two_blocks": (network(**DEEP), Machine(lanes=6, banks=6, post_lanes=3)),
    "streamed": (network(), Machine(lanes=4, banks=2, post_lanes=4, weight_memory="stream")),
    "streamed_int4": (
        network(**DEEP),
        Machine(lanes=3, banks=1, post_lanes=1, weight_memory="stream", queue=4),
    ),
    "one_lane": (
        network(image_height=3, image_width=3, heads=3, sps_channels=(2, 3), mlp_ratio=1),
        Machine(lanes=1, banks=1, post_lanes=1, queue=2),
    ),
    # A head of five channels lies in three words of two lanes.
    "heads_wider_than_a_word": (
        network(sps_channels=(3, 10), timesteps=3),
        Machine(lanes=2, banks=2, post_lanes=2, attention_steps=2),
    ),
    # A head of five channels in three pieces of two, one slot of every head left over.
    "heads_with_slots_left_over": (
        network(sps_channels=(3, 10), pixel_zero_point=128, timesteps=3),
        Machine(lanes=8, banks=4, post_lanes=2),
    ),
    # Of 27 channels of a window two lie in a word.
    "pixels_wider_than_a_word": (
        network(image_channels=3, timesteps=3, pixel_zero_point=128),
        Machine(lanes=2, banks=1, post_lanes=2),
    ),
    # A word a window, and nothing to drain longer than it takes to read a column.
    "windows_as_fast_as_they_come": (network(timesteps=8), Machine(lanes=12, banks=6, post_lanes=12)),
    "one_pixel": (network(image_height=1, image_width=1), Machine(lanes=4, banks=4, post_lanes=2)),
    "one_column": (
        network(image_width=1, image_height=6, sps_pool=(False, False)),
        Machine(lanes=8, banks=8, post_lanes=2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_golden_model_and_cycle_model(name):
    config, machine = CASES[name]
    case, _ = run_and_check(config, machine, seed=4, frames=3 if name == "two_banks" else 2)
    # Nothing is proven about what lies behind a layer that is silent.
    assert liveliness(case.params.config, case.golden) == 1


def test_images_of_a_power_of_two_of_pixels():
    """The second image lies where the highest bit of the pixels' address is set."""
    config = network(image_height=4, image_width=2, sps_channels=(4,), sps_pool=(False,))
    run_and_check(config, Machine(lanes=4, banks=2, post_lanes=2), seed=4, frames=2)


ATTENTIONS = [kind for kind in MECHANISMS if kind != "stdp"]


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_every_attention(kind):
    config = network(attention=MECHANISMS[kind]())
    case, _ = run_and_check(config, Machine(lanes=4, banks=2, post_lanes=2), seed=4, frames=1)
    assert liveliness(case.params.config, case.golden) == 1


GRADED_NETWORKS = {
    # Their bits take longer than the neurons of so few steps.
    "one step": (dict(timesteps=1, heads=3), Machine(lanes=5, banks=1, post_lanes=1)),
    "streamed": (dict(), Machine(lanes=4, banks=2, post_lanes=4, weight_memory="stream")),
    "beside other laws": (
        dict(neuron={"kind": "glif"}, timesteps=3, depth=2),
        Machine(lanes=4, banks=2, post_lanes=2, attention_steps=3),
    ),
}


@pytest.mark.parametrize("name", GRADED_NETWORKS)
def test_levels_and_signs(name):
    """Neurons that an attention prescribes: its operands on their way, every value of them exact."""
    changes, machine = GRADED_NETWORKS[name]
    case, _ = run_and_check(network(attention={"kind": "a2os2a"}, **changes), machine, seed=4, frames=2)
    assert case.golden["block.0.k"].max() > 3 and set(np.unique(case.golden["block.0.v"])) == {-1, 0, 1}


NEURON_KINDS = sorted(set(NEURONS) - {"lif"})
NEURON_NETWORKS = {
    "two blocks": (dict(depth=2, timesteps=3), Machine(lanes=4, banks=2, post_lanes=2)),
    "streamed": (dict(timesteps=3), Machine(lanes=4, banks=2, post_lanes=4, weight_memory="stream")),
    "spikes": (dict(attention={"kind": "none"}), Machine(lanes=4, banks=2, post_lanes=2)),
}


@pytest.mark.parametrize("kind", NEURON_KINDS)
@pytest.mark.parametrize("name", NEURON_NETWORKS)
def test_every_neuron(kind, name):
    """A law of its own at every place, also behind attentions: all tensors, the cycles of any network."""
    changes, machine = NEURON_NETWORKS[name]
    case, _ = run_and_check(network(neuron={"kind": kind}, **changes), machine, seed=4, frames=1)
    assert liveliness(case.params.config, case.golden) > 0.8
    assert len(set(case.params.laws.values())) > 2


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", NEURON_KINDS)
def test_every_neuron_in_random_networks(kind, seed):
    config, machine, stalls = random_case(300 + seed)
    attention = ATTENTIONS[seed % len(ATTENTIONS)] if seed % 2 else "stdp"
    config = config.model_copy(update={"neuron": NEURONS[kind](), "attention": MECHANISMS[attention]()})
    run_and_check(config, machine, seed=seed, stalls=stalls, cycles=stalls == "none")


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_every_attention_in_random_networks(kind, seed):
    config, machine, stalls = random_case(100 + seed)
    options = {"gate_threshold": (1, 2, 4, 8)[seed % 4]} if kind in ("sdsa", "qkca", "qkta") else {}
    config = config.model_copy(update={"attention": MECHANISMS[kind](**options)})
    run_and_check(config, machine, seed=seed, stalls=stalls, cycles=stalls == "none")


@pytest.mark.parametrize(
    "weight_memory, stalls", [("rom", "bursty"), ("stream", "random"), ("stream", "starved")]
)
def test_stalls_on_every_stream(weight_memory, stalls):
    """A slow sink may hold the next image's head; late weights hold any step. The values stay."""
    machine = Machine(lanes=4, banks=2, post_lanes=2, weight_memory=weight_memory)
    run_and_check(network(), machine, seed=4, stalls=stalls, cycles=False)


def test_blocked_results_hold_the_machine_before_the_next_head():
    """Nothing is lost: the head of the second image waits until the first one's class is taken."""
    case = build_case(*CASES["two_banks"], seed=4, frames=3)
    opens = 3 * FrameModel(case.program).frame(traces_of(case)[0]).interval
    result = run_core(case, sink_opens=opens)
    check(case, result, cycles=False)
    steps = len(case.program.steps)
    assert result.completes[2 * steps - 2] < opens - 100 and opens < result.starts[2 * steps - 1][0]


@pytest.mark.parametrize("name, fraction", [("two_banks", 0.4), ("streamed", 0.8)])
def test_reset_in_the_middle_of_an_image(name, fraction):
    """Whatever state the machine is in: after one cycle of reset it computes as if new."""
    case = build_case(*CASES[name], seed=4, frames=1)
    total = FrameModel(case.program).frame(traces_of(case)[0]).total
    check(case, run_core(case, reset_at=int(fraction * total)))


@pytest.mark.parametrize(
    "name, seed", [("two_banks", 1), ("two_banks", -1), ("streamed", 2), ("streamed", -2)]
)
def test_reset_out_of_any_state(name, seed):
    """Whatever registers and memories hold: what a reset leaves as it is matters to no image after it."""
    case = build_case(*CASES[name], seed=4, frames=1)
    check(case, run_core(case, reset_at=3, scramble=True, seed=seed))


@pytest.mark.parametrize("seed", [1, -1])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_reset_out_of_any_state_with_every_attention(kind, seed):
    case = build_case(network(attention=MECHANISMS[kind]()), CASES["two_banks"][1], seed=4, frames=1)
    check(case, run_core(case, reset_at=3, scramble=True, seed=seed))


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

    lanes = pick(1, 2, 3, 4, 6, 8, 12, 16)
    divisors = [p for p in range(1, lanes + 1) if lanes % p == 0]
    machine = Machine(
        lanes=lanes,
        banks=pick(*(p for p in divisors if p <= 8)),
        post_lanes=pick(*divisors),
        queue=pick(2, 4, 8, 16),
        attention_steps=pick(1, 2, 4, 8),
        weight_memory=pick("rom", "stream"),
    )
    return random_network(seed), machine, pick("none", "none", "random", "bursty")


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(60))
def test_random_networks_on_random_machines(seed):
    config, machine, stalls = random_case(seed)
    run_and_check(config, machine, seed=seed, stalls=stalls, cycles=stalls == "none")


# ---- planted faults --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound():
    """A case that the unaltered hardware computes correctly, as the other tests show."""
    return build_case(network(), Machine(lanes=4, banks=2, post_lanes=2), seed=4, frames=1)


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


def to_one(tensor):
    tensor[:] = 1


def swap_potentiation_and_depression(tensor):
    tensor[:] = tensor[::-1].copy()


@pytest.mark.parametrize(
    "tensor, change, where",
    [
        pytest.param("sps.1.weight", flip_weight_bit, "sps.u: image 0, step ", id="stem weight"),
        pytest.param("block.0.fc1.threshold", fire_always, "block.0.hidden: image 0, step ", id="threshold"),
        pytest.param("stdp.lut", swap_potentiation_and_depression, "block.0.y: image 0, step ", id="table"),
        pytest.param("head.bias", add_one, "head.logits: image 0: expected ", id="head bias"),
    ],
)
def test_altered_memory_contents_are_found_and_located(sound, tensor, change, where):
    result = run_core(sound, built_from=with_change(sound.params, tensor, change))
    found = differences(sound, result)
    assert found and found[0].startswith(where), found
    with pytest.raises(AssertionError):
        check(sound, result)


@pytest.mark.parametrize("part", ["k", "v"])
def test_another_level_or_sign_is_found_and_located(part):
    config = network(attention={"kind": "a2os2a"})
    case = build_case(config, Machine(lanes=4, banks=2, post_lanes=2), seed=4, frames=1)
    other = with_change(case.params, f"block.0.{part}.threshold", to_one)
    found = differences(case, run_core(case, built_from=other))
    assert found and found[0].startswith(f"block.0.{part}: image 0, step "), found


@pytest.mark.parametrize("kind", NEURON_KINDS)
@pytest.mark.parametrize("place", ["block.0.mlp_in", "block.0.attn"])
def test_another_law_in_the_hardware_is_found_and_located(kind, place):
    config = network(neuron={"kind": kind}, timesteps=4)
    case = build_case(config, Machine(lanes=4, banks=2, post_lanes=2), seed=4, frames=1)
    for seed in range(40):  # one that makes a difference on this image
        law = config.neuron.random_law(config, np.random.default_rng(seed))
        tensors = case.params.tensors | config.neuron.tensors(config, case.params.laws | {place: law})
        other = dataclasses.replace(case.params, tensors=tensors)
        trace = GoldenNetwork(other).trace(case.images)[place]
        if not np.array_equal(trace.numpy(), case.golden[place]):
            break
    program = build_program(config, case.machine, case.widths.head_sum, other.laws)
    bounds = derive_bounds(other)
    planted = dataclasses.replace(case, program=program, bounds=bounds, widths=derive_widths(other, bounds))
    found = differences(planted, run_core(planted, built_from=other))
    assert found and found[0].startswith(f"{place}: image 0, step "), found


class DroppedSpike(BankScanner):
    """Loses the spikes of the first slice whose weight row lies in `rows`."""

    rows = range(0)

    def elaborate(self, platform):
        m = super().elaborate(platform)
        lost, done = Signal(), Signal()
        row = self.head.row
        hit = (row >= self.rows.start) & (row < self.rows.stop) & self.head.active.any() & ~done
        with m.If(self.pop):
            m.d.sync += [lost.eq(hit), done.eq(done | hit)]
        with m.If(lost):
            m.d.sync += self.event.mask.eq(0)
        return m


class LostCycle(WordReader):
    """Computes correctly but pauses once."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        paused = Signal()
        with m.If(self.request.valid & self.pixels.ready & ~paused):
            m.d.sync += paused.eq(1)
            m.d.comb += self.request.ready.eq(0)
        return m


def test_dropped_spike_is_found_and_located(sound, monkeypatch):
    step = next(step for step in sound.program.steps if step.layer == "sps.1")
    rows = range(step.tile_base, step.tile_base + step.tile_rows(sound.machine))
    monkeypatch.setattr(DroppedSpike, "rows", rows)
    monkeypatch.setattr(s2tdpt.hw.blocks.front, "BankScanner", DroppedSpike)
    result = run_core(sound)
    assert differences(sound, result)[0].startswith("sps.u: image 0, step "), differences(sound, result)
    with pytest.raises(AssertionError):
        check(sound, result)


def test_step_that_starts_too_early_is_found(sound, monkeypatch):
    """It reads what an earlier image left, and the cycle model says when it should have started."""
    waits = settle_cycles(sound.program)
    assert max(wait for wait in waits if wait is not None) >= 8
    at_once = [wait and 0 for wait in waits]
    monkeypatch.setattr(s2tdpt.hw.blocks.step_rom, "settle_cycles", lambda program: at_once)
    result = run_core(sound)
    assert differences(sound, result) != []
    with pytest.raises(AssertionError):
        check(sound, result)


def test_attention_that_is_read_too_early_is_found(monkeypatch):
    """Its reader finds tokens of an earlier image."""
    case = build_case(*CASES["eight_steps"], seed=3)
    tokens = case.program.network.tokens
    assert attention_lead(case.program, emission_period(case.program)) < tokens - 1
    monkeypatch.setattr(s2tdpt.hw.attention.unit, "attention_lead", lambda program, period: tokens - 1)
    result = run_core(case)
    assert any("u_attn" in found for found in differences(case, result)), differences(case, result)


def test_lost_cycle_is_found(sound, monkeypatch):
    monkeypatch.setattr(s2tdpt.hw.blocks.front, "WordReader", LostCycle)
    result = run_core(sound)
    assert differences(sound, result) == []
    with pytest.raises(AssertionError, match=r"^image 0, sps\.0: starts and is complete in cycles "):
        check(sound, result)
    check(sound, result, cycles=False)
