import pytest
import torch

from mobile_vla.core import ActionContract
from mobile_vla.policy.compact import CompactConfig, CompactNetwork


@pytest.fixture
def network() -> CompactNetwork:
    torch.manual_seed(3)
    config = CompactConfig(stem=4, middle=8, top=16, embedding=8, column=4, words=16, memory=16)
    return CompactNetwork(config, ActionContract()).eval()
