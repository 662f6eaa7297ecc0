"""Nothing is left behind by a tool that is interrupted, a simulator that dies, a disk that is full."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from s2tdpt.golden.errors import UserError
from s2tdpt.hw.tools import processes
from s2tdpt.hw.tools.processes import Process, check_room, interruptible
from s2tdpt.sim.build import build
from s2tdpt.sim.runner import Job, Run, run
from tests.sim import standin
from tests.sim.conftest import QUICK

ENDLESS = 1 << 30
"""A watchdog that nobody lives to see."""

MARK = "S2TDPT_TEST_MARK"


def marked(mark: str) -> list[str]:
    """Command lines of the living processes in whose environment the mark stands."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if line]


def wait_until(condition, seconds: float = 120):
    """The first true value of a condition; fails if there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("it never came true")


def start(code: str, tmp_path: Path, mark: str, **environment) -> subprocess.Popen:
    """A Python program of its own with a private folder for temporary files."""
    (tmp_path / "temporary").mkdir(exist_ok=True)
    fresh = os.environ | {MARK: mark, "TMPDIR": str(tmp_path / "temporary")} | environment
    root = Path(__file__).parents[2]
    text = textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", text], cwd=root, env=fresh, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_children_end_with_their_program(tmp_path):
    mark = uuid.uuid4().hex
    command = ["sh", "-c", "sleep 1000 & sleep 1000 & wait"]
    with Process(command, cwd=tmp_path, env=os.environ | {MARK: mark}, log=tmp_path / "log") as process:
        wait_until(lambda: len(marked(mark)) == 3)
        assert process.code is None
    assert process.code == -signal.SIGTERM
    wait_until(lambda: not marked(mark), 5)


def test_program_that_ignores_the_request_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.5)
    mark = uuid.uuid4().hex
    command = ["sh", "-c", "trap '' TERM; sleep 1000; sleep 1000"]
    with Process(command, cwd=tmp_path, env=os.environ | {MARK: mark}, log=tmp_path / "log") as process:
        wait_until(lambda: len(marked(mark)) == 2)
    assert process.code == -signal.SIGKILL
    wait_until(lambda: not marked(mark), 5)


def test_program_that_cannot_be_started(tmp_path):
    with pytest.raises(UserError, match=r"^cannot start nowhere \(No such file or directory\); expected a "):
        Process(["/nowhere"], cwd=tmp_path, env={}, log=tmp_path / "log")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_request_to_end_unwinds(number):
    previous = signal.signal(number, signal.SIG_DFL)  # `nohup` has it ignored, which is respected
    try:
        _unwinds(number)
    finally:
        signal.signal(number, previous)


def _unwinds(number):
    before, tidied = signal.getsignal(number), []
    with pytest.raises(SystemExit) as caught, interruptible():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            tidied.append(True)
    assert caught.value.code == 128 + number
    assert tidied and signal.getsignal(number) == before


SIMULATES = """
    import signal
    from pathlib import Path
    from s2tdpt.sim.build import build
    from s2tdpt.sim.runner import Job
    from s2tdpt.sim.cosim import *
    from s2tdpt.sim.cosim import Share, _simulate
    from tests.sim import standin
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path({folder!r})
    with interruptible():
        built = build(standin.verilog("endless"), standin.MODULE, {simulator!r}, waves=True)
        with tempfile.TemporaryDirectory() as root:
            work = Path(root) / "run"
            standin.write_script(work, standin.script(standin.random_tensors(1, 0)), [[0] * 4])
            share = Share(range(1), Job([bytes(12)], limit={limit}), work)
            options = Options(waveform=folder / "wave.fst")
            {before}
            _simulate([share], built, standin.program(), options, lambda text: None)
    """


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_simulation_leaves_nothing(tmp_path, number):
    build(standin.verilog("endless"), standin.MODULE, QUICK, waves=True)
    mark = uuid.uuid4().hex
    code = SIMULATES.format(folder=str(tmp_path), simulator=QUICK, limit=ENDLESS, before="")
    tool = start(code, tmp_path, mark)
    waveform = tmp_path / "wave.fst"
    wait_until(lambda: len(marked(mark)) >= 2 and waveform.exists())
    time.sleep(1)
    tool.send_signal(number)
    tool.communicate(timeout=20)
    assert tool.returncode == (130 if number == signal.SIGINT else 143) or tool.returncode == -number
    wait_until(lambda: not marked(mark), 5)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert list(tmp_path.glob("wave*")) == []


def test_interrupted_build_leaves_nothing(tmp_path):
    mark, cache = uuid.uuid4().hex, tmp_path / "cache"
    tool = start(
        """
        from s2tdpt.sim.build import build
        from tests.sim import standin
        build(standin.verilog(), standin.MODULE)
        """,
        tmp_path,
        mark,
        S2TDPT_CACHE=str(cache),
    )
    wait_until(lambda: any("cc1plus" in line for line in marked(mark)))
    tool.send_signal(signal.SIGTERM)
    tool.communicate(timeout=20)
    assert tool.returncode == 143
    wait_until(lambda: not marked(mark), 5)
    assert list((cache / "builds").iterdir()) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_interrupted_generator_leaves_nothing(tmp_path):
    mark = uuid.uuid4().hex
    tool = start(
        """
        from s2tdpt.sim.cosim import cosimulate
        from s2tdpt.sim.cases import Machine, build_case, network
        machine = Machine(lanes=64, banks=8, post_lanes=8)
        case = build_case(network(sps_channels=(30, 60)), machine)
        cosimulate(case.params, machine, case.images)
        """,
        tmp_path,
        mark,
    )
    wait_until(lambda: any("run_yosys" in line for line in marked(mark)))
    tool.send_signal(signal.SIGTERM)
    tool.communicate(timeout=20)
    assert tool.returncode == 143
    wait_until(lambda: not marked(mark), 5)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.fixture(scope="module")
def endless():
    return build(standin.verilog("endless"), standin.MODULE, QUICK, waves=True)


def endless_job(folder: Path, **changes) -> Job:
    """A job that never gets its result; its script is in the folder."""
    standin.write_script(folder, standin.script(standin.random_tensors(1, 0)), [[0] * 4])
    return Job([bytes(standin.PIXELS)], **{"limit": ENDLESS, **changes})


def test_simulator_that_is_killed_is_not_waited_for(endless, tmp_path):
    with (
        pytest.raises(UserError, match=r"^the simulation ended without a result \(killed by signal 9\); "),
        Run(endless, endless_job(tmp_path), tmp_path) as simulation,
    ):
        os.kill(simulation._process._popen.pid, signal.SIGKILL)
        simulation.outcome()


def test_full_disk_ends_the_run_and_removes_the_waveform(endless, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "ROOM", 1 << 62)
    message = rf"^the disk of {tmp_path} is full, so that the record of the simulation cannot be complete; "
    with pytest.raises(UserError, match=message):
        run(endless, endless_job(tmp_path), tmp_path, tmp_path / "wave.fst")
    assert list(tmp_path.glob("wave*")) == []


def test_waveform_that_could_not_be_written_is_an_error(tmp_path):
    """Writes fail as on a full disk, because no file may grow beyond a limit."""
    build(standin.verilog("endless"), standin.MODULE, "verilator", waves=True)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))"
    mark = uuid.uuid4().hex
    code = SIMULATES.format(folder=str(tmp_path), simulator="verilator", limit=20000, before=limited)
    tool = start(code, tmp_path, mark)
    output = tool.communicate(timeout=120)[0].decode()
    assert "UserError: the waveform" in output and "is incomplete" in output, output
    wait_until(lambda: not marked(mark), 5)
    assert list(tmp_path.glob("wave*")) == []


def test_room_on_the_disk(tmp_path, monkeypatch):
    check_room(tmp_path, "nothing")
    monkeypatch.setattr(processes, "ROOM", 1 << 62)
    with pytest.raises(UserError, match="^the disk of .* is full, so that the report cannot be complete; "):
        check_room(tmp_path, "the report")
