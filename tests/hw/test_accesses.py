"""The counts of memory accesses against the enables of the memories' ports in the simulated hardware."""

import re
from collections import Counter

import numpy as np
import pytest
from amaranth import Cat, Signal

from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.hw.attention import HARDWARE
from s2tdpt.hw.estimate.accesses import AccessCounter, FrameAccesses
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.sim.cases import network
from tests.hw.core_bench import build_case, run_core, traces_of
from tests.hw.util import memories_of

CASES = {
    "two_banks": (network(), Machine(lanes=4, banks=2, post_lanes=2, attention_steps=1)),
    "streamed": (
        network(timesteps=3, sps_channels=(5, 8), heads=1, weight_bits=4),
        Machine(lanes=6, banks=3, post_lanes=2, attention_steps=2, weight_memory="stream"),
    ),
    # Heads that straddle tiles, two blocks, a map of odd sides, logits in a memory.
    "straddling": (
        network(
            image_height=3, image_width=5, timesteps=1, sps_channels=(3, 9), heads=3, depth=2, num_classes=9
        ),
        Machine(lanes=4, banks=4, post_lanes=2, attention_steps=4),
    ),
    "no_pool": (
        network(
            image_height=2, image_width=3, sps_channels=(6,), sps_pool=(False,), timesteps=4, image_channels=2
        ),
        Machine(lanes=2, banks=1, post_lanes=2, attention_steps=2),
    ),
}
CASES |= {
    kind: (
        network(timesteps=3, attention=MECHANISMS[kind]()),
        Machine(lanes=4, banks=2, post_lanes=2, attention_steps=2),
    )
    for kind in MECHANISMS
    if kind in HARDWARE and kind != "stdp"
}

# Memories that are read without a clock: there is no enable to count. Writes tell how often they are read.
UNCLOCKED = (
    "queues",
    "pool, a window",
    "totals of planes",
    "totals of the head",
    "logits",
    "lists of counts",
)
# By the path of a memory's module in the core.
PLACES = {
    "pixels": "pixels",
    "spikes/words": "spikes",
    "constant": "constants",
    "weights/bank": "weights",
    "post/residual": "residual U",
    "post/pool/rows": "pool, a row",
    "post/pool/running": "pool, a window",
    "post/combiner/totals": "totals of planes",
    "post/head/sums": "totals of the head",
    "sender/logits": "logits",
    "store/queries": "spikes of q",
    "store/keys": "spikes of k",
    "field/taps": "taps of the field",
    "attention/table": "weights of the saccades",
    "issue/coefficients": "coefficients of the dendrites",
    "store/query_counts": "counts of q",
    "store/key_counts": "counts of k",
    "store/value_steps": "steps of v",
    "store/values": "spikes of v",
    "counter/unfinished": "unfinished counts",
    "attention/list": "lists of counts",
    "events/queue": "queues",
}


def signals_of(fragment, pattern: str) -> list[Signal]:
    """Driven signals of an elaborated design by name."""
    found = {}
    for statements in fragment.statements.values():
        for signal in statements._lhs_signals():
            if re.fullmatch(pattern, signal.name):
                found[id(signal)] = signal
    for child, _, _ in fragment.subfragments:
        found |= {id(signal): signal for signal in signals_of(child, pattern)}
    return list(found.values())


def place_of(path: str) -> str | None:
    if "/rows" in path and "attention" in path:
        return "rows of the attention"
    return next((name for part, name in PLACES.items() if part in path), None)


class PortCounter:
    """Counts the enables of all memory ports of a core in every cycle."""

    def __init__(self):
        self.ports: list[tuple[str, str, object]] = []
        self.seen: Counter[tuple[str, str]] = Counter()

    def find(self, fragment) -> None:
        # U is read without a clock into a register, which takes the word where this strobe says so.
        self.ports += [("residual U", "reads", strobe) for strobe in signals_of(fragment, r"reads_\d+")]
        for path, memory in memories_of(fragment):
            name = place_of(path)
            if name is None:
                assert "rom/words" in path, path  # records of the steps, read once a step
                continue
            for port in memory._read_ports:
                if port._domain != "comb":
                    self.ports.append((name, "reads", port._en))
            for port in memory._write_ports:
                self.ports.append((name, "writes", port._en))

    async def watch(self, ctx):
        together = Cat(enable for _, _, enable in self.ports)
        widths = [len(enable) for _, _, enable in self.ports]
        for name, kind, enable in self.ports:
            if name == "rows of the attention" and kind == "reads":
                self.seen[name, kind] -= ctx.get(enable)  # a register, which comes out of the reset as 1
        while True:
            value = ctx.get(together)
            if value:
                for (name, kind, _), width in zip(self.ports, widths, strict=True):
                    self.seen[name, kind] += (value & ((1 << width) - 1)).bit_count()
                    value >>= width
            await ctx.tick()


def expected(total: FrameAccesses) -> Counter:
    """What the ports must have seen, by memory; all that are alike are one place here."""
    found = Counter()
    for kind, counts in (("reads", total.reads), ("writes", total.writes)):
        for (_, memory), count in counts.items():
            name = re.sub(r", (rest|\d)$", "", memory)
            if name.startswith("records"):
                continue  # read for every step, though their enables are never low
            if kind == "writes" or name not in UNCLOCKED:
                found[name, kind] += count
    return found


def counted(case, traces) -> FrameAccesses:
    """What the model counts."""
    model, total = AccessCounter(case.program, case.widths), FrameAccesses()
    for trace in traces:
        total.add(model.frame(trace))
    return total


@pytest.mark.parametrize("name", CASES)
def test_counts_are_the_enables_of_the_ports(name):
    config, machine = CASES[name]
    case = build_case(config, machine, seed=4)
    counter = PortCounter()
    run_core(case, observer=counter)
    traces = traces_of(case)
    assert +counter.seen == +expected(counted(case, traces))
    # One spike more or less is seen.
    key = "block.0.attn"
    traces[0][key] = traces[0][key].copy()
    step, token, _ = np.argwhere(traces[0][key])[0] if traces[0][key].any() else (0, 0, 0)
    traces[0][key][step, token] ^= 1
    assert +counter.seen != +expected(counted(case, traces))
