"""Two processes take the same step as one, and a run of two writes what a run of one writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from s2tdpt.golden.params import Params
from s2tdpt.sw.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]

STEP = """
import sys
import torch
from safetensors.torch import save_file
from s2tdpt.sw import distributed
from s2tdpt.sw.step import Batch
from tests.sw.test_interruption import batch_of, stepper

torch.set_num_threads(1)
with distributed.process_group():
    made, network = stepper(batch_size=12)
    whole = batch_of(12)
    parts = [distributed.share(part) for part in (whole.images, whole.labels, whole.others)]
    for _ in range(2):
        made.step(Batch(*parts, whole.share), 1e-3)
    if distributed.is_first():
        save_file({name: p.detach().clone() for name, p in network.named_parameters()}, sys.argv[1])
"""


def together(*arguments, folder):
    """Run python with `arguments` in two processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_two_processes_take_the_step_of_one(tmp_path):
    script = tmp_path / "step.py"
    script.write_text(STEP)
    together(script, tmp_path / "two.safetensors", folder=tmp_path)
    alone = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "one.safetensors")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert alone.returncode == 0, alone.stderr[-2000:]
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize(
    "options",
    [(), pytest.param(("--budget-minutes", "0.02"), marks=pytest.mark.wide)],
    ids=["epochs", "time"],
)
def test_a_run_of_two_writes_one_result_that_one_can_continue(tmp_path, options):
    config = tmp_path / "little.json"
    config.write_text(
        '{"name": "little", "image_height": 8, "image_width": 8, "image_channels": 1, "num_classes": 10, '
        '"timesteps": 2, "sps_channels": [4, 8], "sps_pool": [false, true], "depth": 1, "heads": 2}'
    )
    command = ("train", "--config", config, "--out", tmp_path / "run", "--float-epochs", 2, "--qat-epochs", 1)
    command = (*command, "--batch-size", 256, "--threads", 1, *options)
    if options:
        together("-m", "s2tdpt.scripts.cli", *command, folder=tmp_path)
    else:
        together("-m", "s2tdpt.scripts.cli", *command, "--stop-after", 1, folder=tmp_path)
        _, meta = read_checkpoint(tmp_path / "run" / "float.safetensors")
        assert meta["epoch"] == 1 and not meta["finished"]
        subprocess.run(
            [sys.executable, "-m", "s2tdpt.scripts.cli", *map(str, command), "--resume"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            timeout=300,
        )
    params = Params.load(tmp_path / "run" / "little.safetensors")
    assert params.provenance["accuracy"]["test_images"] == 360
    assert not list((tmp_path / "run").glob(".*"))
