import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.cli.extras import missing_extra
from mobile_vla.doctor import torch_wheel
from mobile_vla.doctor.check import State
from mobile_vla.doctor.process import Answer
from mobile_vla.doctor.torch_wheel import Gpu, Jetson, Torch, judge_gpu, judge_torch

from .lines import sound
from .purposes import ELSEWHERE, SIMULATED

ORIN = Gpu(jetson=Jetson("NVIDIA Jetson Orin NX", 36))
THOR = Gpu(jetson=Jetson("NVIDIA Jetson AGX Thor", 38))
LAPTOP = Gpu(("NVIDIA GeForce RTX 4090",), "550.54.14", (12, 4))
NO_GPU = Gpu()
COMPUTES = {"cuda": "12.6", "available": True, "device": "Orin", "computes": True}
BLIND = {"cuda": "12.6", "available": False, "computes": False}
NO_CUDA = {"cuda": None, "available": False, "computes": False}


def torch(version, values=None, trouble="", lost=None, found_in=None):
    return Torch(version, Answer(values, trouble), lost, found_in)


MACHINES = st.builds(
    Gpu,
    names=st.lists(st.sampled_from(["NVIDIA H100", "NVIDIA GeForce RTX 4090"])).map(tuple),
    driver=st.none() | st.just("550.1"),
    driver_cuda=st.none() | st.tuples(st.integers(9, 15), st.integers(0, 9)),
    toolkit=st.none() | st.just("12.6.68"),
    jetson=st.none() | st.builds(Jetson, st.just("Jetson"), st.sampled_from([0, 32, 35, 36, 38, 39])),
)
TORCHES = st.just(Torch(None)) | st.builds(
    torch,
    st.sampled_from(["2.13.0+cpu", "2.8.0", "1.13.1", "2.6.0+cu124", "strange"]),
    st.none()
    | st.fixed_dictionaries(
        {"cuda": st.sampled_from([None, "11.8", "12.6", "13.0"]), "computes": st.booleans()},
        optional={"device": st.just("GPU"), "trouble": st.sampled_from(["no kernel image is available", "", "odd"])},
    ),
    st.just("OSError: it would not"),
    st.none() | st.sampled_from(["libcublas.so.12", "libcudnn.so.9", "libopenblas.so.0", "libstrange.so.1"]),
    st.none() | st.just("/usr/local/cuda 12/lib64"),
)


@given(TORCHES, MACHINES)
def test_any_machine_gets_rows_that_can_be_used(seen, gpu):
    for purpose in (SIMULATED, ELSEWHERE):
        wheel, sight = judge_torch(seen, gpu, purpose), judge_gpu(seen, gpu, purpose)
        sound(sight) if sight.repairs else None
        assert sight.state is not State.FAIL  # without a GPU the policy runs on the processor
        if purpose.needs_policy:
            sound(wheel)
            assert wheel.state is (
                State.OK if seen.loaded and seen.installed not in ("1.13.1", "strange") else State.FAIL
            )
        else:
            assert wheel.state is not State.FAIL


@pytest.mark.parametrize(
    ("gpu", "index"),
    [
        (ORIN, "https://pypi.jetson-ai-lab.io/jp6/cu126"),
        (THOR, "https://pypi.jetson-ai-lab.io/sbsa/cu130"),
        (LAPTOP, "https://download.pytorch.org/whl/cu126"),
        (Gpu(("NVIDIA H100",), "580.1", (13, 0)), "https://download.pytorch.org/whl/cu130"),
        (Gpu(("NVIDIA H100",), "700.1", (15, 2)), "https://download.pytorch.org/whl/cu130"),
        (NO_GPU, "https://download.pytorch.org/whl/cpu"),
    ],
)
def test_the_line_fits_the_machine(gpu, index, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    (line,) = judge_torch(Torch(None), gpu, SIMULATED).repairs
    assert line.endswith(f"-m pip install torch --index-url {index}")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (line,) = judge_torch(Torch(None), gpu, SIMULATED).repairs
    if gpu.jetson is None:
        assert '-m pip install -e ".[policy]"  #' in line
        assert 'install -e ".[policy]"' in missing_extra(ModuleNotFoundError("no torch", name="torch"))
    else:
        assert line.endswith(index)
    (again,) = judge_torch(torch("2.8.0", trouble="the process was ended by SIGILL"), gpu, SIMULATED).repairs
    assert "--force-reinstall" in again
    assert again.endswith(index)


@pytest.mark.parametrize("wheel", ["2.13.0+cpu", "2.8.0"])
def test_the_general_wheel_on_a_jetson_is_found_out(wheel):
    seen = torch(wheel, NO_CUDA)
    assert judge_torch(seen, ORIN, SIMULATED).state is State.OK  # it drives, slowly
    check = judge_gpu(seen, ORIN, SIMULATED)
    assert check.state is State.WARN
    assert "wheel of the general index" in check.found
    assert "jp6/cu126" in check.repairs[0]


def test_a_wheel_for_servers_on_a_jetson_is_found_out_by_computing():
    values = {**BLIND, "available": True, "device": "Orin", "trouble": "CUDA error: no kernel image is available"}
    check = judge_gpu(torch("2.8.0+cu128", values), ORIN, SIMULATED)
    assert "nothing that runs on this GPU (Orin)" in check.found
    assert "jp6/cu126" in check.repairs[0]


def test_a_driver_older_than_torchs_cuda_is_told_with_both_versions():
    check = judge_gpu(torch("2.13.0", {**BLIND, "cuda": "13.0"}), LAPTOP, SIMULATED)
    assert "knows CUDA up to 12.4, torch was built for 13.0" in check.found
    assert check.repairs[0].endswith("cu126")


def test_an_old_jetpack_is_told_and_no_line_pretends_to_repair_it():
    check = judge_gpu(torch("2.1.0", NO_CUDA), Gpu(jetson=Jetson("Jetson Xavier", 35)), SIMULATED)
    assert "older than JetPack 6" in check.found
    assert check.repairs == judge_torch(Torch(None), Gpu(jetson=Jetson("Jetson Xavier", 35)), SIMULATED).repairs == ()


def test_a_gpu_that_computes_is_ok():
    check = judge_gpu(torch("2.8.0", COMPUTES), ORIN, SIMULATED)
    assert check.state is State.OK
    assert check.found.startswith("Orin computes; NVIDIA Jetson Orin NX, Jetson Linux R36")


def test_a_torch_that_cannot_be_loaded_leaves_the_gpu_open():
    assert "repaired before" in judge_gpu(torch("2.8.0", trouble="OSError"), LAPTOP, SIMULATED).found


@pytest.mark.parametrize(
    ("library", "gpu", "line"),
    [
        ("libcusparseLt.so.0", ORIN, "-m pip install nvidia-cusparselt-cu12"),
        ("libcudss.so.0", THOR, "-m pip install nvidia-cudss-cu13"),
        ("libopenblas.so.0", ORIN, "sudo apt-get install -y libopenblas0"),
        ("libcublas.so.12", ORIN, "sudo apt-get install -y nvidia-jetpack"),
        ("libcudnn.so.9", LAPTOP, "--force-reinstall"),
    ],
)
def test_a_library_that_is_nowhere_is_installed(library, gpu, line):
    check = judge_torch(torch("2.8.0", trouble="ImportError", lost=library), gpu, SIMULATED)
    assert check.state is State.FAIL
    assert library in check.found
    assert line in check.repairs[0]


def test_a_library_off_the_loaders_path_gets_the_line_that_adds_its_folder():
    seen = torch("2.8.0", trouble="ImportError", lost="libcublas.so.12", found_in="/usr/local/cuda-12.6/lib64")
    (line,) = judge_torch(seen, ORIN, SIMULATED).repairs
    assert line == "export LD_LIBRARY_PATH=/usr/local/cuda-12.6/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"


def test_the_lost_library_is_read_from_the_loaders_words_and_looked_for(root, monkeypatch):
    said = "ImportError: libcublas.so.12: cannot open shared object file: No such file or directory"
    folder = root.write("usr/local/cuda-12.6/lib64/libcublas.so.12").parent
    monkeypatch.setattr(torch_wheel, "version", lambda name: "2.8.0")
    monkeypatch.setattr(torch_wheel, "ask", lambda probe, values, limit_s: Answer(None, said))
    seen = torch_wheel.look_at_torch(root.path)
    assert (seen.lost_library, seen.found_in) == ("libcublas.so.12", str(folder))
    (root.path / "usr/local/cuda-12.6/lib64/libcublas.so.12").unlink()
    assert torch_wheel.look_at_torch(root.path).found_in is None


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {
                "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
                "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
            },
            Jetson("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 36),
        ),
        ({"etc/nv_tegra_release": "# R35 (release), REVISION: 5.0"}, Jetson("Jetson", 35)),
        ({"proc/device-tree/model": "NVIDIA Jetson AGX Thor\0"}, Jetson("NVIDIA Jetson AGX Thor", 0)),
        ({"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}, None),
        ({}, None),
    ],
)
def test_a_jetson_is_known_by_its_files(files, found, root):
    for name, text in files.items():
        root.write(name, text)
    assert torch_wheel.jetson_of(root.path) == found


SMI = """#!/bin/sh
case "$1" in
--query*) echo "NVIDIA H100 80GB HBM3, 550.54.14" ;;
*) echo "| NVIDIA-SMI 550.54.14   Driver Version: 550.54.14   CUDA Version: 12.4     |" ;;
esac
"""


def test_nvidia_smi_and_the_toolkit_are_read(root, monkeypatch, tmp_path):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    root.write("usr/local/cuda/version.json", '{"cuda" : {"name" : "CUDA SDK", "version" : "12.6.11"}}')
    seen = torch_wheel.look_at_gpu(root.path)
    assert seen == Gpu(("NVIDIA H100 80GB HBM3",), "550.54.14", (12, 4), "12.6.11", None)
    facts = judge_gpu(torch("2.8.0", COMPUTES), seen, SIMULATED).found
    assert "driver 550.54.14, knows CUDA up to 12.4, toolkit 12.6.11" in facts


def test_without_nvidia_smi_there_is_no_gpu(root, monkeypatch):
    monkeypatch.setenv("PATH", str(root.path))
    assert torch_wheel.look_at_gpu(root.path) == NO_GPU


def test_where_the_policy_runs_elsewhere_torch_may_be_absent():
    assert judge_torch(Torch(None), NO_GPU, ELSEWHERE).state is State.NOT_NEEDED
    assert judge_gpu(Torch(None), LAPTOP, ELSEWHERE).state is State.NOT_NEEDED
