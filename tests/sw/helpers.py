"""Small networks and data for the software tests."""

from __future__ import annotations

import numpy as np
import torch

from s2tdpt.golden.config import NetworkConfig, load_config
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.network import Network


def small(**changes) -> NetworkConfig:
    """A network of a few thousand weights; every field can be overridden."""
    fields = dict(
        name="small",
        image_height=6,
        image_width=5,
        image_channels=2,
        num_classes=3,
        timesteps=3,
        sps_channels=(4, 6, 8),
        sps_pool=(False, False, True),
        depth=2,
        heads=2,
        mlp_ratio=2,
        attention={"kind": "stdp", "scale_log2": 0},
    )
    return NetworkConfig(**(fields | changes))


ODD_SHAPES = {
    "small": small(),
    "one convolution": small(sps_channels=(6,), sps_pool=(False,), heads=3, depth=1),
    "one step, one head": small(timesteps=1, heads=1, depth=1, pixel_zero_point=128),
    "odd widths": small(
        image_height=7,
        image_width=9,
        image_channels=1,
        sps_channels=(5, 15),
        sps_pool=(False, True),
        heads=5,
        timesteps=5,
        mlp_ratio=3,
    ),
    "one token": small(image_height=2, image_width=2, sps_channels=(3, 4), sps_pool=(False, True)),
    "coarse grid": small(
        residual_fraction_bits=3, v_threshold=0.5, attention={"kind": "stdp", "kappa": 0.3, "scale_log2": 0}
    ),
    "digits": load_config("digits"),
}


def images_for(config: NetworkConfig, count: int, seed: int = 0) -> np.ndarray:
    """Random pixel bytes [count, H, W, C]."""
    shape = (count, config.image_height, config.image_width, config.image_channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def lively(config: NetworkConfig, seed: int = 0, **options) -> Network:
    """An untrained network whose norms let every spike map have spikes; one gain is negative."""
    torch.manual_seed(seed)
    network = Network(config, **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1.0, 2.5)
            torch.nn.init.uniform_(module.bias, -0.2, 1.5)
            with torch.no_grad():
                module.weight[0] *= -1.0
    network.train()
    for step in range(4):  # running statistics
        network(torch.as_tensor(images_for(config, 16, seed + step)))
    return network.eval()


def separable(config: NetworkConfig, train: int = 48, test: int = 12) -> Dataset:
    """Images whose class is visible as brightness, with noise."""
    draw = np.random.default_rng(1)
    shape = (train + test, config.image_height, config.image_width, config.image_channels)
    labels = np.arange(train + test) % config.num_classes
    level = 40 + labels * (170 // config.num_classes)
    noise = draw.integers(-30, 31, shape)
    images = np.clip(level[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    return Dataset(
        "synthetic",
        images[:train],
        labels[:train],
        images[train:],
        labels[train:],
        config.num_classes,
        "synthetic brightness",
    )
