import json
import signal
import threading
import time

import pytest

from mobile_vla.cli import record
from mobile_vla.core import ConfigError
from mobile_vla.data import Dataset, validate
from mobile_vla.data.store import read_journal

from .program import LIMIT_S, program

ROBOT = ("camera.kind=pattern", "camera.width=160", "camera.height=96", "base.kind=ideal")


def options(*arguments):
    import argparse

    parser = argparse.ArgumentParser()
    record.add_to(parser.add_subparsers(required=True))
    return parser.parse_args(["record", *map(str, arguments)])


def record_one(here, decide=b"k"):
    """Drive an episode that is good enough, and decide about it."""
    here.type(b"g")
    here.wait_for("recording ")
    here.drive_for(3.0)
    here.type(b"k")
    here.wait_for("proposal: ")
    here.type(decide)


def test_by_hand_from_the_first_episode_to_the_summary(tmp_path):
    root = tmp_path / "data"
    with program("record", "--out", root, *ROBOT, "--count", "1") as here:
        here.wait_for("0 of 24 episodes")
        here.wait_for("READY")
        record_one(here)
        here.wait_for("kept as episode 0")
        here.wait_for("next: 1box_vertical_left, medium (0/1)")
        record_one(here, b"x")
        here.wait_for("discarded the episode")
        here.type(b"p")
        here.wait_for("as a film: ")
        here.type(b"z")
        assert here.end() == 0
        assert "1 of 24 episodes" in here.said
        assert "kept 1 and discarded 1" in here.said
    assert validate(root) == []
    dataset = Dataset.open(root)
    (only,) = dataset.records
    assert only.extras["scenario"] == "1box_vertical_left_close"
    assert only.length >= 2
    assert dataset.image_shape == (96, 160, 3)
    (session,) = dataset.house.sessions
    assert (session["robot"], session["camera"], session["clock"]) == ("robot", "pattern", "monotonic")
    assert (tmp_path / "data-last.mp4").stat().st_size > 1000


def test_killed_while_recording_loses_the_open_episode_alone(tmp_path):
    root = tmp_path / "data"
    with program("record", "--out", root, *ROBOT) as here:
        here.wait_for("READY")
        record_one(here)
        here.wait_for("kept as episode 0")
        here.type(b"g")
        here.wait_for("recording ")
        here.drive_for(1.0)
        here.process.kill()
    with program("record", "--out", root, *ROBOT) as here:
        here.wait_for("1 of 240 episodes")
        here.wait_for("next: 1box_vertical_left, close (1/10)")
        here.wait_for("READY")
        here.type(b"z")
        assert here.end() == 0
    assert len(Dataset.open(root)) == 1
    assert validate(root) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_finished_and_discards_what_is_open(tmp_path, number):
    root = tmp_path / "data"
    with program("record", "--out", root, *ROBOT) as here:
        here.wait_for("READY")
        record_one(here)
        here.wait_for("kept as episode 0")
        here.type(b"g")
        here.wait_for("recording ")
        here.drive_for(0.5)
        here.process.send_signal(number)
        assert here.end() == 0
        assert "the session ended while it was recorded" in here.said
    assert len(Dataset.open(root)) == 1
    assert validate(root) == []


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_a_terminal_that_is_closed_keeps_what_is_finished(tmp_path, term):
    root = tmp_path / "data"
    with program("record", "--out", root, *ROBOT, term=term) as here:
        here.wait_for("READY")
        record_one(here)
        here.wait_for("kept as episode 0")
        here.type(b"g")
        here.wait_for("recording ")
        here.hang_up()
        here.process.wait(LIMIT_S)  # its last words have nowhere to go, which is no failure to stop or to keep
    assert len(Dataset.open(root)) == 1
    assert validate(root) == []


def test_a_terminal_that_stalls_holds_up_neither_driving_nor_saving(tmp_path):
    root = tmp_path / "data"
    with program("record", "--out", root, *ROBOT, term="xterm") as here:
        here.wait_for("READY")
        here.type(b"g")
        deadline = time.monotonic() + LIMIT_S
        while not read_journal(root)[0]:  # nobody reads what is said, which is soon more than a terminal holds
            for keys in [*[b"w"] * 30, b"k", b"k"]:
                here.type(keys)
                time.sleep(0.1)
            assert time.monotonic() < deadline
        here.type(b"z")
        assert here.end() == 0
    assert validate(root) == []


def test_a_frozen_camera_is_proposed_to_be_discarded(tmp_path):
    faults = "camera.faults=[{kind: freeze, after_s: 0.5}]"
    with program("record", "--out", tmp_path / "data", *ROBOT, faults) as here:
        here.wait_for("READY")
        record_one(here, b"g")
        here.wait_for("discarded the episode")
        here.type(b"z")
        assert here.end() == 0
    assert len(Dataset.open(tmp_path / "data")) == 0


def test_a_plan_of_ones_own_and_a_summary_in_json(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("scenarios: {corridor: {en: follow the yellow line}}", encoding="utf-8")
    with program("record", "--out", tmp_path / "data", *ROBOT, "--plan", plan, "--json") as here:
        here.wait_for('"follow the yellow line"')
        here.wait_for("READY")
        here.type(b"z")
        assert here.end() == 0
        told = json.loads(here.said[here.said.index("{") :])
    assert (told["kept"], told["wanted"]) == (0, 30)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["base.kind=ideal"], "no camera is configured"),
        ([*ROBOT, "limits.speed=[0.9, 0.6, 1.5]"], "above the action contract's"),
        ([*ROBOT, "--first", "1box_vertical_left_fur"], "did you mean 1box_vertical_left_far"),
        ([*ROBOT, "--plan", "/no/such/plan.yaml"], "cannot read the plan"),
        ([*ROBOT, "--stick", "/dev/input/js99"], "cannot open the gamepad"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, arguments, words):
    wanted = options("--out", tmp_path / "data", *arguments)
    with pytest.raises(ConfigError, match=words):
        wanted.run(wanted)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("camera-", "record-"))]


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").touch()
    with program("record", "--out", tmp_path, *ROBOT) as here:
        assert here.end() == 2
        assert "no data set of mobile-vla" in here.said
        assert "Traceback" not in here.said


def test_the_kinds_of_target_are_those_of_the_language():
    from mobile_vla.core import Kind

    assert tuple(Kind) == record.KINDS


def test_a_terminal_that_refuses_what_is_said_ends_the_session():
    from rich.console import Console

    class Gone:
        def write(self, text):
            raise OSError(5, "Input/output error")

        def flush(self):
            pass

    over = threading.Event()
    board = record.Board(Console(file=Gone()), over)
    board.say("hello")
    assert over.is_set()
    board.say("nothing more")
