"""Every neuron model: forms against each other, floors, intervals, the parameter file, faults."""

import dataclasses
import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch

from s2tdpt.golden.bounds import Interval, carried_interval, neuron_interval, neuron_membrane
from s2tdpt.golden.compare import first_difference
from s2tdpt.golden.config import config_from_dict, load_config, with_neuron
from s2tdpt.golden.errors import UserError
from s2tdpt.golden.network import GoldenNetwork
from s2tdpt.golden.neuron import LIF, NEURONS, Lif, learned_places, places, prescribed
from s2tdpt.golden.neuron.base import LEAKS, leaked
from s2tdpt.golden.neuron.glif import GlifLaw
from s2tdpt.golden.neuron.graded import LevelsLaw, TernaryLaw
from s2tdpt.golden.neuron.klif import KlifLaw
from s2tdpt.golden.neuron.plif import PlifLaw
from s2tdpt.golden.operand import BINARY
from s2tdpt.golden.parameter_file import LIF_VERSION, METADATA_KEY, VERSION, digest, version_of
from s2tdpt.golden.params import Params, random_params
from s2tdpt.golden.reference import ReferenceNetwork, neurons
from s2tdpt.golden.shipped import load
from s2tdpt.golden.strictjson import canonical
from tests.golden import loops
from tests.golden.shapes import SHAPES, images_for, make_config, params_for
from tests.golden.test_second_implementation import check

LAWS = [
    LIF,
    *(PlifLaw(leak) for leak in LEAKS),
    KlifLaw(16),
    GlifLaw(4, None, 0, (0, 0, 0, 0)),
    GlifLaw(8, 1, 0, (0, 0, 0, 0)),
    GlifLaw(8, 2, 1, (1, 0, 1, 0)),
    GlifLaw(7, None, 2, (0, 2, 0, 1)),
    GlifLaw(6, None, 1, (0, 0, 0, 0)),
    TernaryLaw(),
    LevelsLaw(),
]
KINDS = sorted(set(NEURONS) - {"lif"})


def words_of(law):
    """A law as `loops` reads it from a file."""
    kind = type(law).__name__.removesuffix("Law").lower()
    return {"kind": kind} | {
        key: 0 if value is None else value for key, value in dataclasses.asdict(law).items()
    }


def objects(*values):
    return np.array(values, dtype=object)


@pytest.mark.parametrize("leak", [*LEAKS, 8])
def test_a_leak_is_the_floor_in_every_type(leak):
    values = [*range(-70, 71), 2**23 - 1, -(2**23) + 3]
    expected = [value * leak // 8 for value in values]
    assert [leaked(value, leak) for value in values] == expected
    assert leaked(objects(*values), leak).tolist() == expected
    for dtype in (torch.int32, torch.int64, torch.float32, torch.float64):
        assert leaked(torch.tensor(values).to(dtype), leak).tolist() == expected


@pytest.mark.parametrize("leak", [1, 3, 5, 9])
def test_other_leaks_are_refused(leak):
    with pytest.raises(ValueError, match=f"a leak of {leak}/8 is none of"):
        leaked(4, leak)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_forms_agree_with_loops_on_every_small_sequence(law):
    """The fast form, the plain one, every number type, and the words of the documentation."""
    sequences = list(itertools.product((-5, -2, 0, 1, 3, 6), repeat=4))
    x = torch.tensor(sequences)  # sequences as positions
    for threshold in (1, 2, 5, 7):
        expected = loops.neurons(x.T[:, :, None].numpy(), threshold, words_of(law))[:, :, 0]
        plain = neurons(x.T[None, :, :, None], threshold, law)[0, :, :, 0]
        assert np.array_equal(plain.numpy(), expected)
        for dtype in (torch.int32, torch.int64, torch.float32, torch.float64):
            current = x.T.contiguous().to(dtype)
            assert np.array_equal(law.spikes(current, threshold).numpy(), expected)
            theta = torch.tensor(threshold).to(dtype)
            out = torch.zeros((4, len(sequences) + 2), dtype=torch.int8)
            law.spikes(current, theta, out[:, 1:-1])
            assert np.array_equal(out[:, 1:-1].numpy(), expected) and not out[:, [0, -1]].any()
            assert torch.equal(current, x.T.to(dtype))


@pytest.mark.parametrize("leak", LEAKS)
def test_leaks_up_to_a_half_are_exact_and_others_floor(leak):
    """Against the real-valued leak; where the floor counts, the two must differ, or nothing was tested."""
    law, differ = PlifLaw(leak), 0
    for sequence in itertools.product(range(-4, 6), repeat=4):
        h, spikes = Fraction(0), []
        for x in sequence:
            u = h + x
            spikes.append(int(u >= 3))
            h = Fraction(0) if spikes[-1] else u * leak / 8
        differ += law.spikes(torch.tensor(sequence), 3).tolist() != spikes
    assert (differ == 0) == law.scale_free == (leak <= 4)


def test_spikes_of_two_signs_are_those_of_the_real_leak():
    """A tie fires above and not below: no floor changes a spike. Plant: where it fires below, some do."""
    differ = 0
    for sequence in itertools.product(range(-6, 7), repeat=4):
        h, spikes, floored, other = Fraction(0), [], 0, []
        for x in sequence:
            u, v = h + x, floored + x
            spikes.append(int(u >= 3) - int(u < -3))
            h = Fraction(0) if spikes[-1] else u / 2
            other.append(int(v >= 3) - int(v <= -3))
            floored = 0 if other[-1] else v // 2
        assert TernaryLaw().spikes(torch.tensor(sequence), 3).tolist() == spikes
        differ += tied(sequence, 3) != other
    assert differ > 0


def tied(sequence, threshold):
    """Spikes of two signs with the real leak, a tie fires on both sides."""
    h, spikes = Fraction(0), []
    for x in sequence:
        u = h + x
        spikes.append(int(u >= threshold) - int(u <= -threshold))
        h = Fraction(0) if spikes[-1] else u / 2
    return spikes


@pytest.mark.parametrize("law", [law for law in LAWS if law.scale_free], ids=repr)
def test_grids_are_alike_where_the_law_says_so(law):
    x = torch.tensor(list(itertools.product(range(-4, 6), repeat=4))).T
    assert torch.equal(law.spikes(x << 3, 3 << 3), law.spikes(x, 3))


def test_grids_are_not_alike_elsewhere():
    """Plant: each law that denies it has a sequence that shows it."""
    x = torch.tensor(list(itertools.product(range(-4, 6), repeat=4))).T
    for law in LAWS:
        alike = all(torch.equal(law.spikes(x << 3, theta << 3), law.spikes(x, theta)) for theta in (2, 3, 7))
        assert alike or not law.scale_free, law
    assert sum(not law.scale_free for law in LAWS) >= 5


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_intervals_hold_and_are_attained(law):
    for lo, hi in ((-3, 4), (0, 5), (-5, -1), (2, 6)):
        for threshold in (1, 2, 5):
            seen, states, kept = set(), {0}, {0}
            for t in range(4):
                u = {h + law.drive(x, t) for h in states for x in range(lo, hi + 1)}
                seen |= u
                fired, stayed = ({v for v in u if bool(law.fires(v, threshold)) == s} for s in (True, False))
                states = {law.reset(v, threshold) for v in fired} | {law.keep(v, threshold) for v in stayed}
                kept |= states if t < 3 else set()
            low, high = neuron_membrane((objects(lo), objects(hi)), threshold, 4, law)
            assert (low[0], high[0]) == (min(seen), max(seen)), (lo, hi, threshold)
            for largest in (threshold, threshold + 3):
                wide = neuron_interval(Interval(lo, hi), largest, 4, law)
                assert wide.lo <= low[0] and high[0] <= wide.hi
                state = carried_interval(wide, largest, law)
                assert state.lo <= min(kept) and max(kept) <= state.hi


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_additions_and_slopes_by_hand(law):
    """Input to membrane, membrane to threshold; a leak of 6 or 7 eighths and what is taken cost one each.

    A sign takes a second threshold; levels are four bits of a quotient, a subtraction each, and no membrane.
    """
    if isinstance(law, LevelsLaw):
        additions = ["eights", "fours", "twos", "ones"]
    elif isinstance(law, TernaryLaw):
        additions = ["input", "upper threshold", "lower threshold"]
    else:
        taken = getattr(law, "linear", None) is not None or getattr(law, "soft", 0) > 0
        additions = ["input", "threshold", *["leak"] * (law.leak in (6, 7)), *["taken"] * taken]
    assert law.additions == len(additions)
    for step in range(2):
        shift = law.conduct[step] if law.conduct else 0
        assert law.drive_slope(step) == 1 / (1 << shift)


def test_ends_of_a_gain():
    """The lowest and the highest one of a file are those of the page, and both are a law's."""
    config = make_config(neuron={"kind": "klif"})
    layout = config.neuron.fields(config)["gain"]
    assert (layout.lo, layout.hi) == (1, 255)
    for gain in (1, 255):
        assert config.neuron.law({"gain": np.uint8(gain)}).factor == (16, gain)


def test_thresholds_of_places():
    assert [PlifLaw(leak).threshold(2048) for leak in LEAKS] == [1024, 1366, 2048, 4096, 8192]
    assert [KlifLaw(gain).threshold(100) for gain in (16, 32, 24, 5)] == [100, 50, 67, 320]
    assert PlifLaw(7).threshold(1) == 4 and not PlifLaw(7).passes_spikes(4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["odd-pooled", "eight-steps", "single-stem", "one-step"])
def test_every_trace_of_every_neuron(kind, shape, tmp_path):
    config = SHAPES[shape].model_copy(update={"neuron": NEURONS[kind]()})
    params = params_for(config, len(kind) + len(shape))
    assert len(set(params.laws.values())) > 2
    trace = check(config, params, tmp_path, count=1)
    assert sum(trace[place].any() for place in places(config)) >= 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["none", "sdsa", "lrf-ssa"])
def test_neurons_beside_other_attentions(kind, attention, tmp_path):
    """Behind an attention of spikes there is nothing to learn; its gates are LIF neurons always."""
    config = make_config(neuron={"kind": kind}, attention={"kind": attention})
    params = params_for(config, 3)
    assert ("block.0.attn" in learned_places(config)) == (attention == "lrf-ssa")
    trace = check(config, params, tmp_path, count=1)
    if attention != "lrf-ssa":
        assert np.array_equal(trace["block.0.attn"], trace["block.0.y"])


@pytest.mark.parametrize("kind", ["lif", *KINDS])
def test_neurons_that_an_attention_prescribes(kind, tmp_path):
    """Those of k and v of a2os2a are theirs whatever the others are, and have nothing in the file."""
    config = make_config(neuron={"kind": kind}, attention={"kind": "a2os2a"}, depth=2)
    params = params_for(config, 3)
    own = {f"block.{b}.{part}" for b in range(2) for part in "kv"}
    assert set(prescribed(config)) == own and own.isdisjoint(learned_places(config))
    assert {place for place, law in params.laws.items() if law.emits != BINARY} == own
    assert list(params.laws) == list(places(config))
    assert all(
        len(t) == len(places(config)) - 4 for n, t in params.tensors.items() if n.startswith("neuron.")
    )
    trace = check(config, params, tmp_path, count=1)
    assert trace["block.0.k"].max() > 1 and trace["block.0.v"].min() == -1


@pytest.mark.parametrize("kind", KINDS)
def test_another_law_is_seen_where_it_holds(kind):
    """Plant: the law of one place exchanged; the first difference is there."""
    config = make_config(neuron={"kind": kind}, timesteps=4)
    params, images = params_for(config, 2), images_for(config, 8)
    expected = GoldenNetwork(params).trace(images)
    place = "block.0.mlp_in"
    for seed in range(20):
        laws = params.laws | {place: config.neuron.random_law(config, np.random.default_rng(seed))}
        if laws[place] != params.laws[place]:
            break
    tensors = params.tensors | config.neuron.tensors(config, laws)
    changed = dataclasses.replace(params, tensors=tensors)
    assert changed.laws[place] == laws[place]
    assert first_difference(expected, GoldenNetwork(changed).trace(images)).name == place
    assert first_difference(expected, ReferenceNetwork(changed).trace(images)).name == place


def test_places_are_those_of_the_documentation():
    for config in SHAPES.values():
        assert list(places(config)) == loops.places(config.model_dump())


def test_lif_files_are_what_they_were():
    """No `neuron`, version 2, the checksum of the file that was committed before there were others."""
    for name in ("digits", "digits-int4"):
        params = load(name)
        assert params.config.neuron == Lif()
        body = {**params.manifest()}
        assert body.pop("sha256") == digest(body, params.tensors)
        assert body["version"] == LIF_VERSION and "neuron" not in body["config"]
        again = dataclasses.replace(params)
        assert again.manifest()["config"] == body["config"] and again.checksum() == params.checksum()


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "p.safetensors"
    random_params(make_config(neuron={"kind": "plif"}), 1).save(found)
    return found


def rewrite(path, change=lambda body: body, **tensors):
    with safetensors.safe_open(path, "numpy") as file:
        manifest = json.loads(file.metadata()[METADATA_KEY])
    found = {**safetensors.numpy.load(path.read_bytes()), **tensors}
    body = change({key: value for key, value in manifest.items() if key != "sha256"})
    text = canonical({**body, "sha256": digest(body, found)})
    path.write_bytes(safetensors.numpy.save(found, metadata={METADATA_KEY: text}))


def refused(path):
    with pytest.raises(UserError) as error:
        Params.load(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))
    return str(error.value)


def test_the_file_names_other_neurons(path):
    params = Params.load(path)
    assert params.manifest()["version"] == VERSION == version_of(params.config)
    assert params.manifest()["config"]["neuron"] == {"kind": "plif", "leak": 4}
    assert Params.load(path, params.config).laws == params.laws
    with pytest.raises(UserError, match=r"another configuration \(tiny; neuron.kind: klif, plif\)"):
        Params.load(path, make_config(neuron={"kind": "klif"}))
    with pytest.raises(UserError, match=r"neuron.leak: 6, 4"):
        Params.load(path, make_config(neuron={"kind": "plif", "leak": 6}))


def configured(**neuron):
    return lambda body: {**body, "config": {**body["config"], "neuron": neuron}}


def test_files_that_do_not_fit(path):
    before = path.read_bytes()
    for change, words in (
        (configured(kind="plif"), "lacks neuron.leak"),
        (configured(kind="other"), "neuron.kind is 'other'; expected one of lif, plif, klif, glif"),
        (configured(kind="lif"), "version 3 with the neuron lif; expected version 2"),
        (configured(kind="klif"), "tensor"),
        (lambda b: {**b, "version": 2}, "version 2 names a neuron; expected one only from version 3 on"),
        (lambda b: {**b, "config": {k: v for k, v in b["config"].items() if k != "neuron"}}, "lacks neuron"),
    ):
        rewrite(path, change)
        assert words in refused(path)
        path.write_bytes(before)
    count = len(Params.load(path).laws)
    leaks = np.full(count, 4, np.uint8)
    leaks[2] = 5
    rewrite(path, **{"neuron.leak": leaks})
    message = refused(path)
    assert "neurons of block.0.q: leak is 5 eighths; expected one of 0, 2, 4, 6, 7" in message
    path.write_bytes(before)
    rewrite(path, **{"neuron.leak": leaks[1:]})
    assert f"tensor 'neuron.leak' is uint8[{count - 1}]; expected uint8[{count}]" in refused(path)


def test_a_linear_leak_beside_an_exponential_one_is_refused():
    config = make_config(neuron={"kind": "glif"})
    params = random_params(config, 1)
    tensors = {name: np.array(tensor) for name, tensor in params.tensors.items()}
    tensors["neuron.leak"][0], tensors["neuron.linear"][0] = 4, 3
    with pytest.raises(
        UserError, match="neurons of sps.0.spikes: linear leak is 3 beside a leak of 4 eighths"
    ):
        Params(config, tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_laws_come_back_from_their_tensors(kind):
    config = make_config(neuron={"kind": kind})
    rng = np.random.default_rng(0)
    laws = {place: config.neuron.random_law(config, rng) for place in places(config)}
    assert config.neuron.laws(config, config.neuron.tensors(config, laws)) == laws
    neutral, x = config.neuron.neutral(config), torch.randint(0, 9, (4, 50))
    assert torch.equal(neutral.spikes(x, 7), LIF.spikes(x, 7)) and neutral.threshold(7) == 7


def test_a_neuron_is_named_or_given_as_json():
    config = with_neuron(load_config("digits"), "plif")
    assert config.name == "digits-plif" and config.neuron.leak == 4
    assert with_neuron(load_config("digits"), '{"kind": "plif", "leak": 7}').neuron.leak == 7
    assert config_from_dict(json.loads(config.model_dump_json())) == config
    for text, words in (
        ("other", "neuron.kind is 'other'; expected one of lif, plif, klif, glif; choose one"),
        ('{"kind": "klif", "leak": 4}', "unknown field 'neuron.leak'; expected only kind of this neuron"),
        ('{"kind": "plif", "leak": 3}', "field 'neuron.leak' is 3; expected 0, 2, 4, 6 or 7"),
        ('{"leak": 4}', "neuron.kind is missing"),
        ("{", "is no JSON"),
    ):
        with pytest.raises(UserError) as error:
            with_neuron(load_config("digits"), text)
        assert words in str(error.value) and "\n" not in str(error.value)
