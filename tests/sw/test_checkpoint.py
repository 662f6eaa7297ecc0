"""Checkpoints of the version before: the attention was always STDP, its options fields of the network."""

import json

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from s2tdpt.golden.attention.stdp import Stdp
from s2tdpt.golden.config import config_from_dict
from s2tdpt.golden.errors import UserError
from s2tdpt.sw.checkpoint import read_checkpoint, save_checkpoint
from s2tdpt.sw.network import Network
from s2tdpt.sw.settings import TrainSettings
from tests.sw.helpers import small


def older(path, version):
    """The checkpoint in `path` as an earlier program would have written it."""
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["s2tdpt"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    options = meta["config"].pop("attention")
    meta["config"] |= {
        "kappa": options["kappa"],
        "stdp_amplitude": options["amplitude"],
        "stdp_offset": options["offset"],
        "attention_scale_log2": options["scale_log2"],
    }
    meta["settings"]["variant"] = meta["settings"].pop("gradient")
    save_file(tensors, path, {"s2tdpt": json.dumps(meta | {"version": version})})


def test_version_2_is_read_as_version_3_and_version_1_is_refused(tmp_path):
    config = small(
        attention={"kind": "stdp", "kappa": 0.25, "amplitude": 100, "offset": 120, "scale_log2": 1}
    )
    meta = {
        "config": config.model_dump(mode="json"),
        "settings": TrainSettings(gradient="autodiff").to_json(),
        "stage": "float",
    }
    path = tmp_path / "float.safetensors"
    save_checkpoint(path, Network(config), None, {}, meta)
    tensors, now = read_checkpoint(path)
    older(path, 2)
    again, read = read_checkpoint(path)
    assert read == now and set(again) == set(tensors)
    assert config_from_dict(read["config"]).attention == Stdp(
        kappa=0.25, amplitude=100, offset=120, scale_log2=1
    )
    assert read["settings"]["gradient"] == "autodiff" and "variant" not in read["settings"]
    save_checkpoint(path, Network(config), None, {}, meta)
    older(path, 1)
    with pytest.raises(UserError, match="has version 1; expected 3"):
        read_checkpoint(path)
