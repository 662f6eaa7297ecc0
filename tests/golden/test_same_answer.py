"""An image has one answer: alone or in any batch, in any order, after any other, on any number of threads."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import s2tdpt.golden as golden
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.reference import ReferenceNetwork
from tests.golden.shapes import SHAPES, images_for, params_for

NAMES = ("base", "odd-pooled", "eight-steps", "int4", "digits")


def case(name: str) -> tuple[golden.Params, np.ndarray]:
    """Parameters and a dozen images, among them black, white, and one twice."""
    params = golden.load(name) if name == "digits" else params_for(SHAPES[name], 4)
    images = images_for(params.config, 12, 5)
    images[0], images[1], images[7] = 0, 255, images[3]
    return params, images


@pytest.fixture(params=NAMES)
def answered(request):
    """A network, images, and the logits of each image alone on one thread, from a network of its own."""
    params, images = case(request.param)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = torch.cat([GoldenNetwork(params).forward(images[i : i + 1]) for i in range(len(images))])
    yield GoldenNetwork(params), images, alone
    torch.set_num_threads(threads)


def test_images_differ(answered):
    """Else nothing here would be noticed."""
    _, _, alone = answered
    assert len({tuple(row.tolist()) for row in alone}) > 5
    assert torch.equal(alone[3], alone[7])


def test_every_batch_size_and_number_of_threads(answered):
    network, images, alone = answered
    many = np.concatenate([images] * 6)
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        for size in (1, 2, 5, 7, 12):
            parts = [network.forward(images[i : i + size]) for i in range(0, len(images), size)]
            assert torch.equal(torch.cat(parts), alone), (threads, size)
        assert torch.equal(network.forward(many), alone.repeat(6, 1)), threads


def test_every_order_and_neighbour(answered):
    network, images, alone = answered
    rng = np.random.default_rng(0)
    for _ in range(8):
        order = rng.permutation(len(images))
        assert torch.equal(network.forward(images[order]), alone[order])
    for first, second in itertools.product(range(4), repeat=2):  # after any other, and after itself
        network.forward(images[first : first + 1])
        assert torch.equal(network.forward(images[second : second + 1]), alone[second : second + 1])


def test_traces_and_other_forms_give_the_same_logits(answered):
    network, images, alone = answered
    for other in (ReferenceNetwork(network.params), GoldenNetwork(network.params, streamed=True)):
        assert torch.equal(other.forward(images[:3]), alone[:3])
    order = [2, 0, 2, 1]
    traced, single = network.trace(images[order]), network.trace(images[:3])
    for name, value in traced.items():
        assert torch.equal(value, single[name][order]), name
    assert torch.equal(traced["head.logits"], alone[order])


def test_calls_at_the_same_time(answered):
    network, images, alone = answered
    torch.set_num_threads(2)
    rng = np.random.default_rng(1)
    orders = [rng.permutation(len(images)) for _ in range(12)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda order: network.forward(images[order]), orders))
    assert all(torch.equal(result, alone[order]) for result, order in zip(results, orders, strict=True))


def test_another_process_with_other_threads():
    code = (
        "import hashlib, sys, torch; from s2tdpt.golden import GoldenNetwork\n"
        "from tests.golden.test_same_answer import case\n"
        "torch.set_num_threads(int(sys.argv[1])); params, images = case('digits')\n"
        "print(hashlib.sha256(GoldenNetwork(params).forward(images).numpy().tobytes()).hexdigest())"
    )
    params, images = case("digits")
    here = hashlib.sha256(GoldenNetwork(params).forward(images).numpy().tobytes()).hexdigest()
    for threads in ("1", "3"):
        command = [sys.executable, "-c", code, threads]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == here
