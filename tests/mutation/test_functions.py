"""The engine for plain Python, and mutants of golden model and checkers that tests must go on noticing."""

import ast

import pytest
import torch

from s2tdpt.golden.neuron import lif as module
from tests.golden import test_arith, test_compare, test_lif
from tests.golden.attention import test_stdp
from tests.mutation import functions
from tests.mutation.campaign import _write
from tests.mutation.layers import GOLDEN, LAYERS, SIM
from tests.mutation.mutants import sample
from tests.mutation.test_mutation import verdict_of
from tests.sim import test_line, test_replay, test_wrapper

FIXED = [
    (
        "golden.arith: wrap: (value + half) & ((1 << bits) - 1): BitAnd becomes BitOr",
        lambda: test_arith.test_wrap_and_saturate(3),
    ),
    ("golden.arith: signed_bits: lo < 0: Lt becomes LtE", test_arith.test_widths_are_the_smallest_that_hold),
    ("golden.neuron.lif: lif: -1: USub left out", test_lif.test_equality_fires_and_resets),
    (
        "golden.compare: compare_trace: expected != got: NotEq becomes Eq",
        test_compare.test_first_means_image_then_step_then_token_then_channel,
    ),
    ("golden.attention.stdp: Stdp.table: self.offset + e: Add becomes Sub", test_stdp.test_published_kernel),
    ("sim.replay: _signed: -weights[-1]: USub left out", test_replay.test_fields_of_words),
    (
        "sim.replay: Replay.find: self.finding_count += len(where): left out",
        test_replay.test_findings_are_counted_beyond_those_in_words,
    ),
    ("sim.dump: _integer: value << 4: 4 becomes 5", test_replay.test_digits),
    (
        "sim.stalls: _starved: cycle != position: NotEq becomes Eq",
        test_wrapper.test_patterns_are_reproducible_and_independent,
    ),
    (
        "sim.line: FaultyPort._change: data[:at] + data[at + len(some) :]: Add becomes Sub",
        test_line.test_bursts_and_losses,
    ),
]


@pytest.mark.parametrize("name, test", FIXED, ids=[case[0] for case in FIXED])
def test_fixed_mutant_is_killed(name, test):
    test()
    (mutant,) = [m for m in functions.catalogue([name.split(":")[0]]) if m.name == name]

    def work(out):
        planted = functions.plant(mutant)
        _write(out, {"test": name})
        try:
            test()
        except Exception:
            _write(out, {"failed": name} if planted() else {"met": 0})
            return
        _write(out, {"met": planted()})

    found = verdict_of(work)
    assert (found.status, found.how) == ("killed", "failed")


def test_every_mutant_is_another_program():
    """Each compiles, differs from the original and from every other one, and has a name of its own."""
    units = ["golden.compare", "golden.neuron.lif", "sim.stalls"]
    mutants = functions.catalogue(units)
    texts = [ast.unparse(functions.altered(m)) for m in mutants]
    texts += [
        ast.unparse(ast.parse(functions.ROOT.joinpath(f"{u.replace('.', '/')}.py").read_text()))
        for u in units
    ]
    assert len(set(texts)) == len(texts) == len({m.name for m in mutants}) + len(units) > 60
    assert {m.kind for m in mutants} == {"operator", "constant", "condition", "statement"}


def test_words_and_annotations_are_left_alone():
    for mutant in functions.catalogue(["golden.compare"]):
        assert "expected two equal shapes" not in mutant.name.split(": ")[2] or mutant.kind == "statement"
        assert "differ)" not in mutant.name


def test_a_function_is_exchanged_wherever_it_is_held():
    (mutant,) = [
        m for m in functions.catalogue(["golden.neuron.lif"]) if m.name.endswith("-1: USub left out")
    ]
    held = [module.lif, test_lif.lif]
    assert held[0] is held[1]
    x = torch.tensor([[2], [1], [1]])
    before = held[1](x, 2).tolist()

    def work(out):
        assert functions.plant(mutant)() == 1
        _write(out, {"met": 1} if held[1](x, 2).tolist() != before else {"met": 0})

    assert verdict_of(work).status == "survived"


def test_lines_that_run_are_seen():
    mutants = functions.catalogue(["sim.stalls"])
    met = functions.observer(mutants)()
    list(zip(range(3), test_wrapper.pauses("starved", 1, "lane"), strict=False))
    names = {m.function for m in mutants if m.name in met()}
    assert "_starved" in names and not names & {"_random", "_bursty"}


def test_units_exist_and_have_tests():
    for package, tests in (("golden", GOLDEN), ("sim", SIM)):
        layer = LAYERS[package]
        mutants = layer.catalogue()
        assert {m.unit for m in mutants} == {f"{package}.{unit}" for unit in tests}
        assert len(sample(mutants, layer.count, 1, layer.least)) >= 50
