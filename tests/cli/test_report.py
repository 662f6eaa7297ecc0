"""s2tdpt report: the page stands alone, and shows what its JSON says."""

import json
import re
from html.parser import HTMLParser

import pytest

from s2tdpt.golden.shipped import load
from s2tdpt.hw.netlist.netlist_power import BlockPower, NetlistPower
from s2tdpt.hw.netlist.synthesis import Report
from s2tdpt.hw.plan.machine import Machine, load_machine
from s2tdpt.scripts.drawing import Drawing, decades, short
from s2tdpt.scripts.energy import amount

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags in balance, attributes, text by element, rows of tables, the embedded data."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.links: list[str] = []
        self.sections: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.data = ""
        self._section = self._kind = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [
            value for name, value in given.items() if name in ("href", "src", "data", "xlink:href")
        ]
        assert not any(name.startswith("on") for name in given)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = given["id"]
            self.sections[self._section], self.rows[self._section] = "", []
        if tag == "tr":
            self.rows[self._section].append([])
        if tag in ("td", "th"):
            self.rows[self._section][-1].append("")
        self._kind = given.get("type", "")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.data += data
        elif self._section:
            self.sections[self._section] += data
        if any(tag in self.open for tag in ("td", "th")):
            self.rows[self._section][-1][-1] += data


def check_alone(text: str) -> None:
    """Nothing on the page asks for another file."""
    page = Page(text)
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?:|//[a-z]|@import|<link|<img|<iframe", text)
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {"#tip"}
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def check_same(text: str, data: dict) -> None:
    """The page shows what the JSON says."""
    page = Page(text)
    assert json.loads(page.data) == data
    cycles = page.rows["cycles"]
    assert [row[0] for row in cycles[1:-1]] == [layer["name"] for layer in data["cycles"]["layers"]]
    for row, layer in zip(cycles[1:-1], data["cycles"]["layers"], strict=True):
        assert row[2] == f"{layer['cycles']:,.1f}" and row[6] == f"{layer['accumulates']:,.0f}"
    assert cycles[-1][2] == f"{data['cycles']['interval']:,.1f}"
    layers = data["energy"]["layers"]
    energy = page.rows["energy"][1 : len(layers) + 2]
    for row, layer in zip(energy[:-1], layers, strict=True):
        assert (row[0], row[2]) == (layer["name"], amount(layer["counted"]))
        assert row[3:] == [amount(value) if value else "" for value in layer["parts"].values()]
    assert energy[-1][2] == amount(data["energy"]["counted_pj"])
    memories = data["area"]["memories"]
    for row, memory in zip(page.rows["area"][-len(memories) :], memories, strict=True):
        assert (row[0], row[4]) == (memory["name"], f"{memory['total_bits']:,}")
    for block in data["architecture"]:
        assert all(line in page.sections["architecture"] for line in (block["title"], *block["lines"]))
    if data["accuracy"]:
        assert f"{data['accuracy']['correct']} of {data['accuracy']['images']}" in page.sections["accuracy"]
    missing = [row[0] for row in page.rows.get("missing", [[]])[1:]]
    assert missing == [one["part"] for one in data["missing"]]


def netlist_json(machine: Machine) -> dict:
    """What `s2tdpt energy --liberty` writes, as far as it matters, of two blocks."""
    block = BlockPower(4e6, 9e6, 1e6, 2e6, 3e6, 5e6, 6e6, cells=120, flops=30, area=400.5, macro_area=100.0)
    power = NetlistPower(500, 100.0, {"core.lanes": block, "core.post": block}, 10, 10, {})
    frame = {"energy_pj": power.total("dynamic") / 1e3, "counted_pj": 7.0} | power.as_dict()
    fields = machine.model_dump(mode="json")
    return {
        "config": "digits",
        "counted": {"fields": fields},
        "netlist": {"liberty": "cells.lib", "frames": dict.fromkeys(("black", "real", "white"), frame)},
    }


def synthesis_json(machine: Machine) -> dict:
    """What `s2tdpt synth` writes."""
    path = {
        "from": "core.a.Q",
        "to": "core.b.D",
        "logic": 5.25,
        "routing": 4.75,
        "nets": ["core.sum", "x<1>"],
    }
    used, available = {"lut": 23216, "bram": 122}, {"lut": 83640, "bram": 208}
    report = Report("s2tdpt", "ecp5-85k", used, available, {1: 89.45, 2: 80.5}, 95.0, path)
    what = {"network": "digits", "parameters": load("digits").checksum()[:16]}
    return report.as_dict() | what | {"machine": machine.model_dump(mode="json")}


def test_everything_is_there(shell, write):
    machine = load_machine("digits")
    net, synth = write("net.json", netlist_json(machine)), write("synth.json", synthesis_json(machine))
    options = ("--netlist-energy", net, "--synthesis", synth, "-n", 2, "--limit", 20)
    shell.good("report", *options, "--out", "report.html", "--json", "report.json")
    text, data = ((shell.folder / name).read_text() for name in ("report.html", "report.json"))
    data = json.loads(data)
    check_alone(text)
    check_same(text, data)
    assert data["missing"] == [] and data["accuracy"]["images"] == 20
    assert sum(map(sum, data["accuracy"]["matrix"])) == 20
    assert data["timing"]["fmax_median"] == pytest.approx(84.975)
    page = Page(text)
    assert ["lut", "21,849", "23,216", "83,640"] in page.rows["area"]
    assert "84.97 MHz" not in page.sections["timing"] and "85.0 MHz" in page.sections["timing"]
    assert "x<1>" in page.sections["timing"]
    assert "core.lanes: 500 um2" in page.sections["area"]
    assert "40 nJ" in page.sections["energy"]  # two blocks of 20 nJ
    roofs = data["roofline"]
    assert roofs["peak"] == 32 * 4 * 4 and roofs["levels"][0]["bits_a_cycle"] == 4 * 32 * 8
    for point in roofs["levels"][0]["points"]:  # no layer beats the roof
        assert point["additions_a_cycle"] <= roofs["levels"][0]["bits_a_cycle"] * point["additions_a_bit"]
    counted = shell.json("cycles", "-n", 2)
    assert counted["layers"] == data["cycles"]["layers"]


def test_what_is_missing_is_named(shell, tiny, images):
    options = ("-p", tiny, "--images", images, "--set", "weight_memory=stream", "--mhz", 50)
    shell.good("report", *options, "--out", "report.html", "--json", "report.json")
    text, data = (
        (shell.folder / "report.html").read_text(),
        json.loads((shell.folder / "report.json").read_text()),
    )
    check_alone(text)
    check_same(text, data)
    lines = {one["part"]: one["command"] for one in data["missing"]}
    assert "energy of the netlist, area of its cells" in lines and "accuracy, confusion matrix" in lines
    assert lines["timing path"].startswith("s2tdpt synth -p tiny.safetensors --set lanes=32")
    assert [level["name"] for level in data["roofline"]["levels"]] == ["weights on chip", "weight stream"]
    assert data["cycles"]["images_per_second"] == pytest.approx(50e6 / data["cycles"]["interval"])


def test_a_page_that_differs_is_caught(shell, tiny, images):
    """The checks above are worth something: a digit, a tag, a link from outside."""
    shell.good("report", "-p", tiny, "--images", images, "-o", "report.html", "--json", "report.json")
    text = (shell.folder / "report.html").read_text()
    data = json.loads((shell.folder / "report.json").read_text())
    check_same(text, data)
    data["cycles"]["layers"][0]["cycles"] += 1
    with pytest.raises(AssertionError):
        check_same(text, data)
    with pytest.raises(AssertionError):
        check_alone(text.replace("</h1>", "", 1))
    with pytest.raises(AssertionError):
        check_alone(text.replace("<h1>", '<h1><a href="https://example.org">a</a>', 1))


def test_mistakes_are_named(shell, write, tiny):
    assert "Missing option '--out' or '--json'" in shell.refused("report")
    assert "cannot read none.json" in shell.refused("report", "-o", "a.html", "--synthesis", "none.json")
    machine = load_machine("digits")
    net, synth = netlist_json(machine), synthesis_json(machine)
    for change, message in (
        ({"netlist": None}, "has no netlist's energy; expected JSON of `s2tdpt energy --liberty"),
        ({"netlist": {"liberty": "a", "frames": {"real": {}}}}, "has no netlist's energy"),
        ({"config": "other"}, "is of another network: other; expected digits"),
        ({"counted": {"fields": machine.model_dump() | {"lanes": 64}}}, "is of another machine"),
    ):
        path = write("net.json", net | change)
        assert message in shell.refused("report", "-o", "a.html", "--netlist-energy", path)
    for change, message in (
        ({"used": 3}, "is no synthesis report; expected JSON of `s2tdpt synth --json`"),
        ({"network": "other"}, "is of another network"),
        ({"parameters": "0" * 16}, "is of another parameters"),
        ({"machine": {"lanes": 3}}, "is of another machine"),
    ):
        path = write("synth.json", synth | change)
        assert message in shell.refused("report", "-o", "a.html", "--synthesis", path)
    assert "holds no JSON object" in shell.refused(
        "report", "-o", "a.html", "--synthesis", write("list.json", [1])
    )
    assert "--mhz is 0; expected a positive number" in shell.refused("report", "-o", "a.html", "--mhz", 0)


def test_drawing():
    drawing = Drawing(10, 20, "a < b")
    drawing.rect(0, 0, -1, 2.5, "c0", tip="<tip>")
    drawing.text(1, 2, "x & y")
    assert "a &lt; b" in drawing.svg() and "&lt;tip&gt;" in drawing.svg() and "x &amp; y" in drawing.svg()
    assert 'width="0.0" height="2.5"' in drawing.svg()
    assert decades(3, 40) == [1, 10, 100] and decades(1, 1) == [1, 10]
    assert (short(1234), short(0.5), short(2.5e6)) == ("1.23 k", "0.5", "2.5 M")
