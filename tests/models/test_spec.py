import dataclasses

import numpy as np
import pytest

from earthsr.config import from_mapping, load_yaml_config
from earthsr.errors import CheckpointError, ConfigError
from earthsr.models import (
    CrossEntropyLoss,
    DemSRNetSpec,
    HuberLoss,
    L1Loss,
    MSELoss,
    Objective,
    initial_weights,
    spec_from_dict,
)
from earthsr.tasks import task_for
from tests.conftest import CONFIGS


def test_the_paper_has_88_convolutions_43_additions_and_one_interpolation():
    spec = task_for(load_yaml_config(CONFIGS / "dem_srnet.yaml")).spec()
    assert spec == DemSRNetSpec()
    assert len(spec.convolutions) == 88
    assert spec.additions == 43
    assert spec.interpolations == 1
    assert spec.receptive_radius == 88


def test_parameter_counts_of_paper_and_tutorial():
    assert DemSRNetSpec().parameter_count == 50_729_472
    # The paper's figure fits where in + out channels are 4.
    assert DemSRNetSpec(in_channels=3, out_channels=1).parameter_count == 50_734_080
    assert DemSRNetSpec(in_channels=2, out_channels=2).parameter_count == 50_734_080


def test_mindearths_configuration_is_its_variant():
    spec = task_for(load_yaml_config(CONFIGS / "dem_srnet_mindearth.yaml")).spec()
    expected = DemSRNetSpec(global_skip="input", resize="asymmetric", residual_scale=0.1)
    assert spec == expected
    assert spec.parameter_count == 50_729_472


def test_edsr_is_a_variant():
    spec = task_for(load_yaml_config(CONFIGS / "dem_srnet_edsr.yaml")).spec()
    assert (spec.num_blocks, spec.upsampler, spec.bias, spec.global_skip) == (32, "pixel_shuffle", True, "features")
    assert spec.interpolations == 0
    assert {p.name for p in spec.parameters} >= {"up.bias", "blocks.31.conv2.bias"}
    assert next(p.shape for p in spec.parameters if p.name == "up.weight") == (256 * 25, 256, 3, 3)


def test_flops_are_counted_from_the_convolutions():
    spec = DemSRNetSpec(features=2, num_blocks=1, scale=3)
    hidden = 2 * 9 * 2 * 2  # two operations, nine taps, two by two channels
    cells = 4 * 5
    expected = cells * (2 * 9 * 1 * 2 + 4 * hidden + 2 * 9 * 2 * 1 * 9)
    assert spec.flops(4, 5) == expected


def test_a_spec_survives_json():
    spec = DemSRNetSpec(features=8, bias=True, residual_over="conservative")
    assert spec_from_dict(spec.to_dict()) == spec


def test_an_option_that_is_off_leaves_descriptions_as_they_were():
    """Checkpoints and parity records of before compare equal with those of today."""
    old = {
        "kind": "demsrnet",
        "scale": 5,
        "in_channels": 1,
        "out_channels": 1,
        "features": 256,
        "num_blocks": 42,
        "kernel_size": 3,
        "residual_scale": 1.0,
        "global_skip": "features",
        "resize": "half_pixel",
        "upsampler": "interpolate",
        "bias": False,
        "residual_over": "none",
    }
    assert DemSRNetSpec().to_dict() == old
    assert spec_from_dict(old) == DemSRNetSpec()
    assert MSELoss().to_dict() == {"name": "mse", "delta": 1.0}
    assert set(CrossEntropyLoss().to_dict()) == {"name", "class_weights", "label_smoothing", "dice"}


def test_a_local_mean_is_part_of_a_description_and_no_parameter():
    plain = DemSRNetSpec(features=4, num_blocks=2, residual_over="bicubic")
    spec = dataclasses.replace(plain, local_mean=8)
    assert spec.to_dict() == {**plain.to_dict(), "local_mean": 8}
    assert spec_from_dict(spec.to_dict()) == spec != plain
    assert spec.parameters == plain.parameters
    assert spec.receptive_radius == plain.receptive_radius + 8
    assert spec.layers == ("anomaly", *plain.layers)


def test_a_fine_head_is_part_of_a_description_and_has_its_own_convolution():
    plain = DemSRNetSpec(features=4, num_blocks=2, upsampler="pixel_shuffle")
    spec = dataclasses.replace(plain, fine_features=3)
    assert "fine_features" not in plain.to_dict()
    assert spec_from_dict(spec.to_dict()) == spec != plain
    shapes = {p.name: p.shape for p in spec.parameters}
    assert shapes["up.weight"] == (3 * 25, 4, 3, 3)
    assert shapes["fine.weight"] == (6, 3, 3, 3)
    assert shapes["out.weight"] == (1, 6, 3, 3)
    assert spec.layers[-3:] == ("upsample", "fine", "out")
    inner = spec.flops(8, 8) - spec.flops(0, 0)
    assert inner == sum(2 * 9 * i * o * 64 * (25 if n in ("fine", "out") else 1) for n, i, o in spec.convolutions)


def test_a_slope_is_part_of_an_objective_of_values_alone():
    assert L1Loss(slope=0.5).to_dict() == {"name": "l1", "delta": 1.0, "slope": 0.5}
    assert HuberLoss(2.0, slope=0.5) == Objective("huber", 2.0, slope=0.5)
    with pytest.raises(ConfigError, match=r"slope is 0\.5, but objective cross_entropy compares classes"):
        Objective("cross_entropy", slope=0.5)


@pytest.mark.parametrize("damage", [{"kind": "vit"}, {"kind": "demsrnet", "depth": 3}, {}])
def test_an_unknown_spec_is_refused(damage):
    with pytest.raises(CheckpointError):
        spec_from_dict(damage)


def test_initial_weights_depend_on_seed_and_name_alone():
    small, large = DemSRNetSpec(features=4, num_blocks=1), DemSRNetSpec(features=4, num_blocks=3)
    a, b = initial_weights(small, 7), initial_weights(large, 7)
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name])
        assert value.dtype == np.float32
    other = initial_weights(small, 8)
    assert all((a[name] != other[name]).any() for name in a)
    assert (a["blocks.0.conv1.weight"] != a["blocks.0.conv2.weight"]).any()


def test_initial_weights_fill_their_bound():
    spec = DemSRNetSpec(features=32, num_blocks=1, bias=True)
    for name, value in initial_weights(spec, 0).items():
        fan_in = next(p.fan_in for p in spec.parameters if p.name == name)
        assert np.abs(value).max() <= 1 / np.sqrt(fan_in)
        if value.size > 1000:
            # Uniform: standard deviation is the bound over sqrt(3); 5 % is five times its scatter at 9,216 draws.
            assert value.std() == pytest.approx(1 / np.sqrt(3 * fan_in), rel=0.05)


def test_layer_groups_are_selected_by_name_part_or_pattern():
    spec = DemSRNetSpec(features=2, num_blocks=12)
    assert spec.select(["head"]) == {"head.weight"}
    assert len(spec.select(["blocks"])) == 24
    assert spec.select(["blocks.1"]) == {"blocks.1.conv1.weight", "blocks.1.conv2.weight"}
    assert len(spec.select(["blocks.1?"])) == 4
    assert spec.select([]) == frozenset()
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        spec.select(["head", "blocks", "body", "up", "out"])
    with pytest.raises(ConfigError, match="'tail', which is no layer group; groups: head, blocks, body, up, out"):
        spec.select(["tail"])


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DemSRNetSpec().features = 3


@pytest.mark.parametrize(
    "model",
    [
        {"residual_over": "bicubic", "in_channels": 2},
        {"global_skip": "input", "in_channels": 3},
        {"kernel_size": 4},
        {"local_mean": 3},
        {"local_relief": 3, "residual_over": "bicubic"},
        {"local_mean": -1, "residual_over": "bicubic"},
    ],
)
def test_variants_that_cannot_be_are_refused(model):
    with pytest.raises(ConfigError, match=r"model\."):
        from_mapping({"model": model})
