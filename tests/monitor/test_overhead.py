import numpy as np
import pytest

from mobile_vla.monitor.overhead import overhead
from mobile_vla.sim.scenarios import draw_scene
from mobile_vla.sim.world import World


@pytest.fixture(scope="module")
def world():
    world = World()
    world.load(draw_scene("1box_vertical_left_close", 1).scene)
    return world


def test_things_are_where_it_says(world):
    picture = overhead(world, 480)
    for item in world.scene.objects:
        column, row = picture.place(item.pose.x, item.pose.y)
        pixel = picture.pixels[round(row) - 2 : round(row) + 3, round(column) - 2 : round(column) + 3].astype(int)
        assert np.ptp(pixel.mean(axis=(0, 1))) > 20, item.kind  # coloured, as the floor is not


def test_the_world_goes_on_as_it_was_and_the_robot_is_not_in_it(world):
    before = world.pose
    picture = overhead(world, 240)
    assert world.pose == before
    column, row = map(round, picture.place(before.x, before.y))
    shown = world.render_top(*picture.pixels.shape[:2])
    assert np.abs(picture.pixels[row, column].astype(int) - shown[row, column]).max() > 10


def test_resized_it_says_the_same(world):
    picture = overhead(world, 480)
    small = picture.resized(120)
    assert small.pixels.shape[1] % 2 == 0
    assert small.place(1.0, -0.5) == pytest.approx([value / 4 for value in picture.place(1.0, -0.5)], abs=1.0)
    assert small.extent_m == pytest.approx(picture.extent_m, abs=0.05)
