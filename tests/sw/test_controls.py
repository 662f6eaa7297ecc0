"""Cases, data and runs of the attention comparison."""

import numpy as np
import pytest
import torch

import s2tdpt.sw.controls as controls
from s2tdpt.golden.attention import MECHANISMS
from s2tdpt.golden.attention.ssa import Ssa
from s2tdpt.golden.config import load_config
from s2tdpt.golden.errors import UserError
from s2tdpt.sw.ablation import ABLATIONS, ConstantAttention, attention_modules
from s2tdpt.sw.attention.controls import RandomAttention
from s2tdpt.sw.controls import (
    check_fit,
    parse_case,
    parse_field,
    run_case,
    shrink,
    split_fields,
    summarise,
    weak_stem,
)
from s2tdpt.sw.names import NAMED_CASES, STDP_GRADIENTS
from s2tdpt.sw.settings import TrainSettings
from tests.sw.helpers import separable, small

CONFIG = small(depth=1, v_threshold=0.25)  # low enough for untrained neurons to fire
DATA = separable(CONFIG)
SETTINGS = TrainSettings(float_epochs=2, batch_size=12, augment=False, threads=1)


def test_named_cases_cover_every_attention_and_apply():
    assert {*STDP_GRADIENTS, *MECHANISMS} - {"stdp"} < set(NAMED_CASES)
    for name in NAMED_CASES:
        case = parse_case(name)
        config, settings = case.apply(CONFIG, SETTINGS)
        assert config.attention.kind == (name if name in MECHANISMS else "stdp")
        assert config.model_copy(update={"attention": CONFIG.attention}) == CONFIG
        assert settings.gradient == (
            name if name in STDP_GRADIENTS else "detached" if case.control else "window"
        )
        assert (settings.count_weight > 0) == (name == "window+counts")


def test_case_changes_network_and_training():
    label = "detached:attention.kappa=0.5,heads=4,count_weight=1,lr=0.1,augment=true"
    case = parse_case(label)
    config, settings = case.apply(CONFIG, SETTINGS)
    assert (config.attention.kappa, config.heads) == (0.5, 4)
    found = (settings.gradient, settings.count_weight, settings.lr, settings.augment)
    assert found == ("detached", 1.0, 0.1, True)
    parse_case("ssa:attention.scale_log2=7")  # leaves the named case as it is
    assert NAMED_CASES["ssa"]["attention"] == {"kind": "ssa"}
    assert case.label == label
    assert config.differences(CONFIG) == ["heads: 4, 2", "attention.kappa: 0.5, 0.125"]
    other, _ = parse_case("ssa:attention.scale_log2=2").apply(CONFIG, SETTINGS)
    assert other.attention == Ssa(scale_log2=2)
    assert other.differences(CONFIG) == ["attention.kind: ssa, stdp", "attention.scale_log2: 2, 0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("windw", "unknown case 'windw'; expected one of autodiff, window"),
        ("window:kapa=1", "unknown setting 'kapa=1'; expected FIELD=VALUE"),
        ("window:attention.kappa", "unknown setting 'attention.kappa'; expected FIELD=VALUE"),
        ("window:num_classes=3", "unknown setting 'num_classes=3'"),
        ("window:seed=3", "unknown setting 'seed=3'"),
        ("window:lr=fast", "setting lr is 'fast'; expected float"),
        ("window:augment=1", "setting augment is 1; expected bool"),
        ("window:batch_size=true", "setting batch_size is True; expected int"),
        ("window:lr=-1", "training setting lr is -1.0; expected a positive number"),
        ("window:attention.kappa=-1", "case window:attention.kappa=-1: field 'attention.kappa' is -1"),
        ("window:kappa=1", "unknown setting 'kappa=1'"),
        (
            "ssa:attention.kappa=1",
            "case ssa:attention.kappa=1: unknown field 'attention.kappa'; expected only kind",
        ),
        ("window:heads=3", "case window:heads=3: heads 3 does not divide"),
    ],
)
def test_bad_cases_are_refused(text, message):
    with pytest.raises(UserError) as error:
        parse_case(text).apply(CONFIG, SETTINGS)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_fields_are_json_or_words():
    assert parse_field("sps_channels=[64]") == ("sps_channels", [64])
    assert parse_field("gradient=window") == ("gradient", "window")
    assert split_fields({"lr": 1, "heads": 2}) == ({"lr": 1.0}, {"heads": 2})


@pytest.mark.parametrize("times", [0, 1, 2])
def test_shrink_is_the_rounded_mean_each_time(times):
    config = small(image_height=8, image_width=4)
    data = separable(config)
    data.test_images[0, :2, :2, 0] = [[0, 1], [1, 0]]  # a half: 2/4 is rounded up
    small_data = shrink(data, times)
    expected = data.test_images
    for _ in range(times):
        m, h, w, c = expected.shape
        coarse = np.zeros((m, h // 2, w // 2, c), np.uint8)
        for y in range(h // 2):
            for x in range(w // 2):
                total = expected[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(int).sum((1, 2))
                coarse[:, y, x] = (total + 2) // 4
        expected = coarse
    assert np.array_equal(small_data.test_images, expected)
    assert small_data.train_images.shape[1:] == expected.shape[1:]
    assert small_data.train_images.dtype == small_data.test_images.dtype == np.uint8
    assert np.array_equal(small_data.test_labels, data.test_labels)
    assert times == 0 or small_data.test_images[0, 0, 0, 0] == 1 or times == 2
    assert small_data.source.endswith(f"halved to {8 >> times}x{4 >> times}") == (times > 0)


def test_shrink_refuses_odd_sides():
    with pytest.raises(UserError, match="images of 6x5 pixels cannot be halved 1 times"):
        shrink(DATA, 1)


def test_weak_stem_is_one_convolution_with_the_same_blocks():
    base = load_config("s2tdpt-2-384")
    config = weak_stem(base, DATA)
    assert config.layer_names()[0] == "sps.0" and config.layer_names()[1] == "block.0.q"
    assert config.tokens == 30 and config.embed_dim == 384 and config.num_classes == 3
    kept = ("depth", "heads", "timesteps", "attention", "mlp_ratio")
    assert all(getattr(config, name) == getattr(base, name) for name in kept)
    check_fit(config, DATA)
    with pytest.raises(UserError, match="has images .6, 5, 2. and 3 classes; expected .32, 32, 3. and 10"):
        check_fit(base, DATA)


class Untrained:
    """A stage that did nothing."""

    history = ()
    finished = True


@pytest.mark.parametrize("name", ["zero", "random"])
def test_controls_of_the_software_are_trained_as_such(name, monkeypatch):
    seen = []
    monkeypatch.setattr(
        controls, "train_stage", lambda network, *rest, **more: seen.append(network) or Untrained
    )
    run_case(parse_case(name), 0, CONFIG, SETTINGS, DATA)
    (module,) = attention_modules(seen[0])
    assert isinstance(module, ConstantAttention if name == "zero" else RandomAttention)
    assert module.threshold == CONFIG.attention_threshold
    assert name != "zero" or float(module.weight) == 0


def test_half_a_run_is_none(monkeypatch):
    class Stopped(Untrained):
        finished = False

    monkeypatch.setattr(controls, "train_stage", lambda *arguments, **more: Stopped)
    with pytest.raises(KeyboardInterrupt):
        run_case(parse_case("window"), 0, CONFIG, SETTINGS, DATA)


def test_run_is_repeatable_and_complete():
    case = parse_case("window:lr=0.01")
    first = run_case(case, 1, CONFIG, SETTINGS, DATA)
    again = run_case(case, 1, CONFIG, SETTINGS, DATA)
    other = run_case(case, 2, CONFIG, SETTINGS, DATA)
    seconds = first.pop("seconds"), again.pop("seconds")
    assert min(seconds) > 0 and first == again
    assert other["rates"] != first["rates"]
    assert first["case"] == "window:lr=0.01" and first["seed"] == 1
    assert first["changes"] == {"gradient": "window", "count_weight": 0.0, "lr": 0.01}
    assert first["images"] == 12 and tuple(first["ablations"]) == ABLATIONS
    assert run_case(parse_case("zero"), 1, CONFIG, SETTINGS, DATA)["ablations"] == {}


def test_training_learns_and_the_whole_test_set_counts(monkeypatch):
    settings = TrainSettings(float_epochs=12, batch_size=12, lr=0.01, augment=False, threads=1)
    run = run_case(parse_case("detached"), 0, CONFIG, settings, DATA, (), log_images=3)
    assert run["images"] == 12
    assert run["correct"] >= 10  # brightness: chance is 4
    # Planted: labels of the test set that say nothing.
    wrong = controls.replace(DATA, test_labels=(DATA.test_labels + 1) % 3)
    assert run_case(parse_case("detached"), 0, CONFIG, settings, wrong, (), log_images=3)["correct"] <= 2


def test_the_caller_s_random_state_is_left_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run_case(parse_case("random"), 5, CONFIG, SETTINGS, DATA, ())
    assert torch.equal(torch.rand(3), expected)


def test_summary():
    def run(case, seed, correct, lost, gained):
        return {
            "case": case,
            "seed": seed,
            "images": 100,
            "correct": correct,
            "ablations": {"zero": {"lost": lost, "gained": gained, "correct": 0}},
            "rates": {f"block.{b}.{p}": 0.1 * (b + seed) for b in (0, 1) for p in ("q", "k", "v", "attn")},
            "spread": {"block.0.q": 1.0, "block.0.k": 3.0},
            "ltp_share": [0.2, 0.4],
        }

    summary = summarise([run("b", 0, 90, 30, 10), run("a", 0, 50, 0, 4), run("b", 1, 94, 30, 0)])
    assert list(summary) == ["b", "a"]
    assert summary["b"]["seeds"] == [0, 1] and summary["b"]["accuracies"] == [0.9, 0.94]
    assert summary["b"]["mean"] == pytest.approx(0.92)
    assert summary["b"]["deviation"] == pytest.approx(0.04 / 2**0.5)
    assert summary["b"]["drops"] == {"zero": pytest.approx(0.25)}
    assert summary["b"]["rates"][".attn"] == pytest.approx(0.1)
    assert summary["b"]["spread"] == {".q": 1.0, ".k": 3.0}
    assert summary["b"]["ltp_share"] == pytest.approx(0.3)
    assert summary["a"]["deviation"] is None and summary["a"]["drops"] == {"zero": pytest.approx(-0.04)}
