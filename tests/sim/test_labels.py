import numpy as np

from mobile_vla.core import Colour, Kind
from mobile_vla.data import schema
from mobile_vla.sim.labels import MAX_OBJECTS, OBJECT_FIELDS, RANGE_COLUMNS, truth_columns
from sim.conftest import busy_scene, plain_scene, thing

KINDS, COLOURS = list(Kind), list(Colour)


def columns_of(world, scene, target=None):
    world.load(scene)
    return truth_columns(scene, world.visibility(96, 192), world.ranges(RANGE_COLUMNS), target, (96, 192))


def test_the_shapes_are_those_of_the_data_sets(world):
    assert (
        schema.MAX_OBJECTS,
        len(schema.OBJECT_FIELDS),
        schema.RANGE_COLUMNS,
    ) == (MAX_OBJECTS, OBJECT_FIELDS, RANGE_COLUMNS)
    columns = columns_of(world, busy_scene())
    assert columns["objects"].shape == (MAX_OBJECTS * OBJECT_FIELDS,)
    assert columns["ranges"].shape == (RANGE_COLUMNS,)


def test_each_object_has_its_row_and_the_others_say_minus_one(world):
    scene = plain_scene((thing(Kind.BALL, Colour.GREEN, 1.5, 0.0), thing(Kind.CUP, Colour.RED, 1.0, 0.4)))
    rows = columns_of(world, scene)["objects"].reshape(MAX_OBJECTS, OBJECT_FIELDS)
    for row, item in zip(rows, scene.objects, strict=False):
        assert (int(row[0]), int(row[1])) == (KINDS.index(item.kind), COLOURS.index(item.colour))
    assert (rows[2:] == -1).all()
    ball = rows[0]
    assert abs(ball[2] - 96) < 2  # straight ahead: the middle column
    assert ball[6] > 0.9
    assert abs(ball[7] - (1.5 - scene.objects[0].radius_m)) < 0.02


def test_the_target_is_pointed_out_only_where_there_is_one(world):
    scene = plain_scene((thing(Kind.BALL, Colour.GREEN, 1.5, 0.5),))
    assert not any(name.startswith("grounding") for name in columns_of(world, scene))
    columns = columns_of(world, scene, target=0)
    assert columns["grounding.bearing_rad"] > 0.2
    left, top, right, bottom = columns["grounding.box"]
    assert 0 <= left < right < 0.5
    assert 0 <= top < bottom <= 1
    assert np.isclose(columns["grounding.visible"], columns["objects"][6])
