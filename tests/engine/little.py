"""Small networks to export, as in the tests of the policies."""

import torch

from mobile_vla.core import ActionContract
from mobile_vla.policy.heads import HeadConfig
from mobile_vla.policy.kinds import kind_named
from mobile_vla.policy.vla import VlaNetwork

CASES = {
    "kosmos_clip": ("kosmos_clip", {}, HeadConfig("lstm", 3, 24, 1, (24,))),
    "kosmos_lstm, words first": (
        "kosmos_lstm",
        {"prompt": "instruction_first"},
        HeadConfig("transformer", 3, 24, 1, (24,), 4),
    ),
    "clip_lstm, without end": ("clip_lstm", {}, HeadConfig("flow", 0, 24, 1, (24,), flow_steps=3)),
}


def little(case: str) -> VlaNetwork:
    name, options, head = CASES[case]
    kind = kind_named(name)
    towers = dict.fromkeys(kind.config.towers, "tiny")
    torch.manual_seed(3)
    network = kind.make(
        kind.config(height=96, width=192, pointer=16, head=head, **towers, **options), ActionContract(horizon=4)
    )
    return network.eval()
