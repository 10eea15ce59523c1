import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ZERO_TWIST, DatasetError, Frame, Twist
from mobile_vla.data import Recording, schema
from mobile_vla.record.draft import Draft, Moment
from mobile_vla.record.drivers import Driver, drivers_of

from .rig import CONTRACT, PERIOD_NS, SHAPE

RNG = np.random.default_rng(0)


def frame(step):
    return Frame(RNG.integers(30, 220, SHAPE, dtype=np.uint8), step * PERIOD_NS, "simulation", "front", step)


def record(moments):
    recording = Recording("go", {}, CONTRACT, SHAPE)
    draft = Draft(recording, CONTRACT)
    for moment in moments:
        draft.step(moment)
    return recording, draft, draft.end()


def moment(step, vx=0.3, driver=Driver.OPERATOR, measured=0.25, **more):
    return Moment(frame(step), Twist(measured, 0, 0), Twist(vx, 0, 0), driver, **{"running": True, **more})


def test_an_action_is_what_was_asked_for_in_the_step_of_its_frame():
    recording, draft, report = record([moment(k, vx=k / 100) for k in range(30)])
    columns = recording.columns()
    assert columns[schema.ACTION][:, 0] == pytest.approx(np.arange(0, 30, 2) / 100)
    assert columns[schema.STATE][:, 0] == pytest.approx(0.25)
    assert columns[schema.CAPTURE_NS].tolist() == [k * PERIOD_NS for k in range(0, 30, 2)]
    assert (draft.frames, draft.coded_frames) == (15, 15)
    assert draft.lasted_s == pytest.approx(2.8)
    assert draft.size_bytes == sum(map(len, recording.jpegs))
    assert report.keep
    assert recording.extras == {"driver": "operator", "frames_by": "operator 0-14", "checks": "passed"}


def test_the_chunk_is_what_the_operator_asked_for_next_and_zero_after_the_end():
    recording, _, _ = record([moment(k, vx=(k + 1) / 100) for k in range(10)])
    chunks = recording.columns()[schema.ACTION_CHUNK].reshape(-1, 8, 3)
    asked = [(k + 1) / 100 for k in range(10)] + [0.0] * 8
    for place, start in enumerate(range(0, 10, 2)):
        assert chunks[place, :, 0] == pytest.approx(asked[start : start + 8])


def test_actions_beyond_the_contract_are_clipped():
    recording, _, _ = record([moment(k, vx=5.0) for k in range(4)])
    assert recording.columns()[schema.ACTION][:, 0].tolist() == pytest.approx([0.6, 0.6])


who = st.lists(st.tuples(st.sampled_from(Driver), st.booleans(), st.floats(-0.5, 0.5)), max_size=50)


@settings(max_examples=50)
@given(who)
def test_who_drove_and_whose_chunks_there_are(who):
    moments = [
        Moment(frame(k) if seen else None, ZERO_TWIST, Twist(vx, 0, 0), driver, running=True)
        for k, (driver, seen, vx) in enumerate(who)
    ]
    recording, draft, report = record(moments)
    if not recording.length:
        assert "length" in report.bad
        return
    columns = recording.columns()
    steps = [stamp // PERIOD_NS for stamp in columns[schema.CAPTURE_NS].tolist()]
    drivers = drivers_of(recording.extras["frames_by"], recording.length)
    assert drivers == [who[step][0] for step in steps]
    after = [driver for driver, _, _ in who] + [Driver.OPERATOR] * 8
    for step, chunk in zip(steps, columns[schema.ACTION_CHUNK], strict=True):
        by_operator = all(driver is Driver.OPERATOR for driver in after[step : step + 8])
        assert np.isfinite(chunk).all() == by_operator
        assert np.isnan(chunk).all() != by_operator
    assert draft.strip().drivers == drivers


def test_a_stop_and_a_held_robot_are_found():
    _, _, report = record([moment(k, running=k < 5, stopped="bumped" if k == 9 else None) for k in range(30)])
    assert {"stops", "held by safety"} <= set(report.bad)


def test_what_the_data_set_refuses_is_an_error_at_once():
    recording = Recording("go", {}, CONTRACT, SHAPE)
    draft = Draft(recording, CONTRACT)
    bad = Moment(frame(0), Twist(math.nan, 0, 0), None, Driver.OPERATOR, running=True)
    for _ in range(7):
        draft.step(bad)
    with pytest.raises(DatasetError, match=r"observation\.state must be finite"):
        draft.step(bad)


def test_frames_are_thinned_to_the_rate_of_the_contract():
    recording, _, _ = record([moment(k) for k in range(50)])
    assert np.diff(recording.columns()[schema.CAPTURE_NS]).tolist() == [NS_PER_S // 5] * 24
