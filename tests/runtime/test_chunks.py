import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ActionChunk, Twist
from mobile_vla.runtime import ChunkQueue, Plan

PERIOD_NS = NS_PER_S // 10


def chunk(stamp_ns, horizon=8, label=0.0):
    """Row k is (label, 0, k)."""
    velocities = np.zeros((horizon, 3), dtype=np.float32)
    velocities[:, 0] = label
    velocities[:, 2] = np.arange(horizon)
    return ActionChunk(velocities, stamp_ns, 10.0)


stamps = st.integers(0, 5 * NS_PER_S)


def test_an_empty_queue_plans_nothing():
    assert ChunkQueue().plan(0) == Plan(None, None)


@given(stamps, st.integers(1, 12), st.integers(-3 * NS_PER_S, 3 * NS_PER_S))
def test_the_row_is_the_one_whose_time_is_now_however_late_the_chunk_came(stamp_ns, horizon, age_ns):
    queue = ChunkQueue()
    assert queue.offer(chunk(stamp_ns, horizon))
    plan = queue.plan(stamp_ns + age_ns)
    assert plan.capture_ns == stamp_ns
    if 0 <= age_ns < horizon * PERIOD_NS:
        assert plan.twist == Twist(0.0, 0.0, age_ns // PERIOD_NS)
    else:
        assert plan.twist is None


@given(st.lists(stamps, min_size=1), stamps)
def test_the_newest_observation_wins_in_whatever_order_chunks_come(order, now_ns):
    queue = ChunkQueue()
    newest = -1
    for stamp_ns in order:
        assert queue.offer(chunk(stamp_ns)) == (stamp_ns >= newest)
        newest = max(newest, stamp_ns)
    assert queue.plan(now_ns).capture_ns == max(order)


def test_a_newer_chunk_takes_over_at_once_and_a_second_one_on_the_same_frame_too():
    queue = ChunkQueue()
    queue.offer(chunk(0, label=1.0))
    queue.offer(chunk(PERIOD_NS, label=2.0))
    assert queue.plan(3 * PERIOD_NS).twist == Twist(2.0, 0.0, 2.0)
    assert queue.offer(chunk(PERIOD_NS, label=3.0))
    assert queue.plan(3 * PERIOD_NS).twist == Twist(3.0, 0.0, 2.0)


def test_an_exhausted_chunk_still_tells_how_old_its_frame_is():
    queue = ChunkQueue()
    queue.offer(chunk(0, horizon=2))
    assert queue.plan(2 * PERIOD_NS) == Plan(None, 0)


def test_a_cleared_queue_takes_an_older_chunk():
    queue = ChunkQueue()
    queue.offer(chunk(10))
    queue.clear()
    assert queue.plan(10) == Plan(None, None)
    assert queue.offer(chunk(5))
