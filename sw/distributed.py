"""Several processes, one a GPU, started by `torchrun`: each takes its share of every batch.

All processes draw the same order and the same augmentation of the whole batch and take their rows of it, so
that a run is the same run on any number of devices, up to rounding and the batch statistics, which are local.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """Number of this process, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes, 1 when alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes files and shows progress."""
    return rank() == 0


def local_device() -> torch.device:
    """The CUDA device of this process, if there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


@contextmanager
def process_group():
    """Join the group that `torchrun` described in the environment; alone, nothing happens."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) < 2 or dist.is_initialized():
        yield
        return
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def wrap(network: nn.Module) -> nn.Module:
    """`network`, its gradients averaged over the processes."""
    if world_size() == 1:
        return network
    from torch.nn.parallel import DistributedDataParallel

    # Static: the graph is the same every step; a control attention leaves q and k without a gradient.
    return DistributedDataParallel(network, find_unused_parameters=True)


def share(batch: Tensor) -> Tensor:
    """Rows of this process."""
    return batch if world_size() == 1 else batch[rank() :: world_size()]


def agree(values: list[float], device: torch.device) -> list[float]:
    """The first process's `values`, in every process."""
    if world_size() == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return tensor.tolist()


def total(values: list[float], device: torch.device) -> list[float]:
    """Sums of `values` over the processes."""
    if world_size() == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.tolist()
