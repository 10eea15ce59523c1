from dataclasses import FrozenInstanceError

import pytest

from mobile_vla.core import Colour, Kind, Target
from mobile_vla.sim.scene import FOOTPRINT_RADIUS_M, HEIGHT_M
from sim.conftest import plain_scene, thing


def test_every_kind_has_a_size():
    assert FOOTPRINT_RADIUS_M.keys() == HEIGHT_M.keys() == set(Kind)


def test_a_thing_grows_with_its_scale():
    small, large = (thing(Kind.BALL, Colour.RED, 0, 0, variant=variant) for variant in (0, 2))
    assert small.radius_m < FOOTPRINT_RADIUS_M[Kind.BALL] < large.radius_m
    assert small.height_m < HEIGHT_M[Kind.BALL] < large.height_m


def test_all_that_answer_to_a_name_are_found():
    cups = [thing(Kind.CUP, colour, 1.0, y) for colour, y in ((Colour.RED, 0), (Colour.BLUE, 1), (Colour.RED, 2))]
    scene = plain_scene((*cups, thing(Kind.BALL, Colour.RED, 1, -1)))
    assert scene.matching(Target(Kind.CUP)) == (0, 1, 2)
    assert scene.matching(Target(Kind.CUP, Colour.RED)) == (0, 2)
    assert scene.matching(Target(Kind.CONE)) == ()


def test_a_scene_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        plain_scene().seed = 3
