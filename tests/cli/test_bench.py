import json

import pytest

from mobile_vla.engine.bench import measure as bench_module
from mobile_vla.engine.folder import make_engine

SMALL = ("--camera", "64x48", "--times", "100")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bench_module, "_LIMIT_S", 0.2)


@pytest.mark.needs("matplotlib")
def test_a_checkpoint_is_timed_as_it_drives(call, policy, tmp_path):
    code, out, err = call("bench", policy, *SMALL, "--out", tmp_path / "out")
    assert code == 0
    assert "checkpoint fp32" in out
    assert "memory and head" in out  # its stages
    assert "of the limit" in out
    assert "RANDOM" not in out
    assert "timing checkpoint fp32" in err
    values = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert values["about"]["policy"] == str(policy)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"bench.json", "latency.png", "roofline_cpu.png"}


def test_random_weights_are_named_in_every_output(call):
    code, out, _ = call("bench", "--random-weights", "compact", *SMALL, "--json")
    assert code == 0
    values = json.loads(out)
    assert values["about"]["random"] is True
    assert values["about"]["parameters"] == 1_608_386
    assert [row["agreement"] for row in values["rows"]] == [None]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--engine", "openvinno"), "there is no engine called 'openvinno'; did you mean openvino?"),
        (("--engine", "torch", "--precision", "int4"), "torch cannot compute in 'int4': choose among bf16, fp32"),
        (("--precision", "bf16"), "--precision bf16 of which engine?"),
        (("--camera", "10x10"), "no camera gives pictures of 10x10"),
        (("--times", "5"), "5 times make no p99"),
        (("--threads", "9999"), "9999 threads on"),
        (("--random-weights", "compact", "--episodes", "3"), "random weights drive nowhere"),
        (("--random-weights", "kosmos_klip"), "there is no kind of policy called 'kosmos_klip'"),
    ],
)
def test_what_cannot_be_is_one_sentence(refuse, options, sentence):
    assert sentence in refuse("bench", *options)


def test_a_policy_and_random_weights_exclude_each_other(refuse, policy):
    assert "leave one of them out" in refuse("bench", policy, "--random-weights", "compact")


def test_without_a_gpu_an_engine_of_one_says_so(refuse):
    import torch

    if not torch.cuda.is_available():
        assert "no CUDA device" in refuse("bench", "--engine", "cudagraph")


def test_an_engine_takes_no_other_engine(refuse, policy, tmp_path):
    make_engine(policy, tmp_path / "engine", "torch", "bf16")
    assert "is an engine already" in refuse("bench", tmp_path / "engine", "--engine", "torch")


@pytest.mark.parametrize("size", ["640", "640x", "x", "-1x48", "640x480x3", "wide"])
def test_a_camera_without_width_and_height_is_wrong_use(call, size):
    with pytest.raises(SystemExit, match="2"):
        call("bench", f"--camera={size}")


def test_no_checkpoint_is_one_sentence(refuse, tmp_path):
    assert str(tmp_path / "gone") in refuse("bench", tmp_path / "gone")


@pytest.mark.needs("mujoco")
def test_engines_are_compared_in_actions_and_in_driving(call, policy, monkeypatch):
    monkeypatch.setattr("mobile_vla.cli.bench.COMPARED", 5)
    code, out, _ = call(
        "bench", policy, "--engine", "torch", "--precision", "bf16", "--episodes", "1", *SMALL, "--json"
    )
    assert code == 0
    eager, other = json.loads(out)["rows"]
    assert (eager["name"], other["name"]) == ("torch fp32", "torch bf16")
    assert eager["agreement"] is None
    assert other["agreement"]["decisions"] == 5
    assert other["driving"]["figures"]["engine"]["total"] == 1
    assert eager["driving"] is None
