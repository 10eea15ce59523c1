import shutil
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.core import BaseError, ConfigError, DatasetError, ManualClock, Status
from mobile_vla.data import Dataset, EpisodeWriter, schema, validate
from mobile_vla.record.disk import DiskGuard
from mobile_vla.record.plan import Plan
from mobile_vla.record.session import Phase, SessionConfig
from mobile_vla.teleop import NO_SHARES, Button
from robot.simple import FollowingBase
from runtime.scripted import ScriptedPolicy

from .rig import CONTRACT, LIMIT_S, PLAN, SHAPE, NoisyCamera, SessionRig, cell, push, still
from .test_hands import InlinePilot

GOOD = [*push(25, Button.START), *still(3, Button.STOP)]
"""An episode that the checks propose to keep."""
POOR = [*still(25, Button.START), *still(3, Button.STOP)]


def run(root, *parts, **settings):
    rig = SessionRig(root, [*still(5), *(moment for part in parts for moment in part)], **settings)
    rig.run()
    return rig


def names(root):
    return [record.extras[schema.EXTRA_SCENARIO] for record in Dataset.open(root).records]


def said(rig, words):
    return any(words in sentence for sentence in rig.audience.said)


def test_an_episode_is_recorded_checked_and_kept(tmp_path):
    rig = run(tmp_path / "data", GOOD, still(3, Button.STOP))
    assert rig.summary == (rig.summary.__class__)(kept=1, discarded=0, episodes=1, frames=12)
    assert rig.audience.reports[0].keep
    episode = Dataset.open(tmp_path / "data").episode(0)
    assert episode.instruction == "a en"
    assert (
        episode.record.extras.items()
        >= {
            "scenario": "a_close",
            "language": "en",
            "driver": "operator",
            "frames_by": "operator 0-11",
            "checks": "passed",
            "outcome": "stopped by the operator",
        }.items()
    )
    assert episode[schema.ACTION][:, 0] == pytest.approx([0.6] * 12)
    assert (np.diff(episode[schema.CAPTURE_NS]) == 200_000_000).all()
    assert validate(tmp_path / "data") == []


def test_the_plan_goes_on_by_what_was_kept_and_survives_a_restart(tmp_path):
    root = tmp_path / "data"
    keep = still(2, Button.STOP)
    rig = run(root, GOOD, keep, GOOD, still(2, Button.DISCARD), GOOD, keep)
    assert names(root) == ["a_close", "a_close"]
    assert [record.instruction for record in Dataset.open(root).records] == ["a en", "a ko"]
    assert rig.session.status.cell.name == "b_close"
    again = run(root, GOOD, keep)
    assert again.session.status.progress.done == 3
    assert names(root) == ["a_close", "a_close", "b_close"]
    done = run(root, GOOD, keep, still(3, Button.START))
    assert done.session.status.cell is None
    assert said(done, "the plan is done")
    assert len(names(root)) == 4
    assert validate(root) == []


def test_start_in_review_follows_the_proposal_and_begins_the_next(tmp_path):
    rig = run(tmp_path / "data", GOOD, push(25, Button.START), still(3, Button.STOP), POOR, push(25, Button.START))
    # the second START kept the first; POOR's START kept the second; the last START dropped the poor one and began anew
    assert rig.summary.kept == 2
    assert rig.summary.discarded == 2  # the poor one, and the one that the end cut off
    assert said(rig, "the checks propose so (zero actions)")
    assert said(rig, "the session ended while it was recorded")


def test_discard_and_repeat(tmp_path):
    rig = run(
        tmp_path / "data",
        push(20, Button.START),
        still(3, Button.DISCARD),
        push(20, Button.START),
        still(3, Button.REPEAT),
        GOOD,
        still(3, Button.REPEAT),
        GOOD,
        still(3, Button.STOP),
        still(3, Button.DISCARD),
    )
    assert (rig.summary.kept, rig.summary.discarded) == (1, 3)
    assert said(rig, "there is no open episode to discard")


def test_repeat_stays_at_a_cell_that_has_enough(tmp_path):
    plan = Plan((cell("a", 1), cell("b", 1)))
    run(tmp_path / "data", GOOD, still(3, Button.STOP), still(2, Button.REPEAT), GOOD, still(3, Button.STOP), plan=plan)
    assert names(tmp_path / "data") == ["a_close", "a_close"]


def test_next_goes_on_and_first_begins_elsewhere(tmp_path):
    keep = still(3, Button.STOP)
    rig = run(tmp_path / "data", still(2, Button.NEXT), GOOD, keep, still(2, Button.NEXT), GOOD, keep)
    assert names(tmp_path / "data") == ["b_close", "a_close"]
    assert not said(rig, "decide about")
    rig = run(tmp_path / "other", GOOD, still(2, Button.NEXT), first=PLAN.cells[1])
    assert said(rig, "decide about the open episode first")
    assert names(tmp_path / "other") == ["b_close"]


def test_review_follows_the_proposal_by_itself_after_its_time(tmp_path):
    config = SessionConfig(review_s=1.0)
    rig = run(tmp_path / "data", GOOD, still(15), POOR, still(15), config=config)
    assert (rig.summary.kept, rig.summary.discarded) == (1, 1)
    assert rig.session.status.phase is Phase.READY


def test_an_episode_ends_by_itself(tmp_path):
    rig = run(tmp_path / "data", push(60, Button.START), config=SessionConfig(longest_s=3.0))
    assert said(rig, "an episode lasts 3 s at most")
    assert Dataset.open(tmp_path / "data").episode(0).record.length == 15


def test_quit_keeps_what_is_under_review_and_drops_what_is_open(tmp_path):
    root = tmp_path / "data"
    assert run(root, GOOD, still(20, Button.QUIT)).summary.kept == 1
    assert run(root, POOR, still(20, Button.QUIT)).summary.discarded == 1
    rig = run(root, push(20, Button.START), still(20, Button.QUIT))
    assert rig.summary.discarded == 1
    assert len(rig.steps) == 26
    assert len(names(root)) == 1


def test_an_emergency_stop_ends_the_episode_which_is_not_proposed_and_nothing_starts_before_resume(tmp_path):
    rig = run(
        tmp_path / "data",
        push(20, Button.START),
        push(5, Button.EMERGENCY_STOP),
        still(3, Button.DISCARD),
        still(3, Button.START),
        still(3, Button.REARM),
        still(3, Button.START),
        still(6, Button.RESUME),
        GOOD,
        still(3, Button.STOP),
    )
    assert "stops" in rig.audience.reports[0].bad
    assert said(rig, "the robot is in emergency stop: re-arm or resume first")
    assert said(rig, "the robot is in protective stop: re-arm or resume first")
    assert (rig.summary.kept, rig.summary.discarded) == (1, 1)


def test_buttons_out_of_place_are_answered(tmp_path):
    rig = run(tmp_path / "data", still(2, Button.STOP), still(2, Button.REPLAY), GOOD[:10], still(2, Button.START))
    assert said(rig, "nothing is being recorded")
    assert said(rig, "there is no kept episode to replay yet")
    assert said(rig, "an episode is under way: stop it first")


def test_without_frames_nothing_starts_and_an_episode_without_one_is_dropped(tmp_path):
    class Dead(NoisyCamera):
        def read(self, timeout_s):
            return super().read(timeout_s) if self.clock.now_ns() < 600_000_000 else None

    rig = SessionRig(tmp_path / "data", [*still(20), *still(3, Button.START)])
    rig.loop._camera = Dead(rig.clock)
    rig.loop._camera.open()
    rig.run()
    assert said(rig, "the camera has given no frame for a second")
    rig = SessionRig(tmp_path / "other", [*still(8), *push(5, Button.START), *still(3, Button.STOP)])
    rig.loop._camera = Dead(rig.clock)
    rig.loop._camera.open()
    rig.run()
    assert said(rig, "it holds no frame")


def test_a_frozen_camera_is_found(tmp_path):
    rig = SessionRig(tmp_path / "data", [*still(5), *GOOD])
    rig.camera.frozen = np.full(SHAPE, 90, np.uint8)
    rig.run()
    assert "frozen frames" in rig.audience.reports[0].bad


def test_a_film_of_the_episode_under_review_and_of_the_last_kept_one(tmp_path):
    root = tmp_path / "data"
    films = []

    def wait_for_film(rig):
        deadline = time.monotonic() + LIMIT_S
        while not rig.session._filming.done():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    rig = SessionRig(
        root, [*still(5), *GOOD, *still(2, Button.REPLAY), *still(3, Button.STOP), *still(3, Button.REPLAY)]
    )
    listen = rig.listen

    def listen_and_wait(step):
        listen(step)
        if rig.session._filming is not None:
            wait_for_film(rig)
            films.append(rig.session.film.read_bytes())

    rig.loop._listener = listen_and_wait
    rig.run()
    assert rig.session.film == tmp_path / "data-last.mp4"
    assert len(films) == 2
    assert len([sentence for sentence in rig.audience.said if "as a film" in sentence]) == 2
    assert validate(root) == []


def test_a_full_disk_ends_the_session_and_keeps_what_is_good(tmp_path, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    free = [10**9]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free[0]))
    guard = DiskGuard(root, 128, 5.0, min_free_bytes=10**6)
    rig = SessionRig(root, [*still(5), *push(60, Button.START)], guard=guard)
    listen = rig.listen

    def fill_up(step):
        free[0] = 10**9 if len(rig.steps) < 30 else 10**6
        listen(step)

    rig.loop._listener = fill_up
    rig.run()
    assert isinstance(rig.session.failure, DatasetError)
    assert "nearly full" in str(rig.session.failure)
    assert len(rig.steps) < 60
    assert rig.summary.kept == 1
    assert validate(root) == []
    with pytest.raises(DatasetError, match="MiB are free"):
        EpisodeWriter(root, CONTRACT, SHAPE, {})


def test_what_the_disk_refuses_ends_the_session(tmp_path, monkeypatch):
    rig = SessionRig(tmp_path / "data", [*still(5), *GOOD, *still(30, Button.STOP)])

    def refuse(*arguments):
        raise DatasetError("could not write: no space")

    monkeypatch.setattr("mobile_vla.data.writer.write_durably", refuse)
    rig.run()
    assert str(rig.session.failure) == "could not write: no space"
    assert (rig.summary.kept, rig.summary.episodes) == (0, 0)
    assert rig.base.is_stopped


def test_a_camera_that_changes_its_size_ends_the_session(tmp_path):
    rig = SessionRig(tmp_path / "data", [*still(5), *push(30, Button.START)])
    rig.camera.shape = (16, 16, 3)
    rig.run()
    assert "must be RGB uint8" in str(rig.session.failure)
    assert rig.summary.discarded == 1


def test_a_base_that_goes_away_discards_what_is_open_and_keeps_what_is_finished(tmp_path):
    class Leaving(FollowingBase):
        def send(self, twist):
            if len(self.sent) == 60:
                raise BaseError("the port is gone")
            return super().send(twist)

    clock = ManualClock()
    script = [*still(5), *GOOD, *still(3, Button.STOP), *push(40, Button.START)]
    rig = SessionRig(tmp_path / "data", script, base=Leaving(clock))
    rig.base.clock = rig.clock
    with pytest.raises(BaseError):
        rig.run()
    assert (rig.summary.kept, rig.summary.discarded) == (1, 1)
    assert validate(tmp_path / "data") == []


def with_policy(policy):
    return lambda rig: InlinePilot(policy, rig.clock, rig.loop.velocities)


def test_a_correction_is_recorded_with_who_drove_each_frame(tmp_path):
    rig = run(
        tmp_path / "data",
        still(20, Button.START),
        push(10, shares=(0, 0, 1.0)),
        still(10),
        still(20, Button.RESUME),
        still(3, Button.STOP),
        still(3, Button.STOP),
        pilot=with_policy(ScriptedPolicy()),
    )
    episode = Dataset.open(tmp_path / "data").episode(0)
    assert episode.record.extras["driver"] == "policy corrected by operator"
    assert episode.record.extras["frames_by"] == "policy 0-9, operator 10-14, nobody 15-19, policy 20-29"
    assert episode[schema.ACTION][2:10, 0] == pytest.approx([0.3] * 8)
    assert episode[schema.ACTION][10:15, 2] == pytest.approx([1.5] * 5)
    assert not episode[schema.ACTION][15:20].any()
    labelled = np.isfinite(episode[schema.ACTION_CHUNK]).all(axis=1)
    assert labelled.tolist() == [False] * 10 + [True] + [False] * 19
    assert rig.audience.reports[0].keep


def test_a_policy_that_arrives_ends_the_episode(tmp_path):
    policy = ScriptedPolicy(status=lambda step: Status.ARRIVED if step > 12 else Status.DRIVING)
    rig = run(tmp_path / "data", still(60, Button.START), still(3, Button.STOP), pilot=with_policy(policy))
    assert said(rig, "the policy says arrived")
    assert names(tmp_path / "data") == ["a_close"]
    assert Dataset.open(tmp_path / "data").episode(0).record.extras["driver"] == "policy"


moments = st.lists(
    st.tuples(
        st.sampled_from([NO_SHARES, (1.0, 0.0, 0.0), (0.0, 0.5, -1.0)]),
        st.sets(st.sampled_from(sorted(set(Button) - {Button.QUIT, Button.REPLAY})), max_size=2).map(tuple),
        st.integers(1, 25),
    ),
    max_size=14,
)


@settings(max_examples=25)
@given(moments, st.booleans())
def test_whatever_is_pressed_the_data_set_holds_what_was_kept_and_is_sound(tmp_path_factory, moments, with_a_policy):
    root = tmp_path_factory.mktemp("session") / "data"
    script = [each for shares, buttons, times in moments for each in push(times, *buttons, shares=shares)]
    pilot = with_policy(ScriptedPolicy()) if with_a_policy else None
    rig = SessionRig(root, [*still(5), *script], pilot=pilot, config=SessionConfig(longest_s=5.0, review_s=2.0))
    summary = rig.run()
    assert rig.session.failure is None
    dataset = Dataset.open(root)
    assert len(dataset) == summary.kept == summary.episodes
    assert dataset.total_frames == summary.frames
    assert validate(root) == []
    began = sum(sentence.startswith("recording ") for sentence in rig.audience.said)
    assert began == summary.kept + summary.discarded
    assert rig.base.is_stopped


def test_a_first_cell_must_be_of_the_plan():
    from mobile_vla.record.plan import one_of

    with pytest.raises(ConfigError):
        one_of(PLAN, "c_close")
