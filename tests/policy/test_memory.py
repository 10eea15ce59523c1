from pathlib import Path

import pytest
import torch
from torch import nn

from mobile_vla.core import ConfigError
from mobile_vla.policy import memory
from mobile_vla.policy.memory import require_memory


def test_a_network_that_does_not_fit_is_refused_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "meminfo"
    monkeypatch.setattr(memory, "MEMINFO", told)
    with torch.device("meta"):
        network = nn.Linear(2**14, 2**14)  # 1 GiB
    told.write_text("MemTotal: 8388608 kB\nMemAvailable:    1572864 kB\n")
    require_memory(network)
    told.write_text("MemTotal: 8388608 kB\nMemAvailable:     524288 kB\n")
    with pytest.raises(ConfigError, match=r"268,451,840 parameters, 1.0 GiB.* 0.5 GiB.*smaller backbone"):
        require_memory(network)


def test_where_nothing_is_told_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    require_memory(nn.Linear(2, 2))
