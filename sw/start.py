"""What training begins with instead of random weights: a finished float stage, or a file of integers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from s2tdpt.golden import parameter_file, shipped, strictjson
from s2tdpt.golden.config import NetworkConfig, config_from_dict
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.params import Params
from s2tdpt.sw.checkpoint import read_checkpoint, restore_result, save_checkpoint
from s2tdpt.sw.datasets import Dataset
from s2tdpt.sw.export import from_params
from s2tdpt.sw.fold import fold
from s2tdpt.sw.network import Network
from s2tdpt.sw.quantize import QatNetwork
from s2tdpt.sw.unfold import dequantised, unfolded

START_IMAGES = 1024
"""Training images from which the norms of a network of integers are set."""


def find(source: str | Path) -> Path:
    """The file that a path or the name of a shipped one means; one in the current folder goes first.

    Raises
    ------
    UserError
        There is none.
    """
    path, name = Path(source), str(source)
    if path.exists():
        return path
    if name in shipped.shipped_models():
        return shipped.FOLDER / f"{name}.safetensors"
    known = ", ".join(shipped.shipped_models())
    raise UserError(
        f"no network {name} to begin with; expected float.safetensors of a run, a parameter file, or one of "
        f"{known}; check the name"
    )


def load_start(network: Network, source: str | Path, dataset: Dataset) -> None:
    """Put the weights that a float stage begins with into `network`, in place.

    Parameters
    ----------
    network : Network
        Its configuration may differ from that of the file in `timesteps` and `weight_bits` only.
    source : str or path
        A finished float stage, or a parameter file or the name of a shipped one, whose integers become
        weights and whose norms are set from training images (`sw.unfold`).
    dataset : Dataset
        Whose training images the norms are set from.

    Raises
    ------
    UserError
        No such file, damaged, not finished, or of another configuration.
    """
    path = find(source)
    if _format(path) == parameter_file.FORMAT:
        integers = _integers(network, Params.load(path), ("timesteps", "weight_bits"))
        images = torch.as_tensor(dataset.train_images[:START_IMAGES])
        folded = dequantised(integers).to(network.head.weight.device)
        network.load_state_dict(unfolded(folded, images).state_dict())
        return
    _load_float(network, path, ("timesteps", "weight_bits"))


@dataclass(frozen=True)
class Origin:
    """What an integer stage is quantised from.

    folded : Network
        Without norms.
    accuracy : float or None
        On all test images, 0..1; None where the file does not say it for this data set.
    history : list of dict
        Of the float stage; empty for a file of integers.
    integers : str
        Checksum of the parameter file, "" if it was none.
    """

    folded: Network
    accuracy: float | None
    history: list[dict[str, Any]]
    integers: str = ""


def load_origin(network: Network, source: str | Path, dataset: Dataset) -> Origin:
    """What `source` holds, to be quantised; its configuration may differ in `weight_bits` only.

    Parameters
    ----------
    network : Network
        Gives the configuration and the attention; a float stage is put into it, in place.
    source : str or path
        A finished float stage, or a parameter file or the name of a shipped one, whose integers are
        quantised again, to other bits or from other images.

    Raises
    ------
    UserError
        As `load_start`.
    """
    path, device = find(source), network.head.weight.device
    if _format(path) == parameter_file.FORMAT:
        params = Params.load(path)
        folded = dequantised(_integers(network, params, ("weight_bits",))).to(device)
        same = params.provenance.get("digest") == dataset.digest
        return Origin(folded, params.recorded_accuracy() if same else None, [], params.checksum())
    meta = _load_float(network, path)
    accuracy = meta.get("accuracy") if meta["digest"] == dataset.digest else None
    return Origin(fold(network), accuracy, meta["history"])


def _load_float(network: Network, path: Path, free: tuple[str, ...] = ("weight_bits",)) -> dict[str, Any]:
    """Put a finished float stage into `network`; returns the header of its file."""
    tensors, meta = read_checkpoint(path)
    _refuse_unfinished(path, meta)
    _check_same(path, network.config, meta["config"], free)
    restore_result(path, tensors, network)
    return meta


def save_float(source: str | Path, target: Path) -> None:
    """Write the network of the finished float stage `source` without what only a resumed run needs.

    The result is a checkpoint of a finished stage: the averaged weights if there are any, no moments of the
    optimiser, no random generators.
    """
    path = find(source)
    tensors, meta = read_checkpoint(path)
    _refuse_unfinished(path, meta)
    network = Network(config_from_dict(meta["config"], source=str(path)))
    restore_result(path, tensors, network)
    kept = {name: value for name, value in meta.items() if name not in ("format", "version")}
    save_checkpoint(target, network, None, {}, kept)


def _format(path: Path) -> str | None:
    """What kind of file this is, by its header; None: not one of ours, which its reader will say."""
    try:
        with safe_open(path, "pt") as file:
            return strictjson.parse((file.metadata() or {})[parameter_file.METADATA_KEY].encode())["format"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _integers(network: Network, params: Params, free: tuple[str, ...]) -> QatNetwork:
    """The trainable network of `params`, with the attention of `network`."""
    _check_same(params.label, network.config, params.config.model_dump(mode="json"), free)
    for name in ("residual_threshold", "attention_threshold"):
        if (given := getattr(params, name)) != (wanted := getattr(params.config, name)):
            raise UserError(
                f"{params.label} has {name} {given}; expected {wanted}, that of its configuration, to train "
                "on from it; start from another network"
            )
    return from_params(params, network.gradient)


def _check_same(source: str | Path, config: NetworkConfig, stored: dict, free: tuple[str, ...]) -> None:
    """Refuse a network of another configuration; the fields `free` may differ."""
    mine = {name: getattr(config, name) for name in free}
    differences = config.differences(config_from_dict({**stored, **mine}, source=str(source)))
    if differences:
        raise UserError(
            f"{source} was trained for another configuration ({differences[0]}); expected {config.name}"
            f"{' with any number of steps' if 'timesteps' in free else ''}; use its own configuration"
        )


def _refuse_unfinished(path: Path, meta: dict[str, Any]) -> None:
    if meta["stage"] != "float":
        raise UserError(
            f"{path} is a checkpoint of stage {meta['stage']}; expected the float stage; "
            "name float.safetensors of a run"
        )
    if not meta["finished"]:
        raise UserError(
            f"{path} stopped after {meta['epoch']} epochs, before its end; expected a "
            "finished float stage; resume that run first"
        )
