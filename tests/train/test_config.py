from pathlib import Path

import pytest

from mobile_vla.core import ConfigError
from mobile_vla.train.config import TrainConfig, read_config


def test_without_file_and_overrides_it_is_the_default() -> None:
    assert read_config(None, []) == TrainConfig()


def test_a_file_and_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("seed: 5\nsee:\n  steps: 10\n  learning_rate: 1\n", encoding="utf-8")
    config = read_config(path, ["see.steps=20", "network.memory=64"])
    assert (config.seed, config.see.steps, config.see.learning_rate, config.network.memory) == (5, 20, 1.0, 64)
    assert config.see.batch == TrainConfig().see.batch


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("sed=1", "did you mean seed"),
        ("see.step=1", "did you mean see.steps"),
        ("see.steps=many", "does not fit"),
        ("see=3", "needs keys under see"),
        ("steps", "write key=value"),
    ],
)
def test_a_bad_key_or_value_is_named(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_config(None, [override])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        read_config(tmp_path / "nowhere.yaml", [])
