import json

import numpy as np
import pytest

from mobile_vla.data import Dataset, merge_shards
from mobile_vla.data import schema as s
from mobile_vla.data.stats import QUANTILES, SAMPLE_ROWS, ImageHistogram, RunningStats
from mobile_vla.data.store import STATS_PATH, STATS_STATE_PATH


def kept(root):
    return json.loads((root / STATS_PATH).read_text())


def assert_exact(root):
    dataset, figures = Dataset.open(root), kept(root)
    for feature in dataset.features:
        if feature.is_image:
            continue
        values = dataset.columns([feature.name])[feature.name].reshape(-1, feature.width).astype(np.float64)
        held = figures[feature.name]
        assert held["count"] == [len(values)]
        for key, function in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
            assert held[key] == pytest.approx(function(values, axis=0), rel=1e-6, abs=1e-9), (feature.name, key)
        for key, share in QUANTILES.items():
            assert held[key] == pytest.approx(np.quantile(values, share, axis=0), rel=1e-6, abs=1e-9)


def test_figures_are_those_of_numpy_over_sessions_and_merges(record, tmp_path):
    record("d", [3, 5])
    root = record("d", [7, 2], first_seed=2)
    assert_exact(root)
    merge_shards(tmp_path / "all", [root, record("b", [4], first_seed=9)])
    assert_exact(tmp_path / "all")


def test_figures_lost_in_a_crash_are_counted_again(record):
    root = record("d", [3, 5])
    before = kept(root)
    (root / STATS_STATE_PATH).write_bytes(b"torn")
    (root / "meta/info.json").unlink()
    Dataset.open(root)
    after = kept(root)
    image = before.pop(s.IMAGE_FRONT), after.pop(s.IMAGE_FRONT)
    assert before == after
    assert np.ravel(image[0]["mean"]) == pytest.approx(np.ravel(image[1]["mean"]), abs=0.02)  # once coded as JPEG


def test_image_figures_lie_in_0_to_1(record):
    figures = kept(record("d", [40]))[s.IMAGE_FRONT]
    assert figures["count"] == [3]
    for key in ("min", "max", "mean", "std", *QUANTILES):
        assert np.shape(figures[key]) == (3, 1, 1)
        assert np.all((np.array(figures[key]) >= 0) & (np.array(figures[key]) <= 1))


def test_histogram_gives_exact_figures():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    histogram = ImageHistogram()
    histogram.add(0, pixels)
    histogram.add(1, pixels)
    sample = pixels[::2, ::2].reshape(-1, 3) / 255.0
    figures = histogram.summary()
    assert np.ravel(figures["mean"]) == pytest.approx(sample.mean(axis=0))
    assert np.ravel(figures["std"]) == pytest.approx(sample.std(axis=0))
    assert np.ravel(figures["q50"]) == pytest.approx(np.median(sample, axis=0), abs=1 / 255)


def test_missing_labels_count_for_nothing(contract):
    features = (*s.all_features(contract, (8, 8, 3)),)
    stats = RunningStats(features)
    columns = {f.name: np.zeros((4, f.width)) for f in stats.features}
    columns[s.GROUNDING_DISTANCE] = np.array([np.nan, 1.0, 3.0, np.inf])
    columns[s.RANGES] = np.full((4, s.RANGE_COLUMNS), np.nan)
    stats.update(columns, ImageHistogram())
    figures = stats.summary([])
    assert (figures[s.GROUNDING_DISTANCE]["mean"], figures[s.GROUNDING_DISTANCE]["max"]) == ([2.0], [3.0])
    assert figures[s.RANGES]["mean"] == [0.0] * s.RANGE_COLUMNS
    json.dumps(figures, allow_nan=False)


def test_quantiles_of_many_frames_come_from_an_even_sample(contract):
    stats = RunningStats(s.all_features(contract, (8, 8, 3)))
    rng = np.random.default_rng(0)
    for part in range(40):
        columns = {f.name: np.zeros((1000, f.width)) for f in stats.features}
        columns[s.GROUNDING_DISTANCE] = rng.random(1000) + (part >= 20)
        stats.update(columns, ImageHistogram())
    figures = stats.summary([])[s.GROUNDING_DISTANCE]
    assert len(stats.sample) == SAMPLE_ROWS
    for key, share in QUANTILES.items():
        assert figures[key] == pytest.approx([2 * share], abs=0.05)
