"""The port of the operating system: a pseudo-terminal in place of a board; absent, busy, unplugged."""

import fcntl
import os

import numpy as np
import pytest

from s2tdpt.host import Accelerator, LinkError, SerialPort
from s2tdpt.host.port import PortError
from tests.host.lines import expected, pictures, terminal, twin


def test_through_a_terminal():
    """The same host code as for a board; a port that was closed can be opened again."""
    images = pictures(60, 2)
    with terminal(twin().feed) as (name, _):
        for _ in range(2):
            with Accelerator.open(name) as board:
                found = board.infer(images)
                assert (np.c_[found.logits, found.classes] == expected(images)).all()
                assert 0 < found.seconds < 5
                board.close()


def test_absent():
    with pytest.raises(
        PortError, match="^no port /dev/no-such-port; expected a serial port of this computer"
    ):
        SerialPort("/dev/no-such-port", 115200)
    with pytest.raises(PortError, match="^/dev/null is no serial port; expected one; check the name$"):
        SerialPort("/dev/null", 115200)


def test_busy():
    with terminal(twin().feed) as (name, _), Accelerator.open(name):
        with pytest.raises(
            PortError, match=f"^{name} is busy; expected a port that no other program uses; close"
        ):
            SerialPort(name, 115200)
    with terminal(twin().feed) as (name, _):
        other = os.open(name, os.O_RDWR | os.O_NOCTTY)
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(PortError, match="is busy"):
            SerialPort(name, 115200)
        os.close(other)


def test_unplugged():
    """In the middle of the images: an error, no result."""
    board_twin, served = twin(), []

    def answer(data):
        served.append(data)
        if len(served) == 4:
            unplug()
        return board_twin.feed(data)

    with terminal(answer) as (name, unplug):
        with Accelerator.open(name, timeout=0.05, attempts=3) as board:
            with pytest.raises((PortError, LinkError), match="^the (port|board at) /dev/"):
                board.infer(pictures(500))


def test_silent_and_wrong_baud():
    with terminal(lambda data: b"") as (name, _):
        with pytest.raises(LinkError, match=f"^nothing answers at {name} at 9600 baud; expected"):
            Accelerator.open(name, baud=9600, timeout=0.01)
    with terminal(lambda data: bytes(byte & 0xF8 for byte in data)) as (name, _):
        with pytest.raises(LinkError, match="bytes that make no sense at 9600 baud"):
            Accelerator.open(name, baud=9600, timeout=0.02)
        SerialPort(name, 9600).close()
