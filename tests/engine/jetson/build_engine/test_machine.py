"""What machine this is, without this package's help."""

import re
from pathlib import Path

import pytest

from mobile_vla.engine import fingerprint as ours
from mobile_vla.engine.jetson.build_engine import machine

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
JETSON = {"/etc/nv_tegra_release": RELEASE, "/proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"}


def test_both_say_the_same_of_this_machine() -> None:
    assert machine.fingerprint(ours.INSTRUCTIONS) == ours.fingerprint(()).to_dict()


def test_a_jetson_is_named_by_its_own_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: JETSON.get(path, ""))
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MODE_30W'\necho 2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.board() == {
        "model": "NVIDIA Jetson AGX Orin Developer Kit",
        "jetson_linux": "R36.4.3",
        "power_mode": "MODE_30W",
    }


def test_elsewhere_all_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(machine.board().values()) == {"unknown"}
    assert re.fullmatch(r"unknown processor|\S.*", machine.fingerprint(())["processor"])
