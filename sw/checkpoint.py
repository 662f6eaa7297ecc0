"""Training state on disk: one safetensors file, tensors in its body and JSON in its header.

The file holds everything that the next step depends on (weights, running statistics, optimiser moments,
random generator, epoch, settings), so a resumed run is bit-identical to an uninterrupted one. There is no
pickle: a checkpoint from elsewhere cannot run code.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from s2tdpt.golden import version1
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.strictjson import parse

FORMAT = "s2tdpt-checkpoint"
VERSION = 3


def first_not_finite(tensors: dict[str, Tensor]) -> str | None:
    """Name of a tensor that holds NaN or infinity, if any."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None


def save_checkpoint(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    generators: dict[str, Tensor],
    meta: dict[str, Any],
    average: nn.Module | None = None,
) -> None:
    """Write the state in one step: an interrupted write leaves the previous file.

    `generators`: states of random generators by name; `average`: the averaged network, if one is kept.

    Raises
    ------
    UserError
        A tensor is not finite (the previous file stays), or the file cannot be written.
    """
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    if optimizer is not None:
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    if (bad := first_not_finite(tensors)) is not None:
        raise UserError(
            f"tensor {bad} became NaN or infinite; expected finite values; the last good state "
            f"stays in {path} if there was one; lower the learning rate and resume"
        )
    tensors |= {f"rng.{name}": state for name, state in generators.items()}
    header = {"format": FORMAT, "version": VERSION, **meta}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            temporary,
            {"s2tdpt": json.dumps(header, allow_nan=False)},
        )
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write checkpoint {path} ({error}); expected a writable folder with room; the last good "
            "state stays there if there was one; make room and resume, or choose another output folder"
        ) from None


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON of a checkpoint.

    Raises
    ------
    UserError
        Not there, damaged, of another kind, newer than this version, or holding NaN.
    """
    if not path.is_file():
        raise UserError(
            f"no checkpoint {path}; expected a file written by training; train first or correct the path"
        )
    try:
        with safe_open(path, "pt") as file:
            meta = parse((file.metadata() or {})["s2tdpt"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if meta["format"] != FORMAT:
            raise ValueError(meta["format"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a readable checkpoint ({type(error).__name__}); expected a file written by "
            "training; delete it or name another"
        ) from None
    if meta.get("version") == 2:
        meta = _of_version_2(meta)
    if meta.get("version") != VERSION:
        raise UserError(
            f"checkpoint {path} has version {meta.get('version')}; expected {VERSION}; "
            "use the program version that wrote it"
        )
    if (bad := first_not_finite(tensors)) is not None:
        raise UserError(
            f"checkpoint {path} holds NaN or infinity in {bad}; expected finite values; "
            "delete it and resume from an earlier one"
        )
    return tensors, meta


def _of_version_2(meta: dict[str, Any]) -> dict[str, Any]:
    """The header of a checkpoint whose attention was always STDP, as one of this version."""
    settings = {
        ("gradient" if name == "variant" else name): value for name, value in meta["settings"].items()
    }
    return {**meta, "version": VERSION, "config": version1.config_of(meta["config"]), "settings": settings}


def restore(
    path: Path,
    tensors: dict[str, Tensor],
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    average: nn.Module | None = None,
) -> None:
    """Put a checkpoint's tensors back in place; raises UserError if they do not fit the network."""
    _load(path, tensors, "model.", network)
    if average is not None:
        _load(path, tensors, "average.", average)
    if optimizer is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = tensor
        if state:
            optimizer.load_state_dict(
                {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
            )


def restore_result(path: Path, tensors: dict[str, Tensor], network: nn.Module) -> None:
    """Put back what the run evaluates and exports: the average if one was kept, else the network itself."""
    averaged = any(name.startswith("average.") for name in tensors)
    _load(path, tensors, "average." if averaged else "model.", network)


def _load(path: Path, tensors: dict[str, Tensor], prefix: str, network: nn.Module) -> None:
    model = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    here = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if here != {name: tensor.shape for name, tensor in model.items()}:
        odd = sorted(set(here) ^ set(model)) or sorted(n for n in here if here[n] != model[n].shape)
        raise UserError(
            f"checkpoint {path} does not fit the network ({odd[0]} differs); expected the same "
            "configuration; pass the configuration that it was trained with"
        )
    network.load_state_dict(model)
