"""What `s2tdpt compare` found, as plain values, tables and a drawing."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from s2tdpt.scripts.output import write_bytes
from s2tdpt.sw.comparison import summarise

ABLATED = {"zero": "Y = 0", "data_mean": "constant A", "other_image": "other image"}
"""Ablations that the first table shows; the JSON has all of them."""
RATES = ("q", "k", "v", "attn")

Rows = list[list[str]]


def result_of(runs: list[dict[str, Any]], units: dict[str, dict[str, Any]], setting: dict[str, Any]) -> dict:
    """By kind: what its runs have in common, mean costs (share: attention cycles by cycles), its unit."""
    kinds = summarise(runs)
    for kind, found in kinds.items():
        costs = [run["cost"] for run in runs if run["kind"] == kind]
        mean = {name: statistics.fmean(cost[name] for cost in costs) for name in costs[0]}
        mean["share"] = mean["attention_cycles"] / mean["cycles"]
        found |= {"cost": mean, "unit": units[kind]}
    return {"counted": setting, "kinds": kinds, "runs": runs}


def points(value: float | None, digits: int = 2) -> str:
    """Per cent, or a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def _accuracy(found: dict[str, Any]) -> str:
    deviation = found["deviation"]
    return points(found["mean"]) + ("" if deviation is None else f"±{points(deviation)}")


def accuracy_rows(result: dict[str, Any]) -> tuple[list[str], Rows]:
    """Accuracies in %, points that an ablation takes away with their standard error, rates in %."""
    heads = ["kind", "seeds", "float", "integers", *ABLATED.values(), *RATES]
    rows = []
    for kind, found in result["kinds"].items():
        drops = (found["drops"].get(name) for name in ABLATED)
        words = ("-" if d is None else f"{points(d['mean'], 1)}±{points(d['error'], 1)}" for d in drops)
        rates = (points(found["rates"].get(part), 1) for part in RATES)
        accuracies = (_accuracy(found[part]) for part in ("float", "integer"))
        rows.append([kind, str(len(found["seeds"])), *accuracies, *words, *rates])
    return heads, rows


def cost_rows(result: dict[str, Any]) -> tuple[list[str], Rows]:
    """Parameters, cycles and state of the compared network, LUTs of the small unit, energy in nJ."""
    heads = [
        "kind",
        "params",
        "cycles",
        "attention cycles",
        "share, %",
        "state bits",
        "LUTs",
        "theory, nJ",
        "counted, nJ",
        "attention, nJ",
    ]
    rows = []
    for kind, found in result["kinds"].items():
        cost = found["cost"]
        numbers = [cost[name] for name in ("cycles", "attention_cycles")]
        bits = [state_bits(cost), found["unit"]["lut"]]
        energies = [cost[f"{name}_pj"] / 1e3 for name in ("theory", "counted", "attention_counted")]
        rows.append(
            [
                kind,
                f"{found['parameters']:,}",
                *(f"{number:,.0f}" for number in numbers),
                points(cost["share"], 1),
                *(f"{number:,.0f}" for number in bits),
                *(f"{energy:,.0f}" if energy >= 100 else f"{energy:,.1f}" for energy in energies),
            ]
        )
    return heads, rows


def token_rows(result: dict[str, Any]) -> tuple[list[str], Rows]:
    """Cycles of a head, and bits of memories and registers beside q, k and v, by tokens."""
    first = next(iter(result["kinds"].values()))["unit"]["by_tokens"]
    heads = ["kind"]
    for words in ("cycles", "state bits"):
        heads += [f"{words}, N = {row['tokens']:,}" for row in first]
    rows = []
    for kind, found in result["kinds"].items():
        by = found["unit"]["by_tokens"]
        rows.append([kind, *(f"{row['cycles']:,}" for row in by), *(f"{state_bits(row):,}" for row in by)])
    return heads, rows


def state_bits(row: dict[str, Any]) -> int:
    """All bits that a unit keeps beside q, k and v."""
    return row["memory_bits"] + row["register_bits"]


TITLES = (
    (
        "right in %; points lost without the attention's part, with one standard error; rates in %",
        accuracy_rows,
    ),
    ("cost: exact cycles, netlist's state, LUTs of the small unit, energy of an image", cost_rows),
    ("one head of 32 channels, T = 4, random spikes with published rates", token_rows),
)


def tables(result: dict[str, Any], title: str) -> Iterable[Table]:
    """For a terminal."""
    for words, make in TITLES:
        heads, rows = make(result)
        table = Table(title=f"{title}: {words}", box=SIMPLE_HEAD, padding=0)
        for head in heads:
            table.add_column(head.replace(" ", "\n", 1), justify="left" if head == "kind" else "right")
        for row in rows:
            table.add_row(*row)
        yield table


def markdown_tables(result: dict[str, Any]) -> str:
    """The same tables for a page."""
    lines = []
    for words, make in TITLES:
        heads, rows = make(result)
        lines += [f"{words[0].upper()}{words[1:]}:", "", f"| {' | '.join(heads)} |"]
        lines.append("|---" * len(heads) + "|")
        lines += [f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def draw(result: dict[str, Any], path: Path) -> None:
    """Accuracy of every seed with what is left after ablation; cycles and state of a head by tokens."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = result["kinds"]
    figure = Figure(figsize=(13, 3.5 + 0.3 * len(kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 2))
    left, upper, lower = (figure.add_subplot(grid[place]) for place in ((slice(0, 2), 0), (0, 1), (1, 1)))
    for y, found in enumerate(kinds.values()):
        each, mean = found["integer"]["each"], found["integer"]["mean"]
        once = y == 0
        left.plot(
            [100 * a for a in each],
            [y] * len(each),
            "o",
            color="tab:blue",
            alpha=0.5,
            label="integers, each seed" if once else None,
        )
        left.plot([100 * mean], [y], "|", color="black", markersize=16, label="mean" if once else None)
    for (name, words), marker in zip(ABLATED.items(), "xs*", strict=True):
        places = [(y, f) for y, f in enumerate(kinds.values()) if name in f["drops"]]
        kept = [100 * (f["integer"]["mean"] - f["drops"][name]["mean"]) for _, f in places]
        left.plot(kept, [y for y, _ in places], marker, linestyle="", label=f"{words} instead")
    left.set_yticks(range(len(kinds)), list(kinds))
    left.invert_yaxis()
    left.set_xlabel("accuracy, %")
    left.grid(axis="x", alpha=0.3)
    left.legend(fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    for axes, value, words in (
        (upper, lambda row: row["cycles"], "cycles of a head"),
        (lower, state_bits, "state, bits"),
    ):
        for number, (kind, found) in enumerate(kinds.items()):
            by, line = found["unit"]["by_tokens"], ("-", "--", ":")[number // 10 % 3]
            axes.plot([row["tokens"] for row in by], [value(row) for row in by], f"o{line}", ms=3, label=kind)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("tokens")
        axes.set_ylabel(words)
        axes.grid(alpha=0.3)
    upper.legend(fontsize="x-small", ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    picture = io.BytesIO()
    kind = path.suffix[1:].lower()
    dated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(picture, format=kind, dpi=120, metadata=dated[kind])
    write_bytes(path, picture.getvalue())
