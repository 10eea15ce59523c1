import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from mobile_vla.doctor.check import State
from mobile_vla.doctor.checkpoint import judge_checkpoint, look_at_checkpoint
from mobile_vla.doctor.purpose import SHIPPED

from .lines import sound


@pytest.fixture
def ours(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "my policy")


def judged(folder):
    check = judge_checkpoint(look_at_checkpoint(folder), folder)
    sound(check)
    return check


def test_the_shipped_one_is_whole():
    check = judged(SHIPPED)
    assert check.state is State.OK
    assert check.found.startswith("the shipped one: whole")


def test_one_that_is_cut_off_fails_and_says_where_to_look(ours):
    weights = ours / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)
    check = judged(ours)
    assert check.state is State.FAIL
    assert check.repairs == (f"mobile-vla checkpoint verify '{ours}'", "mobile-vla checkpoint find")


def test_one_that_is_not_there_fails(tmp_path):
    check = judged(tmp_path / "nothing")
    assert check.state is State.FAIL
    assert "nothing" in check.found


def test_one_without_checksums_is_a_warning(tmp_path):
    alone = tmp_path / "alone.safetensors"
    save_file({"a": np.arange(1000, dtype=np.float32)}, alone)
    check = judged(alone)
    assert check.state is State.WARN
    assert "no checksum proves it" in check.found


def test_a_damaged_shipped_one_is_installed_again():
    check = judge_checkpoint("it holds no tensors", SHIPPED)
    sound(check)
    assert "--force-reinstall" in check.repairs[0]


@pytest.mark.needs("torch")
def test_an_engine_is_looked_at_with_its_checkpoint(tmp_path):
    from mobile_vla.engine.folder import make_engine

    make_engine(SHIPPED, tmp_path / "engine", "torch", "fp32")
    seen = judge_checkpoint(look_at_checkpoint(tmp_path / "engine"), tmp_path / "engine")
    assert seen.state is State.OK
    data = (tmp_path / "engine" / "engine.json").read_text()
    (tmp_path / "engine" / "engine.json").write_text(data.replace("fp32", "fp23"))
    seen = judge_checkpoint(look_at_checkpoint(tmp_path / "engine"), tmp_path / "engine")
    assert seen.state is State.FAIL
