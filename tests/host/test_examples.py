"""The examples for LiteX and PYNQ run on a real package; the two frameworks are stand-ins.

Behind PYNQ's stand-in are the twin of the registers and the golden model, which take the hardware's bytes.
"""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.register_map import MAP
from s2tdpt.golden.registers import Constants, Registers
from s2tdpt.golden.responder import infer_with
from s2tdpt.hw.package import folder as package
from s2tdpt.hw.plan.machine import Machine
from s2tdpt.sim.cases import build_case, network
from tests.golden.test_registers import TwinBus

EXAMPLES = Path(__file__).parents[2] / "examples"
MACHINE = Machine(lanes=8, banks=2, post_lanes=4)


@pytest.fixture(scope="module")
def case():
    return build_case(network(), MACHINE, seed=3, frames=5)


@pytest.fixture(scope="module")
def folder(case, tmp_path_factory):
    """The package of the case, with registers."""
    return package.generate(
        case.params, MACHINE, tmp_path_factory.mktemp("made") / "tiny", "tiny", registers=True
    )


def load(name, monkeypatch, **modules):
    """An example, imported where the named modules are stand-ins."""
    for path, content in modules.items():
        module = ModuleType(path)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, path, module)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- PYNQ --------------------------------------------------------------------------------


class Board:
    """A DMA and the accelerator behind it, as the package's manifest describes it."""

    def __init__(self, manifest, infer, change=None):
        self.twin = Registers(
            Constants(
                manifest["frame_bytes"],
                manifest["result_words"],
                manifest["result_word_bytes"],
                bytes.fromhex(manifest["config_hash"]),
            )
        )
        self._infer, self._change = infer, change or (lambda data: data)
        self._target, self._results = None, []
        self.sendchannel = SimpleNamespace(transfer=self._send, wait=lambda: None)
        self.recvchannel = SimpleNamespace(transfer=self._receive, wait=self._deliver)

    def _send(self, buffer):
        data, twin = self._change(buffer.tobytes()), self.twin
        moved = [twin.gate.cycle(True, True, number == len(data) - 1) for number in range(len(data))]
        assert all(moved), "the DMA hangs: no image is taken"
        if len(data) == 20:
            twin.complete(1000 + sum(data) % 100)
            self._results.append(self._infer(data))
        else:
            twin.drop(len(data) < 20)

    def _receive(self, buffer):
        self._target = buffer

    def _deliver(self):
        if self._results:
            self._target[:] = self._results.pop(0)


@pytest.fixture
def pynq(case, folder, monkeypatch):
    """Opens the example's overlay on a board of one's own."""

    def make(change=None, infer=None, alter=None):
        manifest = json.loads((folder / "manifest.json").read_text())["registers"]
        infer = infer or infer_with(GoldenNetwork(case.params))
        board = Board(manifest | (alter or {}), infer, change)
        opened = []

        def overlay(bitstream):
            opened.append(bitstream)
            return SimpleNamespace(ip_dict={"s2tdpt": {"phys_addr": 0x4000_0000}}, axi_dma_0=board)

        def mmio(address, length):
            assert (address, length) == (0x4000_0000, 0x1000) and length >= 1 << MAP.address_bits
            return TwinBus(board.twin)

        stand_in = {"Overlay": overlay, "MMIO": mmio, "allocate": np.zeros}
        example = load("pynq_overlay", monkeypatch, pynq=stand_in)
        accelerator = example.open_overlay("s2tdpt.bit", folder)
        assert opened == ["s2tdpt.bit"]
        return accelerator, board

    return make


def test_overlay_classifies_as_the_golden_model(case, pynq):
    accelerator, board = pynq()
    classes = accelerator.classify(case.images)
    assert classes.dtype == np.int64 and classes.tolist() == case.golden["head.class"].tolist()
    assert np.array_equal(accelerator.infer(case.images), case.golden["head.logits"])
    assert accelerator.cycles == [1000 + int(image.sum()) % 100 for image in case.images]
    assert board.twin.frames == 2 * len(case.images) and not board.twin.gate.open
    assert accelerator.classify(case.images[:0]).tolist() == []


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: data[:-1], "0 images computed, 1 too short, 0 too long; expected 1, 0, 0"),
        (lambda data: data + b"\0", "0 images computed, 0 too short, 1 too long; expected 1, 0, 0"),
    ],
)
def test_overlay_reports_no_image_that_was_dropped(case, pynq, change, message):
    with pytest.raises(RuntimeError, match=message):
        pynq(change)[0].classify(case.images)


def test_overlay_believes_no_class_that_is_not_that_of_the_logits(case, pynq):
    accelerator, _ = pynq(infer=lambda image: [3, 5, 4, 2])
    with pytest.raises(RuntimeError, match="class 2 is not that of the largest logit"):
        accelerator.classify(case.images)


def test_overlay_refuses_another_bitstream_and_other_images(case, pynq):
    with pytest.raises(RuntimeError, match=r"^the hardware is abababababababab, the package [0-9a-f]{16}; "):
        pynq(alter={"config_hash": "ab" * 32})
    accelerator, board = pynq()
    for images in (case.images[:, :4], case.images.astype(np.int64)):
        with pytest.raises(ValueError, match=r"expected uint8 \[B, 5, 4, 1\]"):
            accelerator.classify(images)
    assert board.twin.frames == 0


# --- LiteX --------------------------------------------------------------------------------


class Wire:
    """A signal, or bits of it, by name."""

    def __init__(self, name="", bits=1):
        self.name, self.bits = name, bits

    def __getitem__(self, part):
        return Wire(self.name, len(range(*part.indices(self.bits))))

    def __invert__(self):
        return Wire(f"~{self.name}", self.bits)


def bundle(path, **fields):
    """Fields of a record, each with its width."""
    return SimpleNamespace(**{name: Wire(f"{path}.{name}", bits) for name, bits in fields.items()})


def handshake(path, **fields):
    return bundle(path, valid=1, ready=1, last=1, **fields)


class AxiLite(SimpleNamespace):
    """Channels with the fields and the widths of LiteX."""

    def __init__(self, data_width, address_width):
        super().__init__(
            aw=handshake("aw", addr=address_width, prot=3),
            w=handshake("w", data=data_width, strb=data_width // 8),
            b=handshake("b", resp=2),
            ar=handshake("ar", addr=address_width, prot=3),
            r=handshake("r", data=data_width, resp=2),
        )


class Instance:
    def __init__(self, module, **pins):
        self.module, self.pins = module, pins


@pytest.fixture
def litex(monkeypatch):
    """The example, and the files that it gives to its platform."""

    class Specials(list):
        def __iadd__(self, item):
            self.append(item)
            return self

    class Core:
        @property
        def specials(self):
            return self.__dict__.setdefault("_specials", Specials())

        @specials.setter
        def specials(self, value):
            """What ``+=`` assigns is the same list."""

    endpoint = {"Endpoint": lambda layout: handshake("stream", **dict(layout))}
    axi = SimpleNamespace(AXILiteInterface=AxiLite)
    modules = {
        "migen": {
            "ClockSignal": lambda domain: Wire(f"{domain}_clk"),
            "ResetSignal": lambda domain: Wire(f"{domain}_rst"),
            "Signal": lambda name: Wire(name),
            "Instance": Instance,
        },
        "litex": {},
        "litex.gen": {"LiteXModule": Core},
        "litex.soc": {},
        "litex.soc.integration": {},
        "litex.soc.integration.soc": {"SoCRegion": lambda **fields: fields},
        "litex.soc.interconnect": {"axi": axi, "stream": SimpleNamespace(**endpoint)},
    }
    return load("litex_core", monkeypatch, **modules)


def check_pins(core, folder):
    """Every port of the Verilog has a pin of its direction and width, and no pin is without a port."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (instance,) = core.specials
    assert instance.module == manifest["top"] == "tiny"
    assert re.search(r"^module tiny\(", (folder / "tiny.sv").read_text(), re.MULTILINE)
    ports = {f"{port['direction'][0]}_{port['name']}": port["width"] for port in manifest["ports"]}
    assert {pin: wire.bits for pin, wire in instance.pins.items()} == ports


def test_litex_core_connects_every_port(folder, litex):
    sources = []
    core = litex.S2tdpt(SimpleNamespace(add_source=sources.append), folder)
    check_pins(core, folder)
    assert sources == [str(folder.resolve() / "tiny.sv")] and Path(sources[0]).is_file()
    pins = core.specials[0].pins
    assert pins["i_aclk"].name == "sys_clk" and pins["i_aresetn"].name == "~sys_rst"
    assert pins["i_s_axis_tdata"] is core.sink.data and pins["o_m_axis_tlast"] is core.source.last
    assert pins["i_s_axi_bready"] is core.bus.b.ready and core.busy is pins["o_busy"]
    assert not hasattr(core, "weights")
    slaves = []
    soc = SimpleNamespace(bus=SimpleNamespace(add_slave=lambda *slave: slaves.append(slave)))
    litex.add_registers(soc, "s2tdpt", core, 0x9000_0000)
    ((name, bus, region),) = slaves
    assert (name, region["origin"], region["cached"]) == ("s2tdpt", 0x9000_0000, False)
    assert bus is core.bus and region["size"] >= 1 << MAP.address_bits


def test_litex_core_with_ports_that_it_does_not_know(folder, litex, tmp_path):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["ports"].append({"name": "surprise", "direction": "input", "width": 1})
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="has ports that this core does not know: surprise$"):
        litex.S2tdpt(SimpleNamespace(add_source=print), tmp_path)
    manifest["ports"][-1]["name"] = "m_axis_extra"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="m_axis_extra$"):
        litex.S2tdpt(SimpleNamespace(add_source=print), tmp_path)
