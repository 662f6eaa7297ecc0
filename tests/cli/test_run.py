"""s2tdpt run, with the twin of a board behind a pseudo-terminal."""

import numpy as np
import pytest

from s2tdpt.golden.link import identity_of
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.responder import Responder, infer_with
from tests.host.lines import terminal


@pytest.fixture
def board(tiny_params):
    """Name of a port with a board that holds the tiny network."""
    identity = identity_of(tiny_params, window=4, word_bytes=4, clock=25_000_000)
    with terminal(Responder(identity, infer_with(GoldenNetwork(tiny_params))).feed) as (name, _):
        yield name


def test_classifies_and_verifies(shell, tiny, tiny_params, images, board):
    result = shell.json("run", "--port", board, "-p", tiny, "--verify", images)
    logits = GoldenNetwork(tiny_params).forward(np.load(images)).numpy()
    assert result["logits"] == logits.tolist() and result["classes"] == logits.argmax(1).tolist()
    assert result["differing_images"] == 0 and result["correct"] is None
    assert result["images_per_second"] > 0 and result["link"]["answers"] == 2
    shown = shell.good("run", "--port", board, "-p", tiny, images)
    assert f"image 1: class {logits[1].argmax()}" in shown and "images/s" in shown


def test_a_board_that_errs_is_found(shell, tiny, tiny_params, images):
    identity = identity_of(tiny_params, window=4, word_bytes=4, clock=25_000_000)
    right = infer_with(GoldenNetwork(tiny_params))

    def infer(image):
        words = [word + 1 for word in right(image)[:-1]]
        return [*words, words.index(max(words))]

    with terminal(Responder(identity, infer).feed) as (name, _):
        result = shell("run", "--port", name, "-p", tiny, "--verify", images)
        assert result.exit_code == 1 and "image 0: the board says class" in result.output


def test_refusals(shell, tiny, images, board):
    assert shell.refused("run", "--port", "/dev/nowhere", "-p", tiny, images).startswith(
        "no port /dev/nowhere"
    )
    message = shell.refused("run", "--port", board)
    assert "holds other parameters" in message and "expected those of digits" in message
    np.save(shell.folder / "other.npy", np.zeros((1, 9, 9), np.uint8))
    assert "expected" in shell.refused("run", "--port", board, "-p", tiny, "other.npy")
    with terminal(lambda data: b"") as (name, _):
        message = shell.refused("run", "--port", name, "-p", tiny, "--timeout", "0.01", images)
        assert message.startswith(f"nothing answers at {name} at 3000000 baud")
