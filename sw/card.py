"""The model card: what a parameter file is, where it comes from and what it reaches, as a page to read."""

from __future__ import annotations

from typing import Any

from s2tdpt.golden.complexity import parameter_count
from s2tdpt.golden.params import Params
from s2tdpt.golden.trace import traces


def model_card(params: Params, name: str) -> str:
    """Markdown page of a trained parameter file called `name`; every figure is from its manifest."""
    config, known = params.config, params.provenance
    accuracy: dict[str, Any] = known["accuracy"]
    count = accuracy["test_images"]
    weights = sum(layer.weights for layer in config.layers())
    versions = ", ".join(f"{tool} {version}" for tool, version in sorted(known["versions"].items()))
    stem = "-".join(map(str, config.sps_channels))

    def percent(value: float) -> str:
        return f"{100 * value:.2f} %"

    rows = [
        (
            "network",
            f"{config.name}: stem {stem}, {config.depth} blocks, D = {config.embed_dim}, "
            f"{config.heads} heads, T = {config.timesteps}",
        ),
        (
            "parameters",
            f"{parameter_count(config):,} trainable in the float network, "
            f"{weights:,} weights of {config.weight_bits} bits here",
        ),
        ("data", known["data"]),
        ("data, SHA-256", f"`{known['digest']}`"),
        ("command", f"`{known['command']}`"),
        ("seed", str(known["seed"])),
        ("training", _training(known)),
        ("tool versions", versions),
        ("contents, SHA-256", f"`{params.checksum()}`"),
    ]
    results = [
        (_quantised(known), percent(accuracy["float"])),
        ("integer network in training (QAT)", percent(accuracy["qat"])),
        (
            "integer golden model",
            f"**{percent(accuracy['integer'])}** ({round(accuracy['integer'] * count)} of {count})",
        ),
        ("synaptic rate (additions / dense multiply-accumulates)", percent(known["synaptic_rate"])),
    ]
    spikes = traces(config)
    measured = sorted(
        known["firing_rates"].items(), key=lambda rate: (spikes[rate[0]].block is not None, rate[0])
    )
    rates = [(f"`{name}`", percent(rate)) for name, rate in measured]  # the stem first, then the blocks
    return "\n".join(
        [
            f"# {name}",
            "",
            *_table(("", ""), rows),
            "",
            f"Results on all {count:,} test images, none of which was trained on or chose an epoch:",
            "",
            *_table(("", "result"), results),
            "",
            "Firing rates on the test images:",
            "",
            *_table(("spikes", "rate"), rates),
            "",
        ]
    )


def _quantised(known: dict[str, Any]) -> str:
    """What was quantised, in words."""
    origin = known.get("origin", "")
    return f"integer network that was quantised again (`{origin[:12]}`)" if origin else "float network"


def _training(known: dict[str, Any]) -> str:
    parts = [
        f"{stage} {values['epochs']:.4g} epochs in {values['minutes']:g} minutes"
        for stage, values in sorted(known["training"].items())
    ]
    return "; ".join(parts) + f" ({known['device']}, {known['threads']} threads)"


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
