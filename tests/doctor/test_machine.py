import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.doctor import machine
from mobile_vla.doctor.check import State
from mobile_vla.doctor.machine import Processor, Python

from .lines import sound
from .purposes import ELSEWHERE, SIMULATED, with_robot

GIB = 1 << 30
PYTHONS = st.builds(
    Python,
    st.tuples(st.just(3), st.integers(6, 15), st.integers(0, 20)),
    st.sampled_from(["x86_64", "aarch64", "armv7l"]),
    st.sampled_from([32, 64]),
    st.frozensets(st.sampled_from(machine.ROBOT_SIDE + machine.SIMULATOR)),
)
WORDS = st.frozensets(
    st.sampled_from(["powersave", "performance", "schedutil", "intel_pstate", "amd-pstate-epp", "tegra"])
)


@given(PYTHONS)
def test_old_and_narrow_pythons_fail(seen):
    check = machine.judge_python(seen)
    sound(check)
    assert (check.state is State.FAIL) == (seen.version < (3, 10) or seen.bits != 64)


@given(PYTHONS)
def test_a_robot_needs_no_simulator(seen):
    for purpose in (SIMULATED, with_robot()):
        check = machine.judge_packages(seen, purpose)
        sound(check)
        lost = seen.missing & set(machine.ROBOT_SIDE)
        lost |= seen.missing & set(machine.SIMULATOR) if purpose.needs_simulator else set()
        assert (check.state is State.FAIL) == bool(lost)
        assert all(name in check.found or "the simulator is" in check.found for name in lost)


def test_this_python_is_looked_at():
    seen = machine.look_at_python()
    assert seen.version == sys.version_info[:3]
    assert seen.bits == 64
    assert not seen.missing & set(machine.ROBOT_SIDE)
    assert machine.judge_python(seen).state is State.OK


@given(
    st.builds(
        Processor,
        cores=st.integers(1, 64),
        load=st.floats(0, 500),
        governors=WORDS,
        drivers=WORDS,
        available=st.none() | st.integers(0, 1 << 40),
        jetson=st.booleans(),
    )
)
def test_a_processor_warns_and_never_fails(seen):
    check = machine.judge_processor(seen)
    sound(check)
    assert check.state in (State.OK, State.WARN)


@pytest.mark.parametrize(
    ("governor", "driver", "jetson", "line"),
    [
        ("powersave", "acpi-cpufreq", False, "echo performance | sudo tee"),
        ("powersave", "tegra194-cpufreq", True, "sudo jetson_clocks"),
        ("powersave", "intel_pstate", False, None),
        ("schedutil", "tegra194-cpufreq", True, None),
    ],
)
def test_the_governor_is_told_with_the_line_of_that_machine(governor, driver, jetson, line, root):
    for core in range(2):
        root.write(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor", f"{governor}\n")
        root.write(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_driver", f"{driver}\n")
    root.write("proc/meminfo", "MemTotal:       16000000 kB\nMemAvailable:    8388608 kB\nHugePages_Total:       0\n")
    seen = machine.look_at_processor(root.path, jetson)
    assert seen.available == 8 * GIB
    repairs = machine.judge_processor(seen).repairs
    assert any(line in each for each in repairs) if line else not any("performance" in each for each in repairs)


def test_little_memory_and_much_load_are_said():
    check = machine.judge_processor(Processor(2, 9.0, frozenset(), frozenset(), GIB // 2, False))
    assert "0.5 GiB" in check.found
    assert "9.0" in check.found
    assert check.state is State.WARN


def test_a_machine_that_tells_nothing_is_no_trouble(root):
    seen = machine.look_at_processor(root.path, False)
    assert seen.available is None
    assert seen.governors == frozenset()
    assert machine.judge_packages(machine.look_at_python(), ELSEWHERE).found
