"""Predictions before synthesis against what was synthesised and counted."""

import json
from dataclasses import replace

import numpy as np
import pytest

from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import random_params
from s2tdpt.golden.shipped import load
from s2tdpt.hw.estimate.area_model import area_model, examples_of, features, fit, held_out_errors
from s2tdpt.hw.estimate.area_table import CASES, Counts, count_cells, read_table, table_of
from s2tdpt.hw.estimate.prediction import check_rates, default_rates, predict, random_trace
from s2tdpt.hw.plan.machine import Machine, load_machine
from s2tdpt.hw.plan.schedule import build_program
from s2tdpt.hw.plan.widths import derive_widths
from s2tdpt.sim.cases import network

PLACED = {("digits", "digits"): Counts(lut=23216, ff=26970, bram=122)}
"""Measured by place and route (README); not in the table."""
MAPPED = {("s2tdpt-4-384-int4", "ecp5-85k"): Counts(lut=28924, ff=32820, bram=207)}
"""Counted by Yosys (README) for calibrated weights, narrower than random ones. Not in the table."""


def described(params, machine):
    bounds = derive_bounds(params)
    widths = derive_widths(params, bounds)
    return build_program(params.config, machine, widths.head_sum), widths, bounds


def test_cells_are_counted_as_they_are_placed():
    cells = {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 7, "DP16KD": 1, "PFUMX": 4}
    assert count_cells(cells) == Counts(lut=10 + 6 + 12, ff=7, bram=1)


def test_table_is_of_the_cases(tmp_path):
    rows = read_table()
    assert set(rows) <= {case.name for case in CASES} and len(rows) == area_model().rows
    assert len({case.name for case in CASES}) == len(CASES) >= 20
    assert table_of(rows)["rows"] == rows
    wrong = tmp_path / "table.json"
    for text in ("{", "{}", '{"format": "s2tdpt-bench", "rows": {}}'):
        wrong.write_text(text)
        with pytest.raises(UserError, match="no table of synthesis runs"):
            read_table(wrong)


def test_fit_finds_factors_and_sees_an_outlier():
    examples = examples_of(read_table())
    factors = {"control": 500.0, "lanes": 1.5, "post": 4.0}
    exact = [
        replace(example, counts=Counts(round(sum(f * example.features[n] for n, f in factors.items())), 1, 0))
        for example in examples
    ]
    found = fit(exact, "lut")
    for example in exact:
        predicted = sum(found[name] * value for name, value in example.features.items())
        assert predicted == pytest.approx(example.counts.lut, rel=0.01)
    wrong = [replace(exact[0], counts=Counts(3 * exact[0].counts.lut, 1, 0)), *exact[1:]]
    assert held_out_errors(wrong, "lut")[1] > 0.3


@pytest.mark.parametrize("name, machine", [*PLACED, *MAPPED])
def test_machines_outside_of_the_table(name, machine):
    """LUTs within 10 %, far larger than any machine that the model was fitted to."""
    measured = (PLACED | MAPPED)[name, machine]
    params = load(name) if (name, machine) in PLACED else random_params(load_config(name), 0)
    found, model = features(*described(params, load_machine(machine))), area_model()
    assert model.predict("lut", found) == pytest.approx(measured.lut, rel=0.1)
    assert model.predict("ff", found) == pytest.approx(measured.ff, rel=0.15)


def test_prediction_from_rates():
    params = random_params(network(), 0)
    machine = Machine(lanes=4, banks=2, post_lanes=2, weight_memory="stream")
    program, widths, bounds = described(params, machine)
    rates = default_rates(params.config)
    first, again = (predict(program, widths, bounds, rates) for _ in range(2))
    assert first == again
    assert sum(layer.cycles for layer in first.layers) < first.interval
    silent, loud = (
        predict(program, widths, bounds, dict.fromkeys(rates, rate)).interval for rate in (0.0, 1.0)
    )
    assert silent < first.interval < loud
    assert first.stream_bits > 0 and json.loads(json.dumps(first.as_dict()))["bram"] == first.bram
    trace = random_trace(program, dict.fromkeys(rates, 0.5))
    assert np.mean(trace["block.0.x"]) == pytest.approx(0.5, abs=0.2)


def test_profiles_of_other_networks_are_refused():
    config = network()
    rates = default_rates(config)
    assert check_rates(config, rates) == rates
    without_k = {name: rate for name, rate in rates.items() if not name.endswith(".k")}
    assert check_rates(config, without_k)["block.0.k"] == rates["block.0.q"]
    with pytest.raises(UserError, match="has 'block.7.x', which is none of tiny's spikes"):
        check_rates(config, rates | {"block.7.x": 0.1})
    with pytest.raises(UserError, match="lacks 'block.0.hidden'"):
        check_rates(config, {name: rate for name, rate in rates.items() if name != "block.0.hidden"})
    for wrong in (-0.1, 1.5, "x", True, float("nan")):
        with pytest.raises(UserError, match="expected a number from 0 to 1"):
            check_rates(config, rates | {"block.0.x": wrong})
