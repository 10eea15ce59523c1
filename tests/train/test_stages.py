from pathlib import Path

import pytest

from mobile_vla.checkpoint import Checkpoint, save
from mobile_vla.core import ActionContract
from mobile_vla.data import Dataset, load_split
from mobile_vla.data.store import SPLIT_PATH
from mobile_vla.train.stages import divided, hashes_of, stands

from .vla_data import written


def test_a_stage_stands_once_it_is_saved_and_as_long_as_it_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not stands(tmp_path / "see")
    save(tmp_path / "see", Checkpoint("test", {}, ActionContract(), {}, {}))
    assert stands(tmp_path / "see")
    (tmp_path / "see" / "config.json").write_text("{}")
    assert not stands(tmp_path / "see")
    assert "is damaged" in capsys.readouterr().out


def test_data_keep_the_split_that_they_have(tmp_path: Path) -> None:
    dataset = Dataset.open(written(tmp_path / "data"))
    before = load_split(dataset)
    assert divided(dataset) == before
    (dataset.root / SPLIT_PATH).unlink()
    made = divided(dataset)
    assert made.fractions != before.fractions
    assert load_split(dataset) == made
    assert hashes_of(dataset)["split_hash"] == made.split_hash
