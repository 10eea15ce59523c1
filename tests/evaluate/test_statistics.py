import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.evaluate.statistics import Estimate, Paired, Share, Spread, bootstrap_totals, spl_term, wilson

counts = st.integers(1, 400).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))
metres = st.floats(0.0, 50.0, allow_nan=False)


@given(counts)
def test_the_interval_holds_the_share_and_lies_in_0_to_1(pair: tuple[int, int]) -> None:
    count, total = pair
    low, high = wilson(count, total)
    assert 0.0 <= low <= count / total <= high <= 1.0
    assert low < high


@given(counts)
def test_the_interval_of_the_failures_mirrors_that_of_the_successes(pair: tuple[int, int]) -> None:
    count, total = pair
    low, high = wilson(count, total)
    assert wilson(total - count, total) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(counts)
def test_more_of_the_same_narrows_the_interval(pair: tuple[int, int]) -> None:
    count, total = pair
    low, high = wilson(count, total)
    nearer_low, nearer_high = wilson(4 * count, 4 * total)
    assert nearer_high - nearer_low < high - low


def test_the_interval_is_the_published_one() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I


def test_nothing_out_of_nothing_is_unknown() -> None:
    share = Share(0, 0)
    assert math.isnan(share.value)
    assert share.to_dict() == {"count": 0, "total": 0, "value": None, "low": None, "high": None}
    assert str(share) == "-"


@pytest.mark.parametrize(("count", "total"), [(3, 2), (-1, 4)])
def test_an_impossible_share_is_refused(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="share of"):
        Share(count, total)


@given(st.booleans(), metres, metres)
def test_spl_is_in_0_to_1_and_0_without_success(success: bool, shortest_m: float, path_m: float) -> None:
    term = spl_term(success, shortest_m, path_m)
    assert 0.0 <= term <= 1.0
    assert success or term == 0.0


def test_spl_is_the_shortest_path_over_the_driven_one() -> None:
    assert spl_term(True, 2.0, 4.0) == 0.5
    assert spl_term(True, 2.0, 1.9) == 1.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_percentiles_are_in_order_and_within_the_values(values: list[float]) -> None:
    spread = Spread.of(values)
    assert min(values) <= spread.p10 <= spread.p50 <= spread.p90 <= max(values)
    assert spread.total == len(values)


def test_a_spread_of_nothing_is_unknown_and_one_of_nan_refused() -> None:
    assert Spread.of([]).to_dict()["p50"] is None
    with pytest.raises(ValueError, match="finite"):
        Spread.of([1.0, math.nan])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_pairs_are_counted_once_each(outcomes: list[tuple[bool, bool]]) -> None:
    paired = Paired.of(outcomes)
    assert paired.only_first + paired.only_second + paired.both + paired.neither == len(outcomes)
    assert 0.0 <= paired.p_value <= 1.0
    assert Paired.of((b, a) for a, b in outcomes).p_value == pytest.approx(paired.p_value)


def test_ten_to_nothing_is_no_accident() -> None:
    assert Paired(10, 0, 5, 5).p_value == pytest.approx(2 / 2**10)
    assert Paired(0, 0, 5, 5).p_value == 1.0


def test_the_bootstrap_knows_that_clusters_are_alike() -> None:
    rng = np.random.default_rng(0)
    counts = np.full(20, 50)
    alike = Estimate.of(np.arange(20) * 50.0, counts, rng)
    assert alike.low < alike.value == 9.5 < alike.high
    assert alike.high - alike.low == pytest.approx(2 * 1.96 * np.std(np.arange(20)) / math.sqrt(20), rel=0.15)
    same = Estimate.of(np.full(20, 25.0), counts, rng)
    assert (same.low, same.value, same.high) == (0.5, 0.5, 0.5)


def test_no_mean_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Estimate.of(np.zeros(0), np.zeros(0, np.int64), np.random.default_rng(0))


def test_an_estimate_in_another_unit() -> None:
    assert Estimate(0.2, 0.1, 0.4).scaled(0.5) == Estimate(0.1, 0.05, 0.2)


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 1000))
def test_totals_are_of_as_many_clusters_as_there_are(clusters: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = rng.uniform(-1.0, 1.0, (clusters, columns))
    counted = np.column_stack([parts, np.ones(clusters), 2 * parts[:, 0]])
    totals = bootstrap_totals(counted, rng, draws=20)
    assert totals.shape == (21, columns + 2)
    assert totals[0] == pytest.approx(counted.sum(axis=0))
    assert totals[:, columns] == pytest.approx(clusters)
    assert totals[:, columns + 1] == pytest.approx(2 * totals[:, 0])  # the columns are drawn together
    assert (totals[:, :columns] <= clusters * parts.max(axis=0) + 1e-9).all()


def test_a_difference_that_is_the_same_everywhere_has_no_interval() -> None:
    rng = np.random.default_rng(3)
    mine = rng.uniform(0.0, 1.0, 40)
    totals = bootstrap_totals(np.column_stack([mine, mine + 0.1]), rng) / 40
    less = Estimate.of_draws(totals[:, 0] - totals[:, 1])
    assert (less.low, less.value, less.high) == pytest.approx((-0.1, -0.1, -0.1))
    alone = Estimate.of_draws(totals[:, 0])
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * mine.std() / math.sqrt(40), rel=0.15)


def test_nothing_can_be_drawn_from_nothing() -> None:
    with pytest.raises(ValueError, match="nothing to draw from"):
        bootstrap_totals(np.zeros((0, 2)), np.random.default_rng(0))
