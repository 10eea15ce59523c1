import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import Side
from mobile_vla.sim.route import RouteTracker, gates
from mobile_vla.sim.scene import Pose
from sim.conftest import carton, plain_scene

START = Pose(-2.0, 0.0, 0.0)
ONE = plain_scene(obstacles=(carton(0.0, 0.0),), start=START)
TWO = plain_scene(obstacles=(carton(-0.5, 0.1), carton(0.5, -0.1)), start=START)


def drive(scene, *points):
    tracker = RouteTracker(scene)
    for point in points:
        tracker.move(*point)
    return tracker


@pytest.mark.parametrize("scene", [ONE, TWO], ids=["one box", "two boxes"])
@pytest.mark.parametrize(("y", "side"), [(1.0, Side.LEFT), (-1.0, Side.RIGHT)])
def test_the_side_is_seen_from_the_start(scene, y, side):
    tracker = drive(scene, (-1.0, y), (1.0, y))
    assert tracker.side is side
    assert tracker.obeys(side)
    assert not tracker.obeys(Side.LEFT if side is Side.RIGHT else Side.RIGHT)


def test_before_all_boxes_are_passed_there_is_no_side():
    assert drive(TWO, (-1.0, 1.0)).side is None
    assert drive(TWO, (-1.0, 1.0), (0.0, 1.0)).side is None


def test_a_slalom_has_no_side():
    tracker = drive(TWO, (-1.0, 1.0), (0.0, 1.0), (0.0, -1.0), (1.0, -1.0))
    assert tracker.side is None
    assert not tracker.obeys(Side.LEFT)
    assert not tracker.obeys(Side.RIGHT)


def test_to_go_back_and_round_the_other_way_is_no_obedience():
    tracker = drive(ONE, (-1.0, 1.0), (1.0, 1.0), (1.0, -1.0), (-1.0, -1.0))
    assert tracker.side is None


def test_forth_and_back_and_forth_on_one_side_is_obedience():
    assert drive(ONE, (-0.5, 1.0), (0.5, 1.0), (-0.5, 1.0), (0.5, 1.2)).obeys(Side.LEFT)


def test_the_place_of_crossing_counts_and_not_the_last_step():
    """One long step from right behind to left ahead crosses where the line says."""
    assert drive(ONE, (-0.1, -1.0), (1.9, 1.0)).side is Side.RIGHT


def test_without_boxes_there_is_nothing_to_obey():
    empty = plain_scene(start=START)
    assert gates(empty) == ()
    assert drive(empty, (2.0, 0.0)).side is None


@given(st.floats(-1.0, 1.0), st.floats(-1.5, 1.5), st.floats(-0.5, 0.5))
def test_gates_lie_across_the_way_and_left_is_left(box_x, box_y, start_y):
    scene = plain_scene(obstacles=(carton(box_x, box_y),), start=Pose(-2.5, start_y, 0.3))
    (gate,) = gates(scene)
    assert gate.coordinates(scene.start.x, scene.start.y)[0] < 0
    assert gate.coordinates(scene.start.x, scene.start.y)[1] == pytest.approx(0.0, abs=1e-9)
    ahead, left = gate.ahead, gate.left
    assert ahead[0] * left[1] - ahead[1] * left[0] == pytest.approx(1.0)
