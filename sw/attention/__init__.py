"""The trainable attentions: a module for every mechanism of `golden.attention`, by its kind."""

from __future__ import annotations

from collections.abc import Callable

from s2tdpt.golden.config import NetworkConfig
from s2tdpt.sw.attention.base import AttentionModule
from s2tdpt.sw.attention.controls import NoMixingAttention, UniformAttention
from s2tdpt.sw.attention.dynamics import Dynamics
from s2tdpt.sw.attention.gate import QkcaAttention, QktaAttention, SdsaAttention
from s2tdpt.sw.attention.lrf import LocalField
from s2tdpt.sw.attention.ssa import SsaAttention
from s2tdpt.sw.attention.sssa import SssaAttention
from s2tdpt.sw.attention.stdp import StdpAttention
from s2tdpt.sw.names import KernelGradient

MODULES: dict[str, Callable[[NetworkConfig, KernelGradient], AttentionModule]] = {
    "stdp": StdpAttention,
    "ssa": lambda config, gradient: SsaAttention(config),
    "sdsa": lambda config, gradient: SdsaAttention(config),
    "qkta": lambda config, gradient: QktaAttention(config),
    "qkca": lambda config, gradient: QkcaAttention(config),
    "sssa": lambda config, gradient: SssaAttention(config),
    "lrf-ssa": lambda config, gradient: LocalField(config, SsaAttention(config)),
    "lrf-dyn": lambda config, gradient: LocalField(config, Dynamics(config)),
    "lrf-stdp": lambda config, gradient: LocalField(config, StdpAttention(config, gradient)),
    "a2os2a": lambda config, gradient: SsaAttention(config),
    "uniform": lambda config, gradient: UniformAttention(config),
    "none": lambda config, gradient: NoMixingAttention(config),
}
"""By kind: what makes the module of a block; only kernels of spike counts look at the gradient."""


def make_attention(config: NetworkConfig, gradient: KernelGradient | None = None) -> AttentionModule:
    """The trainable attention of `config` for one block."""
    return MODULES[config.attention.kind](config, gradient or KernelGradient())
