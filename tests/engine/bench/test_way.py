import numpy as np
import pytest

from engine.bench.test_standin import policy_of
from engine.small import network
from mobile_vla.core import Policy
from mobile_vla.engine.bench.way import ENGINE, FRAMES, WHOLE, Way, patterns, pictures
from mobile_vla.policy.compact import CompactPolicy


@pytest.mark.parametrize("make", [policy_of, CompactPolicy])
def test_stages_lie_one_after_another_and_add_up(make: type) -> None:
    policy: Policy = make(network())
    way = Way(policy, patterns(160, 120).frames)
    for _ in range(5):
        way()
    spent = way.stages_ns(3)
    assert set(spent) == {*way.stages, WHOLE}
    assert (ENGINE in spent) == (make is policy_of)
    assert all(len(each) == 3 and min(each) > 0 for each in spent.values())
    parts = np.array([spent[name] for name in way.stages]).sum(axis=0)
    np.testing.assert_array_equal(parts, spent[WHOLE])


def test_several_robots_see_different_pictures_and_are_decided_at_once() -> None:
    from pathlib import Path

    from mobile_vla.engine.backends import backend
    from mobile_vla.engine.backends.base import Opening
    from mobile_vla.engine.policy import EnginePolicy
    from mobile_vla.policy.step import step_of

    step = step_of(network())
    policy = EnginePolicy(backend("torch").open(Opening(step, "fp32", 3, Path())), step)
    asked = []
    steps = policy.steps
    policy.steps = lambda seen, states: asked.append([each.frame for each in seen]) or steps(seen, states)
    way = Way(policy, patterns(160, 120).frames, 3)
    way()
    way()
    assert [len(frames) for frames in asked] == [3, 3]
    assert len({id(frame.pixels) for frames in asked for frame in frames}) == 6
    assert asked[1][0].capture_ns > asked[0][0].capture_ns


def test_pictures_are_of_the_cameras_size_and_differ() -> None:
    shown = pictures(96, 64)
    assert len(shown.frames) == FRAMES
    assert {each.shape for each in shown.frames} == {(64, 96, 3)}
    assert {each.dtype for each in shown.frames} == {np.dtype(np.uint8)}
    assert len({each.tobytes() for each in shown.frames}) == FRAMES
