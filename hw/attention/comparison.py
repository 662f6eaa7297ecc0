"""The attention units beside engines that go through all N x N pairs: cycles and state by tokens.

STDP and SSA are the units of this folder: their cycles and memories are those of the exact models, which
tests compare with the simulated hardware. The two explicit engines are formulas alone; nobody built them.
They get what the units get: as many engines, each a time step at a time, each `head_dim` adders of the width
of Y, and the same store of q, k and v as the STDP unit.

explicit matrix
    All N x N weights of a step first, one a cycle, into a memory; then their sums, a cycle for every query
    and every token whose value has a spike: ``rounds N^2 + N sum(n_v)`` cycles, ``engines (N^2 w + d_h y)``
    bits.
explicit, on the fly
    A weight is made when it is added: ``N sum(n_v)`` cycles, ``engines d_h y`` bits.

``rounds = ceil(T / engines)``; n_v of a round is the most tokens with a spike in V that one of its steps
has; w bits of a weight, y bits of Y. Neither skips a weight that is 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.attention.stdp import LUT
from s2tdpt.golden.bounds import Bounds, derive_bounds
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.rates import Rates
from s2tdpt.hw.attention import attention_of
from s2tdpt.hw.attention.neurons import y_shape_of
from s2tdpt.hw.attention.records import HeadSizes
from s2tdpt.hw.attention.store import store_memories
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.hw.plan.program import Program
from s2tdpt.hw.plan.records import Sizes
from s2tdpt.hw.plan.schedule import program_of
from s2tdpt.hw.plan.widths import derive_widths
from s2tdpt.hw.state import state_of

__all__ = ["ENGINES", "EngineCost", "compare", "unit_cost"]

ENGINES = ("stdp", "ssa", "explicit matrix", "explicit, on the fly")


@dataclass(frozen=True)
class EngineCost:
    """One head on one engine.

    Attributes
    ----------
    engine : str
        One of `ENGINES`.
    formula : bool
        Whether it is a formula alone, without hardware behind it.
    tokens : int
        N.
    cycles : int
        For a head, all T steps.
    sum_bits : int
        Width of Y.
    state_bits : int
        Memories beside q, k and v.
    store_bits : int
        What is kept of q, k and v.
    register_bits : int or None
        Flip-flops of the unit, counted in its elaborated netlist; None where they were not counted.
    """

    engine: str
    formula: bool
    tokens: int
    cycles: int
    sum_bits: int
    state_bits: int
    store_bits: int
    register_bits: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Setting:
    """An attention with one head of `tokens` tokens on a machine."""

    kind: str
    tokens: int
    head_dim: int
    timesteps: int
    machine: Machine

    @cached_property
    def params(self) -> Params:
        height = 1 << ((self.tokens.bit_length() - 1) // 2)
        config = NetworkConfig(
            name=f"{self.kind}-{self.tokens}",
            image_height=height,
            image_width=self.tokens // height,
            image_channels=1,
            num_classes=2,
            timesteps=self.timesteps,
            sps_channels=(self.head_dim,),
            sps_pool=(False,),
            depth=1,
            heads=1,
            mlp_ratio=1,
            attention=MECHANISMS[self.kind](),
        )
        return random_params(config, seed=0)

    @cached_property
    def bounds(self) -> Bounds:
        return derive_bounds(self.params)

    @cached_property
    def program(self) -> Program:
        widths = derive_widths(self.params, self.bounds)
        return program_of(self.params, self.machine, widths.head_sum)

    @property
    def sum_bits(self) -> int:
        return y_shape_of(self.bounds.attention).width

    @property
    def weight_bits(self) -> int:
        """Bits of an entry of the matrix: the table of STDP."""
        table = self.params.attention(0)[LUT]
        return int(max(abs(int(table.min())), int(table.max()))).bit_length() + bool(table.min() < 0)


def draw_spikes(tokens: int, head_dim: int, timesteps: int, rates: Rates, seed: int = 0) -> tuple:
    """q, k and v of a head, bool [T, N, d_h]; v as often as q."""
    rng = np.random.default_rng(seed)
    shape = (timesteps, tokens, head_dim)
    return tuple(rng.random(shape, np.float32) < rate for rate in (rates.q, rates.k, rates.q))


def unit_cost(
    kind: str,
    tokens: int,
    machine: Machine,
    head_dim: int = 32,
    timesteps: int = 4,
    seed: int = 0,
    registers: bool = False,
) -> EngineCost:
    """One head of `tokens` tokens (a power of two from 4 on) on the unit of an attention, by exact models;
    random spikes, published rates.

    Parameters
    ----------
    machine : Machine
        `attention_steps` are the engines; lanes and post lanes as for any network.
    registers : bool
        Also build the unit and count its flip-flops: some seconds.
    """
    setting = _Setting(kind, tokens, head_dim, timesteps, machine)
    drawn = draw_spikes(tokens, head_dim, timesteps, Rates(), seed)
    spikes = zip((Kind.Q, Kind.K, Kind.V), drawn, strict=True)
    program, hardware = setting.program, attention_of(setting.program)
    present = setting.params.config.attention.projections
    own = hardware.own_memories(program, setting.bounds)
    store = store_memories(program, hardware.ports)
    counted = None
    if registers:
        counted = state_of(hardware.unit(setting.params, program, Sizes(program), setting.bounds)).registers
    return EngineCost(
        engine=kind,
        formula=False,
        tokens=tokens,
        cycles=hardware.head_cycles(program, *(s if p in present else None for p, s in spikes)),
        sum_bits=setting.sum_bits,
        state_bits=sum(memory.total_bits for memory in own),
        store_bits=sum(memory.total_bits for memory in store),
        register_bits=counted,
    )


def compare(
    tokens: int, machine: Machine, head_dim: int = 32, timesteps: int = 4, seed: int = 0
) -> list[EngineCost]:
    """One head of `tokens` tokens (a power of two from 4 on) on every engine; random spikes, published rates.

    Parameters
    ----------
    machine : Machine
        `attention_steps` are the engines; lanes and post lanes as for any network.
    """
    found = [unit_cost(kind, tokens, machine, head_dim, timesteps, seed) for kind in ENGINES[:2]]
    stdp = _Setting(ENGINES[0], tokens, head_dim, timesteps, machine)
    v = draw_spikes(tokens, head_dim, timesteps, Rates(), seed)[2]
    engines = HeadSizes(stdp.program).engines
    spiking = v.any(-1).sum(-1)  # tokens of every step
    added = tokens * sum(
        int(spiking[first : first + engines].max()) for first in range(0, timesteps, engines)
    )
    made = -(-timesteps // engines) * tokens * tokens
    sums, matrix = head_dim * stdp.sum_bits, tokens * tokens * stdp.weight_bits
    for name, cycles, bits in ((ENGINES[2], made + added, matrix + sums), (ENGINES[3], added, sums)):
        state = engines * bits
        found.append(EngineCost(name, True, tokens, cycles, stdp.sum_bits, state, found[0].store_bits))
    return found
