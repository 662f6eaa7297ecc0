"""Every attention of the slot: its forms agree, its intervals hold and are attained, faults are noticed."""

import numpy as np
import pytest
import torch

from s2tdpt.golden.activity import Activity, measure
from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.attention.heads import attend
from s2tdpt.golden.attention.lrf import TAPS, LocalField, offsets
from s2tdpt.golden.attention.lrf_dyn import INPUT, LEAK, SHIFT, SIGN
from s2tdpt.golden.attention.qk import Qkca, Qkta
from s2tdpt.golden.attention.sdsa import Sdsa
from s2tdpt.golden.attention.ssa import Ssa
from s2tdpt.golden.attention.sssa import WEIGHT, power_of_two_below
from s2tdpt.golden.attention.work import Work
from s2tdpt.golden.bounds import derive_bounds
from s2tdpt.golden.complexity import macs, parameter_count, products
from s2tdpt.golden.energy import energy_report
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.layers import Kind
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.params import Params
from s2tdpt.golden.reference import ReferenceNetwork
from tests.golden.shapes import emitted, images_for, make_config, params_for

GATES = (1, 2, 4, 8)


def config_of(kind, **options):
    return make_config(
        image_height=5, image_width=4, sps_pool=[False, False], attention={"kind": kind, **options}
    )


VARIANTS = [config_of(kind) for kind in MECHANISMS]
VARIANTS += [config_of(kind, gate_threshold=t) for kind in ("sdsa", "qkta", "qkca") for t in GATES[1:]]
VARIANTS += [config_of("lrf-stdp", lrf=[1]), config_of("lrf-ssa", lrf=[1, 2, 7], tap_shift=3)]


def name_of(config):
    return "-".join(str(value) for _, value in config.attention)


def inputs(config, seed, rate):
    """Operands of the projections that exist, [T, B, N, D]; at `rate` 0 and 1 none and all fire."""
    generator = torch.Generator().manual_seed(seed)
    shape = (config.timesteps, 3, config.tokens, config.embed_dim)
    kinds = config.attention.projections
    drawn = [
        (torch.rand(shape, generator=generator) < rate).long() if kind in kinds else None
        for kind in (Kind.Q, Kind.K, Kind.V)
    ]
    return [
        part if part is None else part * emitted(config, kind, shape, generator)
        for kind, part in zip((Kind.Q, Kind.K, Kind.V), drawn, strict=True)
    ]


def block_values(config, params, dtype=torch.int64):
    return {name: torch.tensor(tensor).to(dtype) for name, tensor in params.attention(0).items()}


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_forms_agree_and_stay_in_their_intervals(config):
    params, mechanism = params_for(config, 3), config.attention
    bounds = derive_bounds(params)
    for seed, rate in enumerate((0.0, 0.1, 0.3, 0.6, 1.0)):
        parts = inputs(config, seed, rate)
        expected = attend(mechanism.y, config, block_values(config, params), *parts)
        assert expected.dtype == torch.int64
        assert int(expected.min()) in bounds.attention and int(expected.max()) in bounds.attention
        if mechanism.binary:
            assert set(expected.unique().tolist()) <= {0, 1} and mechanism.threshold == 1
        for dtype in (torch.int64, torch.float32, torch.float64):
            typed = [None if part is None else part.to(dtype) for part in parts]
            for form in (mechanism.y, mechanism.streamed):
                y = attend(form, config, block_values(config, params, dtype), *typed)
                assert y.dtype == dtype and torch.equal(y.long(), expected)


def test_operands_attain_both_ends():
    config = config_of("a2os2a")
    params = params_for(config, 1)
    q = torch.ones((config.timesteps, 1, config.tokens, config.embed_dim), dtype=torch.long)
    y, bounds = attend(config.attention.y, config, {}, q, 15 * q, -q), derive_bounds(params)
    assert int(y.min()) == bounds.attention.lo == -15 * config.tokens * config.head_dim
    assert int(attend(config.attention.y, config, {}, q, 15 * q, q).max()) == bounds.attention.hi
    state = bounds.attention_inner["state"]
    assert (state.lo, state.hi) == (-15 * config.tokens, 15 * config.tokens)


@pytest.mark.parametrize("kind", ["ssa", "uniform", "none", "qkta", "qkca", "sdsa"])
def test_the_upper_end_is_attained(kind):
    config = config_of(kind)
    params = params_for(config, 1)
    y = attend(config.attention.y, config, {}, *inputs(config, 0, 1.0))
    assert int(y.max()) == derive_bounds(params).attention.hi


def test_a_field_attains_its_interval():
    config = config_of("lrf-ssa", lrf=[1])
    params = params_for(config, 2)
    weight, values = params.attention(0)[TAPS].astype(np.int64), block_values(config, params)
    middle = 2 * 4 + 1  # a token whose taps are all inside
    seen = [middle + dy * 4 + dx for dy, dx in offsets((1,))]
    for sign, end in ((1, "hi"), (-1, "lo")):
        v = torch.zeros((config.timesteps, 1, config.tokens, config.embed_dim), dtype=torch.long)
        v[:, 0, seen] = torch.tensor((sign * weight > 0).T.astype(np.int64))
        y = attend(config.attention.y, config, values, torch.zeros_like(v), v, v)[0, 0, middle]
        assert int(y.max() if sign > 0 else y.min()) == getattr(
            config.attention.inner(config, params.attention(0))["field"], end
        )


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.4])
def test_gates_of_threshold_1_are_the_or_of_the_float_neuron(rate):
    """Ref: public code of the three, whose gates are LIF neurons of threshold 0.5 that halve their input."""

    def float_neuron(counts):  # tau 2, decay_input, v_reset 0, v_threshold 0.5
        v, spikes = torch.zeros_like(counts[0]), []
        for x in counts:
            v = v + (x - v) / 2
            spikes.append((v >= 0.5).double())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)

    config = config_of("sdsa")
    q, k, v = (part.double() for part in inputs(config, 5, rate))
    for mechanism, counts, passed, axis in (
        (Sdsa(), k * v, q, -2),
        (Qkca(), q, k, -2),
        (Qkta(), q, k, -1),
    ):
        opened = float_neuron(counts.sum(axis, keepdim=True))
        assert torch.equal(opened, counts.amax(axis, keepdim=True))  # an OR
        third = v if isinstance(mechanism, Sdsa) else None
        assert torch.equal(mechanism.y(config, {}, q, k, third), passed * opened)


@pytest.mark.parametrize("theta", GATES)
def test_gates_have_the_memory_of_a_neuron(theta):
    counts = torch.tensor([theta - 1, (theta + 1) // 2 + 1, 0, theta, 1])[:, None]
    h, expected = 0, []
    for x in counts[:, 0].tolist():
        u = h + x
        expected.append(int(u >= theta))
        h = 0 if u >= theta else u // 2
    for dtype in (torch.int64, torch.float32):
        assert Qkta(gate_threshold=theta).gate(counts.to(dtype))[:, 0].tolist() == expected


def test_both_orders_of_ssa_are_the_product():
    config = config_of("ssa")
    q, k, v = inputs(config, 4, 0.4)
    y = attend(Ssa().y, config, {}, q, k, v)
    heads = [part.unflatten(-1, (2, -1)).permute(0, 1, 3, 2, 4) for part in (q, k, v)]
    expected = torch.einsum("tbhic,tbhjc,tbhjd->tbhid", *heads)
    assert torch.equal(y, expected.permute(0, 1, 3, 2, 4).flatten(-2))


def test_a_field_of_a_centre_tap_alone_is_v():
    config = config_of("lrf-stdp", tap_shift=0)
    params = params_for(config, 1)
    values = block_values(config, params)
    values[TAPS].zero_()
    parts = inputs(config, 1, 0.3)
    plain = attend(config.attention.y, config, values, *parts)
    values[TAPS][:, 0] = 7
    assert torch.equal(attend(config.attention.y, config, values, *parts) - plain, 7 * parts[2])


@pytest.mark.parametrize("kind", [kind for kind in MECHANISMS if MECHANISMS[kind] is not None])
def test_faults_are_noticed(kind):
    """Plant: another option, other taps, q and k exchanged. The traces differ, in Y first."""
    config = config_of(kind)
    params, images = params_for(config, 5), images_for(config, 4)
    trace = ReferenceNetwork(params).trace(images)
    faulty = []
    if issubclass(MECHANISMS[kind], LocalField):
        tensors = {name: np.array(tensor) for name, tensor in params.tensors.items()}
        tensors[f"block.0.{TAPS}"][:, 1] += 1
        faulty.append(Params(config, tensors, attention_threshold=params.attention_threshold))
    if "gate_threshold" in type(config.attention).model_fields:
        changed = config_of(kind, gate_threshold=8)
        faulty.append(Params(changed, params.tensors, attention_threshold=1))
    if len(config.attention.projections) == 3 and not config.attention.binary:
        swapped = dict(params.tensors)
        for part in ("weight", "bias", "threshold"):
            swapped[f"block.0.q.{part}"], swapped[f"block.0.k.{part}"] = (
                params.tensors[f"block.0.{other}.{part}"] for other in "kq"
            )
        exchanged = Params(config, swapped, attention_threshold=params.attention_threshold)
        if kind.endswith("stdp"):
            faulty.append(exchanged)
    if kind in ("ssa", "a2os2a", "uniform", "none"):
        zeros = dict(params.tensors)
        zeros["block.0.v.threshold"] = np.full_like(zeros["block.0.v.threshold"], 2**31 - 1)
        faulty.append(Params(config, zeros, attention_threshold=params.attention_threshold))
    if kind == "sssa":
        tensors = {name: np.array(tensor) for name, tensor in params.tensors.items()}
        tensors["block.0.sssa.threshold"][:] = 2**31 - 1
        faulty.append(Params(config, tensors))
    assert faulty
    for other in faulty:
        assert not torch.equal(GoldenNetwork(other).trace(images)["block.0.y"], trace["block.0.y"])


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_costs_have_a_row_for_every_product(config):
    params = params_for(config, 1)
    golden, images = GoldenNetwork(params), images_for(config, 2)
    report = energy_report(golden, measure(golden, images))
    names = [layer.name for layer in report.layers]
    assert names[:-1] == [product.name for product in products(config)] == list(macs(config))
    rows = {row.name for row in config.attention.rows(config)}
    assert {f"block.0.{row}" for row in rows} <= set(names)
    work = config.attention.work(config, golden.bounds, config.attention.count(config, *ones(config)))
    assert set(work) == rows
    if rows:
        assert sum(w.additions + w.bit_operations for w in work.values()) > 0


def ones(config):
    shape = (1, config.timesteps, config.heads, config.tokens, config.head_dim)
    kinds = config.attention.projections
    return [np.ones(shape, np.int64) if kind in kinds else None for kind in (Kind.Q, Kind.K, Kind.V)]


def test_counts_by_loops():
    config = config_of("lrf-ssa")
    rng = np.random.default_rng(3)
    shape = (2, config.timesteps, config.heads, config.tokens, config.head_dim)
    q, k, v = (rng.random(shape) < 0.3 for _ in range(3))
    counts = config.attention.count(config, q, k, v)
    updates = increments = taps = 0
    for place in np.ndindex(shape[:4]):
        values = int(v[place].sum())
        keys = int(k[place].sum())
        updates += keys if values else 0
        increments += keys * values
        row, column = divmod(place[3], 4)
        inside = [0 <= row - dy < 5 and 0 <= column - dx < 4 for dy, dx in offsets((3, 5))]
        taps += values * sum(inside)
    assert counts == {"updates": updates, "increments": increments, "reads": int(q.sum()), "taps": taps}


def test_counts_of_gates_by_loops():
    config = config_of("sdsa")
    rng = np.random.default_rng(3)
    shape = (2, config.timesteps, config.heads, config.tokens, config.head_dim)
    q, k, v = ((rng.random(shape) < 0.3).astype(np.uint8) for _ in range(3))
    meetings = sum(int(k[place] and v[place]) for place in np.ndindex(shape))
    gates = q.size // config.tokens
    assert config.attention.count(config, q, k, v) == {"bits": q.size, "meetings": meetings, "gates": gates}


@pytest.mark.parametrize("theta, most", [(1, 20), (2, 20), (4, 11), (4, 12), (8, 1)])
def test_work_of_a_gate_by_hand(theta, most):
    """ORs of bits, or an addition a spike and two a gate, as wide as the largest membrane."""
    work = config_of("sdsa", gate_threshold=theta).attention.opened(100, 30, 7, most)
    if theta == 1:
        assert work == Work(bit_operations=100)
    else:
        assert work == Work(additions=30 + 7 + 7, bits=len(f"{most + theta:b}"))


def test_work_of_the_states_by_hand():
    """Rows as the products that they stand for; additions, widths and memories of what is computed."""
    config = config_of("ssa")
    n, d, w, t = config.tokens, config.embed_dim, config.head_dim, config.timesteps
    bounds = derive_bounds(params_for(config, 1))
    assert config.attention.rows(config) == (("qk", Kind.Q, n * n * d), ("av", Kind.V, n * n * d))
    bits, y = len(f"{n:b}"), len(f"{n * w:b}")
    found = config.attention.work(config, bounds, {"updates": 7, "increments": 11, "reads": 13})
    state = t * w * w * bits
    assert found == {
        "qk": Work(11, bits, moved=(7 + 7) * w * bits, memory=state),
        "av": Work(13 * w, y, moved=13 * w * bits, memory=state),
    }


def test_what_is_learned_counts_as_parameters():
    plain, local = config_of("stdp"), config_of("lrf-stdp")
    assert parameter_count(local) - parameter_count(plain) == 17 * local.embed_dim
    without = config_of("none")
    own = 2 * (plain.embed_dim**2 + 2 * plain.embed_dim)  # q and k, their norms
    assert parameter_count(plain) - parameter_count(without) == own


def test_powers_of_two():
    totals = torch.arange(3000)
    expected = [0] + [1 << (n.bit_length() - 1) for n in range(1, 3000)]
    for dtype in (torch.int64, torch.float32):
        assert power_of_two_below(totals.to(dtype)).tolist() == expected


def test_a_saccade_looks_at_the_steps_before_and_at_no_later_one():
    config = config_of("sssa")
    params = params_for(config, 4)
    values, parts = block_values(config, params), inputs(config, 3, 0.4)
    y = attend(config.attention.y, config, values, *parts)
    upper = values[WEIGHT].triu(1)
    other = values | {WEIGHT: values[WEIGHT] + 5 * torch.ones_like(upper).triu(1)}
    assert torch.equal(attend(config.attention.y, config, other, *parts), y)
    changed = [part.clone() for part in parts]
    changed[1][0] = 0  # no keys in the first step
    assert not torch.equal(attend(config.attention.y, config, values, *changed)[1:], y[1:])
    changed = [part.clone() for part in parts]
    changed[1][-1] = 0  # nor in the last
    assert torch.equal(attend(config.attention.y, config, values, *changed)[:-1], y[:-1])


def test_dendrites_attain_their_interval_and_stay_in_16_bits():
    config = make_config(
        image_height=8, image_width=8, sps_pool=[False, False], attention={"kind": "lrf-dyn"}, heads=1
    )
    values = {name: tensor[:1] for name, tensor in params_for(config, 0).attention(0).items()}
    values |= {LEAK: np.full((1, 8), 4), INPUT: np.full((1, 8), 1024)}  # the slowest and the strongest
    values |= {SIGN: np.array([[0, 0, 0, 1, 0, 0, 0, 0]]), SHIFT: np.zeros((1, 8), int)}
    largest = config.attention.inner(config, values)["dendrite"].hi
    assert largest < 2**5 * 1025 and largest.bit_length() <= 16
    v = torch.ones((1, 1, 1, 64, 12), dtype=torch.long)
    tensors = {name: torch.tensor(value).long() for name, value in values.items()}
    y = super(LocalField, config.attention).y(config, tensors, v, v, v)
    assert int(y.max()) == largest >> 6  # dendrite 4 of a chain of equal ones is the largest
    for sign in (1, -1):
        values[SIGN] = sign * abs(values[SIGN])
        tensors = {name: torch.tensor(value).long() for name, value in values.items()}
        y = super(LocalField, config.attention).y(config, tensors, v, v, v)
        interval = super(LocalField, config.attention).interval(config, values)
        assert (int(y.max()) if sign > 0 else int(y.min())) == (interval.hi if sign > 0 else interval.lo)
        assert interval.lo == 0 or sign < 0


def test_a_dendrite_forgets_and_passes_on():
    """Plant: without the coupling, or with another leak, Y is another."""
    config = config_of("lrf-dyn")
    params, parts = params_for(config, 6), inputs(config, 2, 0.4)
    values = block_values(config, params)
    y = attend(config.attention.y, config, values, *parts)
    for name, changed in ((LEAK, 5 - values[LEAK]), (INPUT, values[INPUT] // 2), (SIGN, -values[SIGN])):
        assert not torch.equal(attend(config.attention.y, config, values | {name: changed}, *parts), y)
    early = [part.clone() for part in parts]
    early[2][:, :, -1] = 1 - early[2][:, :, -1]  # the last token, which no earlier one sees
    other = attend(config.attention.y, config, values | {TAPS: values[TAPS] * 0}, *early)
    plain = attend(config.attention.y, config, values | {TAPS: values[TAPS] * 0}, *parts)
    assert torch.equal(other[:, :, :-1], plain[:, :, :-1])


def test_dilations_are_checked():
    for wrong, words in (([5, 3], "expected rising dilations"), ([0], "'attention.lrf.0' is 0"), ([], "lrf")):
        with pytest.raises(UserError, match=words):
            config_of("lrf-ssa", lrf=wrong)
    with pytest.raises(UserError, match="'attention.gate_threshold' is 3; expected 1, 2, 4 or 8"):
        config_of("sdsa", gate_threshold=3)


def test_activity_of_a_network_without_queries():
    config = config_of("uniform")
    golden, images = GoldenNetwork(params_for(config, 2)), images_for(config, 2)
    activity = measure(golden, images)
    assert isinstance(activity, Activity)
    assert activity.attention[0] == {"additions": int(golden.trace(images)["block.0.v"].sum())}
