import io
from dataclasses import replace

from rich.console import Console

from mobile_vla.core import NS_PER_S
from mobile_vla.monitor.line import LiveLine, line
from mobile_vla.safety import SafetyState


def test_it_tells_state_command_speed_age_and_belief(make_tick):
    said = line(make_tick())
    for part in ("1.2 s", "running", "vx +0.30 vy -0.10 wz +0.20", "speed 0.50", "100 ms", "1.50 m +20°", "driving"):
        assert part in said


def test_what_is_not_seen_and_what_is_not_there_yet(make_tick):
    assert "target out of view" in line(make_tick(visibility=0.2))
    assert "no frame" in line(make_tick(frame=False))


def test_without_a_terminal_it_is_one_line_a_second(make_tick):
    said = io.StringIO()
    with LiveLine(Console(file=said, width=40)) as live:
        for step in range(25):
            live.show(make_tick(step * NS_PER_S // 10))
    assert len(said.getvalue().splitlines()) == 3


def test_on_a_terminal_it_stays_in_one_place(make_tick):
    said = io.StringIO()
    with LiveLine(Console(file=said, force_terminal=True, width=200)) as live:
        for step in range(25):
            live.show(make_tick(step * NS_PER_S // 10))
    assert "running" in said.getvalue()
    assert said.getvalue().count("\n") < 5


def test_while_it_does_not_run_it_says_why(make_tick):
    held = replace(make_tick(), state=SafetyState.HOLDING, sentence="the newest frame is 0.5 s old")
    assert line(held).endswith("driving  the newest frame is 0.5 s old")
    assert line(make_tick()).endswith("driving")
