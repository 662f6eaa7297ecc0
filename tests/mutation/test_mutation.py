"""The mutation engine, and 20 mutants that the units' tests must go on noticing."""

import json
import os
from pathlib import Path

import pytest
from amaranth import Module, Mux, unsigned
from amaranth.hdl import Fragment
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from s2tdpt.hw.blocks.scanner import PositionEnd
from s2tdpt.hw.plan.records import Sizes
from tests.formal.queues import BANKS, small_program
from tests.hw import (
    test_axi,
    test_fixed,
    test_head,
    test_lanes,
    test_lif,
    test_pool,
    test_reader,
    test_residual,
    test_scanner,
    test_walker,
    test_weights,
    test_window,
)
from tests.mutation import hardware, mutants
from tests.mutation.campaign import Verdict, _fork, _verdict, _write
from tests.mutation.layers import LAYERS
from tests.mutation.places import HARDWARE, traced
from tests.mutation.results import Log, reasons, report, with_layer
from tests.mutation.sites import sites_of

FIXED = [
    (
        "bus.axi",
        "complete & (fill_bank == bank)",
        "& becomes |",
        test_axi.test_receiver_buffers_exactly_two_frames,
    ),
    (
        "bus.axi",
        "transfer.eq(self.tvalid & self.tready)",
        "stuck at 1",
        test_axi.test_receiver_buffers_exactly_two_frames,
    ),
    (
        "bus.axi",
        "self.frame_release & self.frame_valid",
        "left side only",
        test_axi.test_receiver_ignores_release_without_a_frame,
    ),
    (
        "bus.axi",
        "self.error_short.eq(1)",
        "another constant",
        test_axi.test_receiver_errors_are_sticky_and_reported_at_once,
    ),
    (
        "bus.axi",
        "Signal(self._channels, init=1)",
        "lane begins otherwise",
        test_axi.test_receiver_buffers_exactly_two_frames,
    ),
    ("blocks.scanner", "self.valid & load", "& becomes |", test_scanner.test_a_cooldown_is_kept_to_the_cycle),
    (
        "blocks.scanner",
        "self.at_end.all() & cool",
        "left side only",
        test_scanner.test_a_cooldown_is_kept_to_the_cycle,
    ),
    (
        "blocks.scanner",
        "fire & single",
        "left side only",
        test_scanner.test_a_slice_takes_a_cycle_a_channel_without_a_gap,
    ),
    ("blocks.scanner", "a | b", "| becomes &", lambda: test_scanner.test_or_tree_on_all_values(3)),
    (
        "blocks.reader",
        "wanted.eq(active.any() | request.mark.last)",
        "never happens",
        test_reader.test_sources_follow_each_other_directly,
    ),
    ("blocks.reader", "count + dropped[bank] - fire", "- becomes +", test_reader.test_a_word_a_cycle),
    (
        "blocks.walker",
        "ready.eq(~window.valid | window.ready)",
        "never happens",
        test_walker.test_start_to_the_first_window,
    ),
    (
        "blocks.window",
        "no_top.eq(top)",
        "inverted",
        test_window.test_every_pixel_is_read_once_a_row_of_windows,
    ),
    ("fixed", "Cat(chosen).any()", "r| becomes r&", lambda: test_fixed.test_lowest_bit(5)),
    ("blocks.lanes", "group.end.eq(end)", "stuck at 1", lambda: test_lanes.test_sums(1, 1, 1, 1, 8)),
    (
        "blocks.head",
        "sums.restart.eq(clear & ~self.read_en)",
        "stuck at 1",
        lambda: test_head.test_equals_the_golden_sum(4, 1, "back to back"),
    ),
    (
        "blocks.lif",
        "Mux(self.first, 0, h)",
        "arms swapped",
        lambda: test_lif.test_every_sequence_with_a_constant_threshold(unsigned(2), 3),
    ),
    (
        "bus.axi",
        "transfer & dropping & self.tlast",
        "right side only",
        lambda: test_axi.test_receiver_drops_malformed_frames("very long", "random"),
    ),
    ("blocks.pool", "write.en.eq(self.en)", "inverted", lambda: test_pool.test_sizes(3, 3, 3, 1)),
    (
        "blocks.residual",
        "held.eq(address[: len(held)])",
        "loses its top bit",
        test_residual.test_first_writer_ignores_what_an_image_left_behind,
    ),
    (
        "blocks.weights",
        "self.place_free.eq((received ^ complete) != tile_ring)",
        "stuck at 1",
        test_weights.test_constants_hold_four_tiles,
    ),
]


def verdict_of(work, seconds=20):
    """Runs ``work(out)`` as a mutant is run."""
    pid, path = _fork(work, seconds)
    _, status, usage = os.wait4(pid, 0)
    mutant = Verdict("name", "unit", "kind", "")
    return _verdict(mutant, path, status, usage.ru_utime + usage.ru_stime)


@pytest.mark.parametrize(
    "module, source, change, test", FIXED, ids=[f"{case[0]}-{case[1]}-{case[2]}" for case in FIXED]
)
def test_fixed_mutant_is_killed(module, source, change, test):
    def work(out):
        planted = mutants.plant_where(
            lambda site: (site.place.module, site.place.head, site.change) == (module, source, change)
        )
        _write(out, {"test": test.__name__})
        try:
            test()
        except Exception:
            _write(out, {"failed": test.__name__} if planted() else {"met": 0})
            return
        _write(out, {"met": planted()})

    found = verdict_of(work)
    assert (found.status, found.how) == ("killed", "failed")


class Counter(wiring.Component):
    """Something that would have sites, were it in the hardware."""

    def __init__(self):
        super().__init__({"en": In(1), "count": Out(3)})

    def elaborate(self, platform):
        m = Module()
        with m.If(self.en):
            m.d.sync += self.count.eq(Mux(self.count == 5, 0, self.count + 1))
        return m


def test_every_site_of_a_unit_can_be_altered_and_elaborated():
    """What is altered is altered: no mutant of a unit elaborates to what the unit itself does."""
    program = small_program()

    def elaborated(number):
        with traced():
            fragment = Fragment.get(PositionEnd(Sizes(program), BANKS), None)
        if number is not None:
            sites_of(fragment)[number].apply()
        return "\n".join(f"{domain} {statements!r}" for domain, statements in fragment.statements.items())

    with traced():
        sites = sites_of(Fragment.get(PositionEnd(Sizes(program), BANKS), None))
    original = elaborated(None)
    changes = [elaborated(n) for n, site in enumerate(sites) if site.kind != "reset"]
    assert original not in changes and len(changes) > 20
    assert {site.kind for site in sites} == {"operator", "constant", "enable", "width", "reset"}
    assert all(site.place.module == "blocks.scanner" and site.place.text for site in sites)


def test_code_outside_of_the_hardware_is_not_altered():
    assert not HARDWARE.endswith("tests")
    with traced():
        assert sites_of(Fragment.get(Counter(), None)) == []


def test_a_mutant_that_hangs_is_killed():
    def work(out):
        _write(out, {"test": "endless"})
        while True:
            pass

    found = verdict_of(work, seconds=0)
    assert (found.status, found.how, found.by) == ("killed", "hung", "endless")


def test_a_mutant_whose_place_no_test_builds_is_uncovered():
    assert verdict_of(lambda out: _write(out, {"met": 0})).status == "uncovered"
    assert verdict_of(lambda out: _write(out, {"met": 2})).status == "survived"


def test_a_mutant_of_which_the_process_dies_is_killed():
    def work(out):
        _write(out, {"test": "t"})
        raise MemoryError

    assert verdict_of(work).how == "died"


def verdicts():
    return [
        Verdict("a", "bus.axi", "reset", "killed", by="t", how="failed"),
        Verdict("b", "bus.axi", "width", "survived"),
        Verdict("c", "blocks.pool", "width", "survived", networks=True),
        Verdict("d", "blocks.pool", "width", "uncovered"),
    ]


def test_report_counts_by_unit_and_leaves_out_the_equivalent():
    figures = report(verdicts(), {"b": "the same"})
    assert (figures["mutants"], figures["killed"], figures["equivalent"]) == (4, 1, 1)
    assert figures["killed_percent"] == pytest.approx(33.33)
    assert figures["units"]["bus.axi"]["killed_percent"] == 100
    assert (figures["survivors"], figures["waiting_for_networks"]) == (["c"], ["d"])
    assert (figures["units"]["blocks.pool"]["survived"], figures["units"]["blocks.pool"]["waiting"]) == (1, 1)
    assert figures["equivalent_because"] == {"b": "the same"}


def test_a_report_keeps_the_other_layers(tmp_path):
    path = tmp_path / "mutation.json"
    for layer, percent in (("sim", 50.0), ("hw", 98.5), ("sim", 99.0)):
        path.write_text(json.dumps(with_layer(path, layer, {"mutants": 7, "killed_percent": percent})))
        if layer == "hw":
            first = path.read_text()
    assert json.loads(first)["mutants_killed_percent"] == 98.5
    assert json.loads(path.read_text()) == {
        "mutants": 7,
        "mutants_killed_percent": 98.5,
        "layers": {
            "sim": {"mutants": 7, "killed_percent": 99.0},
            "hw": {"mutants": 7, "killed_percent": 98.5},
        },
    }


def test_a_killed_mutant_is_not_equivalent():
    with pytest.raises(ValueError, match="said to be equivalent, but killed: a"):
        report(verdicts(), {"a": "the same"})


def test_a_campaign_goes_on_where_it_was(tmp_path):
    path = tmp_path / "log.jsonl"
    for verdict in verdicts():
        Log(path).add(verdict)
    Log(path).add(Verdict("c", "blocks.pool", "width", "killed", by="u", how="failed", networks=True))
    again = Log(path).verdicts
    assert [again[name].status for name in "abcd"] == ["killed", "survived", "killed", "uncovered"]


def test_every_equivalent_mutant_has_a_reason():
    assert all(isinstance(name, str) and len(reason) > 20 for name, reason in reasons().items())


def test_what_is_said_of_mutants_is_said_of_some():
    """The pools of all layers can be made; every equivalent mutant and every unit that is named is in one."""
    pools = {name: layer.catalogue() for name, layer in LAYERS.items()}
    known = {mutant.name for pool in pools.values() for mutant in pool}
    assert [name for name in reasons() if name not in known] == []
    units = {mutant.unit for mutant in pools["hw"]}
    named = {*hardware.TESTS, *hardware.SOME_ATTENTIONS, *hardware.OTHER_ATTENTIONS, *hardware.AROUND}
    assert named | set(hardware.OF_NEURONS) <= units
    files = {path.name for path in (Path(__file__).parents[1] / "hw").glob("test_*.py")}
    tests = [test for unit in units for test in hardware.TESTS.get(unit, ())]
    assert [test for test in tests if f"test_{test.split('::')[0]}" not in files] == []
