"""Small networks on odd machines, for the tests of whatever holds or moves the weights."""

from dataclasses import dataclass

from s2tdpt.golden.bounds import Bounds, derive_bounds
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.params import Params, random_params
from s2tdpt.hw.machine import Machine
from s2tdpt.hw.program import Program, build_program
from s2tdpt.hw.records import Sizes
from s2tdpt.hw.widths import Widths, derive_widths


def tiny(**changes) -> NetworkConfig:
    """5x4 grey image, 6 channels in 2 heads, 3 x 2 tokens."""
    fields = dict(
        name="tiny",
        image_height=5,
        image_width=4,
        image_channels=1,
        num_classes=3,
        timesteps=2,
        sps_channels=(4, 6),
        sps_pool=(False, True),
        depth=1,
        heads=2,
        mlp_ratio=2,
    )
    return NetworkConfig(**{**fields, **changes})


CASES = {
    "partial groups": (tiny(), Machine(lanes=4, banks=2, post_lanes=2)),
    "one lane": (tiny(), Machine(lanes=1, banks=1, post_lanes=1)),
    "six lanes, three banks, odd T": (
        tiny(timesteps=3, weight_bits=4, num_classes=5),
        Machine(lanes=6, banks=3, post_lanes=2),
    ),
    "pixels of three channels on 48 lanes": (
        tiny(image_channels=3, timesteps=5),
        Machine(lanes=48, banks=8, post_lanes=8),
    ),
    "heads with slots left over": (
        tiny(sps_channels=(4, 12), heads=4, depth=2),
        Machine(lanes=8, banks=2, post_lanes=4),
    ),
    "heads across words": (
        tiny(sps_channels=(5, 20), heads=4, num_classes=9),
        Machine(lanes=12, banks=3, post_lanes=4),
    ),
    "rows of an odd number of nibbles": (tiny(weight_bits=4), Machine(lanes=3, banks=3, post_lanes=1)),
    "more banks than post-processing lanes": (tiny(), Machine(lanes=16, banks=8, post_lanes=2)),
}


@dataclass(frozen=True)
class Setting:
    """Everything derived from a network and a machine."""

    params: Params
    bounds: Bounds
    widths: Widths
    program: Program
    sizes: Sizes


def derive(network: NetworkConfig, machine: Machine, seed: int = 1) -> Setting:
    """Random integers for `network`, scheduled on `machine`."""
    params = random_params(network, seed)
    bounds = derive_bounds(params)
    widths = derive_widths(params, bounds)
    program = build_program(network, machine, widths.head_sum)
    return Setting(params, bounds, widths, program, Sizes(program))


def setting(name: str, memory: str = "rom") -> Setting:
    """One of `CASES`."""
    network, machine = CASES[name]
    return derive(network, machine.model_copy(update={"weight_memory": memory}))
