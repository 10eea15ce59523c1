from pathlib import Path

import numpy as np
import pytest

from mobile_vla.evaluate.baselines import BASELINES, Sources, judged_frames, labels

from .recordings import CONTRACT, FRAMES, make_chunks, written


def test_infinite_numbers_are_no_labels(tmp_path: Path) -> None:
    chunks = make_chunks(episodes=2)
    chunks[0, 1, 0, 2], chunks[0, 2, 4, 0] = np.inf, -np.inf
    dataset = written(tmp_path / "data", chunks)
    read = labels(dataset.episode(0), CONTRACT)
    assert judged_frames(read).tolist() == [True, False, True, True, True]
    assert np.isnan(read[2, 4, 0])
    assert np.nanmax(read) < np.inf


def test_every_row_of_the_constant_is_the_mean_of_what_is_known(tmp_path: Path) -> None:
    chunks = make_chunks(noise=0.0, episodes=4)
    chunks[:] = np.linspace(0.1, 0.4, 4, dtype=np.float32)[:, None, None, None]
    chunks[0, :, 3:] = np.nan
    chunks[:, :, 7] = np.nan
    dataset = written(tmp_path / "data", chunks)
    made = Sources(dataset, [0, 1, 2]).predictions(dataset.episode(3))
    constant = made["constant"]
    assert tuple(made) == BASELINES
    assert all(prediction.shape == (FRAMES, 8, 3) and np.isfinite(prediction).all() for prediction in made.values())
    assert constant[:, :3] == pytest.approx(0.2)
    assert constant[:, 3:7] == pytest.approx(0.25)
    # nobody knows the last row: the mean of all that is known stands in
    assert constant[:, 7] == pytest.approx((0.1 * 3 + (0.2 + 0.3) * 7) / 17)


def test_who_is_judged_is_left_out_exactly(tmp_path: Path) -> None:
    chunks = make_chunks(episodes=6)
    dataset = written(tmp_path / "data", chunks)
    for index in range(6):
        others = [other for other in range(6) if other != index]
        without = Sources(dataset, range(6)).predictions(dataset.episode(index))
        afresh = Sources(dataset, others).predictions(dataset.episode(index))
        for name in BASELINES:
            assert without[name] == pytest.approx(afresh[name], abs=1e-6)


def test_episodes_without_a_scene_are_strangers(tmp_path: Path) -> None:
    chunks = make_chunks(noise=0.0, episodes=3)
    chunks[0], chunks[1:] = 0.0, 0.3
    dataset = written(tmp_path / "data", chunks, scene=lambda number: None)
    made = Sources(dataset, range(3)).predictions(dataset.episode(1))
    assert made["constant"] == pytest.approx(0.15)


def test_hold_last_knows_what_was_executed_before_and_nothing_later(tmp_path: Path) -> None:
    chunks = make_chunks(episodes=3)
    dataset = written(tmp_path / "data", chunks)
    held = Sources(dataset, [0, 1]).predictions(dataset.episode(2))["hold_last"]
    assert (held[0] == 0.0).all()
    for row in range(CONTRACT.horizon):
        assert held[1:, row] == pytest.approx(chunks[2, :-1, 0])
