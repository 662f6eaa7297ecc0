"""`golden.load` and the public names of the package."""

import shutil
import subprocess
import sys

import pytest

import s2tdpt.golden as golden
from s2tdpt.golden.shipped import FOLDER


def test_public_names():
    assert [name for name in golden.__all__ if not hasattr(golden, name)] == []
    assert sorted(golden._MODULES) == golden.__all__
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = golden.laod


def test_a_configuration_needs_no_torch():
    code = "import sys, s2tdpt.golden as g; g.load_config('digits').layers(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_load_by_name_and_path(tmp_path, monkeypatch):
    assert {"digits", "digits-int4", "s2tdpt-2-128"} <= set(golden.shipped_models())
    params = golden.load("digits")
    assert params.config.name == "digits" and params.source == str(FOLDER / "digits.safetensors")
    shutil.copy(FOLDER / "digits-int4.safetensors", tmp_path / "digits")
    assert golden.load(tmp_path / "digits").config.weight_bits == 4
    monkeypatch.chdir(tmp_path)
    assert golden.load("digits").config.weight_bits == 4  # a file of that name goes first
    for wrong in ("digit", "../models/digits", ""):
        with pytest.raises(golden.UserError, match="expected"):
            golden.load(wrong)
