"""Training: float network, quantisation-aware training, data sets, export.

    import s2tdpt.golden as golden
    import s2tdpt.sw as sw

    data, settings = sw.load_dataset("digits"), sw.default_settings("digits")
    report = sw.train_pipeline(golden.load_config("digits"), data, settings, "runs/digits")
    report.params                                   # what `golden`, `hw` and `sim` take

Needs neither Amaranth nor any tool. docs/library.md shows more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2tdpt.golden.exports import lazy

if TYPE_CHECKING:
    from s2tdpt.sw.datasets import Dataset, load_dataset
    from s2tdpt.sw.evaluate import verify_equal, verify_logits
    from s2tdpt.sw.export import from_params
    from s2tdpt.sw.network import Network
    from s2tdpt.sw.quantize import QatNetwork
    from s2tdpt.sw.settings import TrainSettings, default_settings
    from s2tdpt.sw.train import TrainReport, train_pipeline

__all__ = [
    "Dataset",
    "Network",
    "QatNetwork",
    "TrainReport",
    "TrainSettings",
    "default_settings",
    "from_params",
    "load_dataset",
    "train_pipeline",
    "verify_equal",
    "verify_logits",
]

_MODULES = {
    "Dataset": "datasets",
    "Network": "network",
    "QatNetwork": "quantize",
    "TrainReport": "train",
    "TrainSettings": "settings",
    "default_settings": "settings",
    "from_params": "export",
    "load_dataset": "datasets",
    "train_pipeline": "train",
    "verify_equal": "evaluate",
    "verify_logits": "evaluate",
}

__getattr__ = lazy(__name__, _MODULES)
