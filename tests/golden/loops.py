"""A second implementation of the integer network, written from docs/parameters.md alone.

It shares no code with the package: it reads the file with ``struct`` and ``json``, checks the checksum, and
computes with plain loops over Python integers or 64-bit arrays. It is slow and meant to be obviously right.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np

PROJECTIONS = {"uniform": "v", "none": "v", "qkta": "qk", "qkca": "qk"}
THREE = ("stdp", "ssa", "sdsa", "sssa", "lrf-stdp", "lrf-ssa", "lrf-dyn", "a2os2a")
PROJECTIONS |= dict.fromkeys(THREE, "qkv")
OWN_NEURONS = {"a2os2a": {"k": "levels", "v": "ternary"}}
TYPES = {"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8"}


def read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Manifest and tensors (as int64) of a parameter file; ValueError if the checksum does not hold."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    manifest = json.loads(header.pop("__metadata__")["s2tdpt"])
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    tensors = {}
    for name in sorted(header):
        kind = TYPES[header[name]["dtype"]]
        begin, end = header[name]["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        shape = header[name]["shape"]
        digest.update(f"\n{name}:{kind}:{','.join(map(str, shape))}\n".encode() + raw)
        tensors[name] = np.frombuffer(raw, np.dtype(kind).newbyteorder("<")).reshape(shape).astype(np.int64)
    if digest.hexdigest() != manifest["sha256"]:
        raise ValueError("checksum")
    return manifest, tensors


def places(config: dict) -> list[str]:
    """Names of what neurons fire, in network order."""
    found = [f"sps.{i}.spikes" for i in range(len(config["sps_channels"]) - 1)]
    kind = config["attention"]["kind"]
    for b in range(config["depth"]):
        parts = ("x", *PROJECTIONS[kind], "attn", "mlp_in", "hidden")
        found += [f"block.{b}.{part}" for part in parts if part not in OWN_NEURONS.get(kind, {})]
    return found


def laws(config: dict, p: dict[str, np.ndarray]) -> dict[str, dict]:
    """The numbers of every place's neurons, with their kind."""
    kind = config.get("neuron", {"kind": "lif"})["kind"]
    names = {"lif": (), "plif": ("leak",), "klif": ("gain",)}
    names["glif"] = ("leak", "linear", "soft", "conduct", "gain")
    found = {
        place: {"kind": kind, **{name: p[f"neuron.{name}"][i].tolist() for name in names[kind]}}
        for i, place in enumerate(places(config))
    }
    for part, own in OWN_NEURONS.get(config["attention"]["kind"], {}).items():
        found |= {f"block.{b}.{part}": {"kind": own} for b in range(config["depth"])}
    return found


def fires_at(law: dict, threshold: int) -> int:
    """Threshold of neurons of a place that have none of their own."""
    over, under = 1, 1
    if law["kind"] == "plif":
        over, under = 4, 8 - law["leak"]
    if law["kind"] in ("klif", "glif"):
        over, under = 16, law["gain"]
    return (over * threshold + under - 1) // under


def carried(law: dict, u: int, fired: bool, threshold: int) -> int:
    """What goes into the next step."""
    if law["kind"] == "glif":
        stays = 0 if fired and law["soft"] == 0 else (law["leak"] * u) // 8
        if law["leak"] == 8:
            stays -= threshold // 2 ** law["linear"]
        if fired and law["soft"]:
            stays -= threshold // 2 ** (law["soft"] - 1)
        return stays
    if fired:
        return 0
    if law["kind"] == "klif":
        return max(u, 0) // 2
    return (law.get("leak", 4) * u) // 8


def neurons(x: np.ndarray, threshold: np.ndarray | int, law: dict) -> np.ndarray:
    """Spikes for inputs (T, N, C)."""
    steps, positions, channels = x.shape
    thresholds = [int(threshold)] * channels if np.ndim(threshold) == 0 else [int(v) for v in threshold]
    s = np.zeros(x.shape, np.int64)
    for n in range(positions):
        for c in range(channels):
            h = 0
            for t in range(steps):
                u = h + int(x[t, n, c]) // 2 ** (law["conduct"][t] if "conduct" in law else 0)
                s[t, n, c] = 1 if u >= thresholds[c] else 0
                if law["kind"] == "levels":
                    s[t, n, c] = min(15, max(0, u // thresholds[c]))
                    continue  # h stays 0
                if law["kind"] == "ternary" and u < -thresholds[c]:
                    s[t, n, c] = -1
                h = carried(law, u, bool(s[t, n, c]), thresholds[c])
    return s


def convolve(maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """3x3 sums of one map (Ci, H, W): (Co, H, W)."""
    _, height, width = maps.shape
    result = np.zeros((weight.shape[0], height, width), np.int64)
    for y in range(height):
        for x in range(width):
            for dy in range(3):
                for dx in range(3):
                    row, column = y + dy - 1, x + dx - 1
                    if 0 <= row < height and 0 <= column < width:
                        result[:, y, x] += (weight[:, :, dy, dx] * maps[:, row, column]).sum(axis=1)
    return result


def pool(maps: np.ndarray) -> np.ndarray:
    """OR over 3x3 windows, stride 2, of one map (C, H, W)."""
    channels, height, width = maps.shape
    result = np.zeros((channels, -(-height // 2), -(-width // 2)), np.int64)
    for y in range(result.shape[1]):
        for x in range(result.shape[2]):
            window = maps[:, max(2 * y - 1, 0) : 2 * y + 2, max(2 * x - 1, 0) : 2 * x + 2]
            result[:, y, x] = window.any(axis=(1, 2))
    return result


def attention(
    options: dict, p: dict[str, np.ndarray], block: str, s: dict[str, np.ndarray], heads: int, size: tuple
) -> np.ndarray:
    """Y for spikes (T, N, D) of the projections that exist, by letter."""
    kind = options["kind"]
    y = np.zeros(s["v" if "v" in s else "k"].shape, np.int64)
    steps, tokens, d = y.shape
    width = d // heads
    if kind.startswith("lrf-"):
        if kind == "lrf-dyn":
            names = ("leak", "input", "sign", "shift")
            inner = dynamics(*(p[f"{block}.dyn.{name}"] for name in names), s, heads)
        else:
            inner = attention({**options, "kind": kind[4:]}, p, block, s, heads, size)
        field = local_field(p[f"{block}.lrf.weight"], options["lrf"], s["v"], size)
        return inner * 2 ** (4 if kind == "lrf-ssa" else 0) + field * 2 ** options["tap_shift"]
    if kind == "stdp":
        return stdp(s["q"], s["k"], s["v"], p["stdp.lut"], heads)
    if kind == "sssa":
        return saccadic(p[f"{block}.sssa.weight"], p[f"{block}.sssa.threshold"], s, heads)
    if kind == "none":
        return s["v"]
    for h in range(heads):
        for c in range(h * width, (h + 1) * width):
            own = range(h * width, (h + 1) * width)
            if kind == "uniform":
                y[:, :, c] = 128 * s["v"][:, :, c].sum(axis=1, keepdims=True)
            elif kind in ("ssa", "a2os2a"):
                for i in range(tokens):
                    for e in own:
                        y[:, i, c] += s["q"][:, i, e] * (s["k"][:, :, e] * s["v"][:, :, c]).sum(axis=1)
            else:
                for i in range(tokens):
                    if kind == "qkta":
                        counts = s["q"][:, i, own].sum(axis=1)
                    elif kind == "qkca":
                        counts = s["q"][:, :, c].sum(axis=1)
                    else:
                        assert kind == "sdsa"
                        counts = (s["k"][:, :, c] * s["v"][:, :, c]).sum(axis=1)
                    lif, theta = {"kind": "lif"}, options["gate_threshold"]  # gates are LIF neurons
                    opened = neurons(counts.reshape(-1, 1, 1), theta, lif)[:, 0, 0]
                    y[:, i, c] = s["q" if kind == "sdsa" else "k"][:, i, c] * opened
    return y


def dynamics(leak, gain, sign, shift, s: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """Y of the dendrites of lrf-dyn for spikes (T, N, D)."""
    steps, tokens, d = s["v"].shape
    y = np.zeros(s["v"].shape, np.int64)
    for t in range(steps):
        for c in range(d):
            h = c * heads // d
            x = [0] * 10
            for n in range(tokens):
                old, token = list(x), int(s["k"][t, n, c] * s["v"][t, n, c])
                for m in range(1, 9):
                    e = int(leak[h, m - 1])
                    x[m] = old[m] - (old[m] >> e) + (old[m - 1] >> (e + 2)) + (old[m + 1] >> (e + 2))
                    x[m] += int(gain[h, m - 1]) * token
                soma = sum(int(sign[h, m - 1]) * (x[m] >> int(shift[h, m - 1])) for m in range(1, 9))
                y[t, n, c] = int(s["q"][t, n, c]) * (soma >> 6)
    return y


def saccadic(weight: np.ndarray, theta: np.ndarray, s: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """Y of sssa for spikes (T, N, D)."""
    steps, tokens, d = s["v"].shape
    width = d // heads
    y = np.zeros(s["v"].shape, np.int64)
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        powers = []
        for t in range(steps):
            total = int(s["k"][t, :, own].sum())
            powers.append(2 ** (total.bit_length() - 1) if total else 0)
        for i in range(tokens):
            p = [int(s["q"][t, i, own].sum()) * powers[t] for t in range(steps)]
            for t in range(steps):
                if sum(int(weight[h, t, e]) * p[e] for e in range(t + 1)) >= theta[h, t]:
                    y[t, i, own] = s["v"][t, i, own]
    return y


def local_field(weight: np.ndarray, dilations: list[int], v: np.ndarray, size: tuple) -> np.ndarray:
    """Field of V (T, N, D), before its shift."""
    height, width = size
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    taps = [(0, 0)] + [(d * dy, d * dx) for d in dilations for dy, dx in steps]
    field = np.zeros(v.shape, np.int64)
    for n in range(height * width):
        for tap, (dy, dx) in enumerate(taps):
            y, x = n // width + dy, n % width + dx
            if 0 <= y < height and 0 <= x < width:
                field[:, n] += weight[:, tap] * v[:, y * width + x]
    return field


def stdp(q: np.ndarray, k: np.ndarray, v: np.ndarray, lut: np.ndarray, heads: int) -> np.ndarray:
    """Y of STDP for spikes (T, N, D)."""
    steps, tokens, d = q.shape
    width = d // heads
    y = np.zeros(q.shape, np.int64)
    for t in range(steps):
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            for i in range(tokens):
                for j in range(tokens):
                    difference = int(k[t, j, own].sum()) - int(q[t, i, own].sum())
                    y[t, i, own] += int(lut[difference + width]) * v[t, j, own]
    return y


def project(spikes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sums (T, N, Co) of spikes (T, N, Ci)."""
    steps, tokens, _ = spikes.shape
    result = np.zeros((steps, tokens, weight.shape[0]), np.int64)
    for t in range(steps):
        for n in range(tokens):
            for i in np.flatnonzero(spikes[t, n]):
                result[t, n] += weight[:, i]
    return result


def raster(maps: list[np.ndarray]) -> np.ndarray:
    """Maps (C, H, W) of all steps as (T, N, C)."""
    return np.stack([m.reshape(m.shape[0], -1).T for m in maps])


def run(manifest: dict, p: dict[str, np.ndarray], image: np.ndarray) -> dict[str, np.ndarray]:
    """All traces of one image (H, W, C), without the batch axis."""
    config, trace = manifest["config"], {}
    steps, stem = config["timesteps"], len(config["sps_channels"])
    rules = laws(config, p)

    def behind(place: str, x: np.ndarray, threshold: str) -> np.ndarray:
        return neurons(x, fires_at(rules[place], manifest[threshold]), rules[place])

    maps = [(image.astype(np.int64) - config["pixel_zero_point"]).transpose(2, 0, 1)] * steps
    for i in range(stem):
        layer = f"sps.{i}"
        if config["sps_pool"][i]:
            maps = [pool(m) for m in maps]
            trace[f"{layer}.pooled"] = raster(maps)
        sums = [convolve(m, p[f"{layer}.weight"]) for m in maps]
        size = sums[0].shape[1:]
        x = raster(sums)
        if i < stem - 1:
            spikes = neurons(x + p[f"{layer}.bias"], p[f"{layer}.threshold"], rules[f"{layer}.spikes"])
            trace[f"{layer}.spikes"] = spikes
            maps = [s.T.reshape(-1, *size) for s in spikes]
    u = x * 2 ** p[f"{layer}.shift"] + p[f"{layer}.bias"]
    trace["sps.u"] = u
    for b in range(config["depth"]):
        block = f"block.{b}"

        def spiking(layer: str, spikes: np.ndarray, place: str) -> np.ndarray:
            sums = project(spikes, p[f"{layer}.weight"])
            return neurons(sums + p[f"{layer}.bias"], p[f"{layer}.threshold"], rules[place])

        def written(layer: str, spikes: np.ndarray) -> np.ndarray:
            return project(spikes, p[f"{layer}.weight"]) * 2 ** p[f"{layer}.shift"] + p[f"{layer}.bias"]

        trace[f"{block}.x"] = x = behind(f"{block}.x", u, "residual_threshold")
        spikes = {}
        for part in PROJECTIONS[config["attention"]["kind"]]:
            trace[f"{block}.{part}"] = spikes[part] = spiking(f"{block}.{part}", x, f"{block}.{part}")
        y = attention(config["attention"], p, block, spikes, config["heads"], size)
        trace[f"{block}.y"] = y
        trace[f"{block}.attn"] = attn = behind(f"{block}.attn", y, "attention_threshold")
        trace[f"{block}.u_attn"] = u = u + written(f"{block}.proj", attn)
        trace[f"{block}.mlp_in"] = mlp_in = behind(f"{block}.mlp_in", u, "residual_threshold")
        trace[f"{block}.hidden"] = hidden = spiking(f"{block}.fc1", mlp_in, f"{block}.hidden")
        trace[f"{block}.u"] = u = u + written(f"{block}.fc2", hidden)
    total = [sum(int(value) for value in u[:, :, c].ravel()) for c in range(u.shape[2])]
    weight, bias = p["head.weight"], p["head.bias"]
    logits = [
        sum(int(w) * s for w, s in zip(row, total, strict=True)) + int(b)
        for row, b in zip(weight, bias, strict=True)
    ]
    trace["head.sum"], trace["head.logits"] = np.array(total), np.array(logits)
    trace["head.class"] = np.array(logits.index(max(logits)))
    return trace
