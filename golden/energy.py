"""Energy of an inference from measured firing rates: the convention of the literature, and one with integers.

Two columns that answer different questions, both from published energies of single operations at 45 nm:

- *theory*, as spiking transformers are compared in the literature: an addition of floats for every spike that
  meets a weight, a multiply-accumulate of floats where the input is no spike, nothing else;
- *integer*: the additions that this network really makes, at the width they have, and apart from them the
  weight rows and attention rows that have to be read from memory for them.

Neither is a measurement of a chip. What is left out is listed in docs/energy.md.

References
----------
M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014: operations and caches.
Spikformer, arXiv 2209.15425: E = E_MAC FL(first convolution) + E_AC sum of SOP, SOP = rate T FLOPs.
Spikingformer, arXiv 2304.11954, public code: MACs wherever an input is not 0 or 1, at every step.
S2TDPT, arXiv 2511.14691: 0.49 mJ for 4 blocks of 384 channels, CIFAR-100, T = 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from s2tdpt.golden.activity import PIXEL_BITS, Activity, tap_counts
from s2tdpt.golden.bounds import Interval, weight_sums
from s2tdpt.golden.complexity import Product, macs, memory, neurons, products
from s2tdpt.golden.config import NetworkConfig
from s2tdpt.golden.layers import Layer
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.neuron import LIF, Law, places, prescribed

E_MAC = 4.6
"""pJ, multiply (3.7) and add (0.9) two float32."""
E_AC = 0.9
"""pJ, add two float32."""
E_ADD8 = 0.03
E_ADD32 = 0.1
"""pJ, add two integers of 8 and of 32 bits."""
E_BIT = E_ADD8 / 8
"""pJ, AND or OR of two bits: taken as a bit of the 8-bit adder, for want of a published figure."""
E_MULT8 = 0.2
"""pJ, multiply two integers of 8 bits; only the dense network multiplies."""
SRAM = ((8 << 10, 10.0), (32 << 10, 20.0), (1 << 20, 100.0))
"""(bytes, pJ for 64 bits read or written)."""
PAPER_PJ = 0.49e9
"""S2TDPT-4-384 on CIFAR-100 as published."""

REST = "neurons, bias, U"


def sram_energy(size: int) -> float:
    """pJ for 64 bits from a memory of `size` bytes: the smallest published one that holds them.

    Beyond 1 MB the value for 1 MB stands for the bank that is read; the way to it is not counted.
    """
    return next((energy for limit, energy in SRAM if size <= limit), SRAM[-1][1])


def add_energy(bits: int) -> float:
    """pJ of an integer addition of `bits` bits: an 8-bit adder, or as many 32-bit ones as it takes."""
    return E_ADD8 if bits <= 8 else E_ADD32 * math.ceil(bits / 32)


def theory_operations(
    config: NetworkConfig, rates: Mapping[str, float], first_conv_steps: int = 1
) -> dict[str, tuple[float, bool]]:
    """Operations of the literature's count, by layer as in :func:`golden.complexity.macs`.

    Parameters
    ----------
    rates : mapping
        Firing rate by trace name, 0..1, of the traces that drive layers, and of q and v.
    first_conv_steps : int
        How often the first convolution is counted. 1: once, for its input is the same at every step (the
        equation of Spikformer; this hardware). T: as often as Spikingformer's public code does.

    Returns
    -------
    dict
        (operations of one image, whether they are multiply-accumulates instead of additions). Layers driven
        by spikes: rate x MACs x T additions. An attention is counted as the products that the published
        networks form: of STDP and SSA two of N x N, ``qk`` at the rate of q, ``av`` at the rate of v. The
        head sees the mean over steps, once.
    """
    result = {}
    for product in products(config):
        count = product.macs
        match product.part:
            case Layer(reads_pixels=True):
                result[product.name] = (float(count * first_conv_steps), True)
            case Layer(head=True):
                result[product.name] = (float(count), True)
            case _:
                result[product.name] = (rates[product.reads] * count * config.timesteps, False)
    return result


def theory_energy(config: NetworkConfig, rates: Mapping[str, float], first_conv_steps: int = 1) -> float:
    """pJ an image in the literature's count; arguments of :func:`theory_operations`."""
    operations = theory_operations(config, rates, first_conv_steps).values()
    return sum(count * (E_MAC if multiplies else E_AC) for count, multiplies in operations)


def dense_energy(config: NetworkConfig) -> float:
    """pJ of the network with real-valued activations and one step: all MACs in float32."""
    return E_MAC * sum(macs(config).values())


@dataclass(frozen=True)
class LayerEnergy:
    """One row of the table; energies in pJ, everything a mean over images.

    Attributes
    ----------
    name : str
        As in :func:`golden.complexity.macs`, and one row for what is not a product.
    source : str
        What drives it: a trace name, "pixels", or "head.sum".
    rate : float or None
        Firing rate of `source`, where it is spikes.
    macs : int
        Multiply-accumulates of one step.
    operations, theory : float
        Literature's count (first convolution once) and its energy.
    additions, adders : float
        Integer additions and their energy.
    reads_each, reads_shared : float
        Energy of memory reads: a weight row for every spike, or one for all steps of a channel. Attention:
        its rows read and written.
    dense_adders, dense_reads : float
        The same network with int8 activations and one step: 8-bit multiplications and 32-bit additions, and a
        weight row for every input and tap.
    """

    name: str
    source: str
    rate: float | None
    macs: int
    operations: float
    theory: float
    additions: float
    adders: float
    reads_each: float
    reads_shared: float
    dense_adders: float
    dense_reads: float


@dataclass(frozen=True)
class EnergyReport:
    """Energies of one network on `images` images, in pJ an image; rows in network order."""

    config: NetworkConfig
    images: int
    correct: int
    weight_bytes: int
    layers: tuple[LayerEnergy, ...]
    theory_every_step: float
    """Theory with the first convolution at every step instead of once."""

    def total(self, field: str) -> float:
        """Sum of an attribute of `LayerEnergy` over all layers."""
        return sum(getattr(layer, field) for layer in self.layers)

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def totals(self) -> dict[str, float]:
        """pJ an image: ``theory`` (first convolution once), ``theory_every_step``, ``dense_float``,
        ``integer_adders``, ``integer_reads_each``, ``integer_reads_shared``, ``dense_int8_arithmetic``,
        ``dense_int8_reads``; and ``published`` of S2TDPT-4-384."""
        return {
            "theory": self.total("theory"),
            "theory_every_step": self.theory_every_step,
            "dense_float": dense_energy(self.config),
            "published": PAPER_PJ,
            "integer_adders": self.total("adders"),
            "integer_reads_each": self.total("reads_each"),
            "integer_reads_shared": self.total("reads_shared"),
            "dense_int8_arithmetic": self.total("dense_adders"),
            "dense_int8_reads": self.total("dense_reads"),
        }

    def as_dict(self) -> dict:
        """Everything as plain values; energies in pJ."""
        return {
            "config": self.config.name,
            "images": self.images,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "weight_bytes": self.weight_bytes,
            "weight_read_pj_per_64_bits": sram_energy(self.weight_bytes),
            "totals_pj": self.totals,
            "layers": [asdict(layer) for layer in self.layers],
        }


def energy_report(golden: GoldenNetwork, activity: Activity) -> EnergyReport:
    """Energies of `golden` from its counts on real images (`golden.activity.measure`; at least one image)."""
    config = golden.config
    rates = activity.rates
    operations = theory_operations(config, rates)
    weight_bytes = math.ceil(memory(config)["weights"] / 8)
    rows = []
    for product in products(config):
        ops, multiplies = operations[product.name]
        if isinstance(part := product.part, Layer):
            spent = _layer(golden, activity, part, sram_energy(weight_bytes) / 64)
        else:
            spent = _attention(golden, activity, product)
        dense_reads = spent.pop("dense_reads", 0.0)
        rows.append(
            LayerEnergy(
                name=product.name,
                source=product.reads,
                rate=rates.get(product.reads),
                macs=product.macs,
                operations=ops,
                theory=ops * (E_MAC if multiplies else E_AC),
                dense_adders=product.macs * (E_MULT8 + E_ADD32),
                dense_reads=dense_reads,
                **spent,
            )
        )
    rest = rest_additions(config, activity.head_bits, golden.params.laws)
    rows.append(LayerEnergy(REST, "", None, 0, 0.0, 0.0, rest, rest * E_ADD32, 0.0, 0.0, 0.0, 0.0))
    return EnergyReport(
        config,
        activity.images,
        activity.correct,
        weight_bytes,
        tuple(rows),
        theory_energy(config, rates, config.timesteps),
    )


def rest_additions(config: NetworkConfig, head_bits: int, laws: Mapping[str, Law] | None = None) -> int:
    """Additions of an image that follow from the shape alone; all at 32 bits.

    A neuron takes two a step (input to membrane, membrane against threshold), and what its law, that of
    `laws` or else of LIF, adds; a sum takes one for its bias; a sum over bit planes takes one for every plane
    but the first; a writer of the stream takes one for each value, the first writer none.
    """
    steps = config.timesteps
    laws = laws or dict.fromkeys(places(config), LIF) | dict(prescribed(config))
    total = steps * sum(laws[place].additions * count for place, count in neurons(config).items())
    for layer in config.layers():
        outputs = layer.positions * layer.outputs
        total += outputs * (steps if layer.spike_driven else 1)
        if not layer.spike_driven:
            planes = steps * math.ceil((PIXEL_BITS if layer.reads_pixels else head_bits) / steps)
            total += outputs * (planes - 1)
        if layer.writer and not layer.starts_stream:
            total += outputs * steps
    return total


def _layer(golden: GoldenNetwork, activity: Activity, layer: Layer, read: float) -> dict[str, float]:
    """Integer columns of a layer with weights; `read` is pJ a bit."""
    images = activity.images
    row = layer.outputs * golden.config.weight_bits * read
    lo, hi = weight_sums(golden.params.weight(layer.name))
    events = activity.events[layer.name] / images
    additions = events * layer.outputs
    return {
        "additions": additions,
        "adders": additions * add_energy(Interval(int(lo.min()), int(hi.max())).signed_bits),
        "reads_each": events * row,
        "reads_shared": activity.reads[layer.name] / images * row,
        "dense_reads": int(tap_counts(layer).sum()) * layer.inputs * row,
    }


def _attention(golden: GoldenNetwork, activity: Activity, product: Product) -> dict[str, float]:
    """Integer columns of a row of the streamed attention."""
    config, images = golden.config, activity.images
    counts = activity.attention[product.part.index]
    work = config.attention.work(config, golden.bounds, counts)[product.row]
    reads = work.moved / images / 64 * sram_energy(math.ceil(work.memory / 8))
    additions = work.additions / images
    return {
        "additions": additions,
        "adders": additions * add_energy(work.bits) + work.bit_operations / images * E_BIT,
        "reads_each": reads,
        "reads_shared": reads,
    }
