"""s2tdpt estimate."""

import json

import pytest


def test_estimate_with_measured_rates(shell):
    shell.good("energy", "--limit", 2, "--counted", 0, "--json", "rates.json")
    found = shell.json("estimate", "-p", "digits", "--rates", "rates.json", "--mhz", 50)
    assert found["network"] == "digits" and found["fields"]["lanes"] == 32
    assert found["images_per_second"] == pytest.approx(50e6 / found["interval"])
    # Spikes that are spread evenly take some more cycles than real ones (about 5,300).
    assert 5000 < found["interval"] < 6500
    assert "LUTs: fit to" in shell.good("estimate", "-c", "digits", "--machine", "small")


def test_mistakes_are_named(shell):
    assert "--config or --params" in shell.refused("estimate", "-c", "digits", "-p", "digits")
    assert "positive number of MHz" in shell.refused("estimate", "--mhz", "nan")
    assert "cannot read rates none.json" in shell.refused("estimate", "--rates", "none.json")
    (shell.folder / "list.json").write_text("[]")
    assert "is no rate profile" in shell.refused("estimate", "--rates", "list.json")
    (shell.folder / "other.json").write_text(json.dumps({"config": "other", "layers": []}))
    assert "are those of 'other'; expected digits" in shell.refused("estimate", "--rates", "other.json")
    (shell.folder / "part.json").write_text(json.dumps({"block.0.x": 0.1}))
    assert "lacks" in shell.refused("estimate", "--rates", "part.json")
    refused = shell.refused("estimate", "units", "--kind", "none", "--kind", "tanh")
    assert "--kind is 'tanh'; expected one of none, uniform, stdp" in refused


def test_a_unit_alone_holds_no_multiplier(shell):
    heading, _, row = shell.good("estimate", "units", "--kind", "sssa").splitlines()
    cells = dict(zip(heading.split("|")[2:-1], row.split("|")[2:-1], strict=True))
    counts = {name.strip(): int(count.replace(",", "")) for name, count in cells.items()}
    assert counts["multipliers"] == 0 and counts["LUT4"] > 200 and counts["flip-flops"] > 200


def test_netlist_needs_a_library_that_can_be_read(shell):
    assert "no cell library none.lib" in shell.refused("energy", "--liberty", "none.lib")
    (shell.folder / "dark.lib").write_text("library (dark) { cell (A) { } }")
    assert "streams its weights" in shell.refused(
        "energy", "--limit", 1, "--counted", 0, "--liberty", "dark.lib", "--set", "weight_memory=stream"
    )


def test_attention_by_tokens(shell):
    found = shell.json("estimate", "attention", "--tokens", "16,64", "--head-dim", 8)
    assert [row["tokens"] for row in found["engines"]] == [16] * 4 + [64] * 4
    text = shell.good("estimate", "attention", "--tokens", "16", "--head-dim", 8)
    assert "explicit matrix *" in text and "ssa" in text
    for wrong in ("64,x", "63", "8192", ""):
        message = shell.refused("estimate", "attention", "--tokens", wrong)
        assert "expected powers of two from 4 to 4096 with commas" in message
