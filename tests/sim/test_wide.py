"""Long co-simulations: S2TDPT-4-384's encoder block at real width, and random networks under random stalls.

Run with ``scripts/test -m wide tests/sim``.
"""

import numpy as np
import pytest

from s2tdpt.golden.config import load_config
from s2tdpt.golden.params import random_params
from s2tdpt.hw.config import HardwareConfig
from s2tdpt.sim.cosim import cosimulate
from s2tdpt.sim.stalls import PATTERNS
from tests.hw.core_bench import build_case
from tests.hw.test_core import random_case


@pytest.mark.wide
@pytest.mark.parametrize("weights", ["rom", "stream"])
def test_encoder_block_at_real_width(weights):
    """One block of S2TDPT-4-384: 64 tokens, 384 channels, 12 heads, 4 steps, behind a one-layer stem."""
    paper = load_config("s2tdpt-4-384")
    network = paper.model_copy(
        update={
            "name": "s2tdpt-4-384-block",
            "image_height": 8,
            "image_width": 8,
            "sps_channels": (384,),
            "sps_pool": (False,),
            "depth": 1,
        }
    )
    assert (network.tokens, network.embed_dim, network.heads, network.timesteps) == (64, 384, 12, 4)
    params = random_params(network, 1)
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    report = cosimulate(params, HardwareConfig(weight_memory=weights), image)
    assert report.ok, report.first()
    assert report.tensors == 11
    assert report.utilisation > 0.9


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(100, 108))
def test_random_networks_on_verilator(seed):
    config, hardware, _ = random_case(seed)
    case = build_case(config, hardware, seed=seed)
    stall = PATTERNS[seed % len(PATTERNS)]
    report = cosimulate(case.params, hardware, case.images, stall=stall, seed=seed)
    assert report.ok, report.first()
