"""Small networks that between them reach the corners of the configuration space."""

from __future__ import annotations

import numpy as np
import torch

from s2tdpt.golden.config import NetworkConfig, config_from_dict
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.operand import BINARY
from s2tdpt.golden.params import Params, random_params


def make_config(**changes: object) -> NetworkConfig:
    """A tiny network, with `changes`."""
    values: dict[str, object] = dict(
        name="tiny",
        image_height=6,
        image_width=6,
        image_channels=2,
        num_classes=5,
        timesteps=4,
        sps_channels=[6, 12],
        sps_pool=[False, True],
        depth=1,
        heads=2,
        mlp_ratio=2,
    )
    return config_from_dict({**values, **changes})


SHAPES: dict[str, NetworkConfig] = {
    "base": make_config(),
    "odd-tokens": make_config(image_height=5, image_width=3, sps_pool=[False, False], heads=3),
    "odd-pooled": make_config(
        image_height=7, image_width=5, sps_channels=[4, 6, 10], sps_pool=[False, True, True]
    ),
    "head-dim-5": make_config(sps_channels=[7, 15], heads=3, timesteps=3),
    "one-head": make_config(sps_channels=[5, 9], heads=1, timesteps=2),
    "head-dim-1": make_config(sps_channels=[3, 4], heads=4, timesteps=5),
    "one-step": make_config(timesteps=1, pixel_zero_point=128),
    "eight-steps": make_config(timesteps=8, image_height=4, image_width=4),
    "single-stem": make_config(sps_channels=[12], sps_pool=[False], image_height=3, image_width=4, depth=2),
    "single-token": make_config(
        image_height=1, image_width=1, sps_channels=[8], sps_pool=[False], timesteps=6
    ),
    "zero-point": make_config(image_channels=3, pixel_zero_point=128),
    "int4": make_config(weight_bits=4, depth=2, timesteps=7),
    "coarse-stream": make_config(residual_fraction_bits=0, weight_bits=4),
    "fine-stream": make_config(residual_fraction_bits=16, sps_channels=[6, 10], heads=5),
}


def random_config(seed: int) -> NetworkConfig:
    """A random small network."""
    rng = np.random.default_rng(seed)
    stem = int(rng.integers(1, 4))
    heads = int(rng.integers(1, 4))
    channels = [int(c) for c in rng.integers(1, 9, stem)]
    channels[-1] = heads * int(rng.integers(1, 8))
    return make_config(
        image_height=int(rng.integers(1, 9)),
        image_width=int(rng.integers(1, 9)),
        image_channels=int(rng.integers(1, 4)),
        num_classes=int(rng.integers(2, 12)),
        timesteps=int(rng.integers(1, 9)),
        sps_channels=channels,
        sps_pool=[False, *(bool(p) for p in rng.integers(0, 2, stem - 1))],
        depth=int(rng.integers(1, 3)),
        heads=heads,
        mlp_ratio=int(rng.integers(1, 5)),
        weight_bits=int(rng.choice([4, 8])),
        residual_fraction_bits=int(rng.integers(0, 13)),
        pixel_zero_point=int(rng.choice([0, 128])),
    )


def images_for(config: NetworkConfig, count: int, seed: int = 0) -> np.ndarray:
    """Random bytes, uint8 (count, H, W, C); the last image is black and white only."""
    rng = np.random.default_rng(seed)
    shape = (count, config.image_height, config.image_width, config.image_channels)
    images = rng.integers(0, 256, shape)
    images[-1] = np.where(images[-1] < 128, 0, 255)
    return images.astype(np.uint8)


def params_for(config: NetworkConfig, seed: int = 0) -> Params:
    """Random parameters for `config`."""
    return random_params(config, seed)


def emitted(
    config: NetworkConfig, kind: Kind, shape: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor | int:
    """What neurons of the projection `kind` emit where they fire, int64 of `shape`; 1 for spikes."""
    operand = config.attention.operand(kind)
    if operand == BINARY:
        return 1
    numbers = torch.tensor([number for number in range(operand.lo, operand.hi + 1) if number])
    return numbers[torch.randint(len(numbers), shape, generator=generator)]
