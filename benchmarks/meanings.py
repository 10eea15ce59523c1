"""What the answer of a full-size policy's towers holds of the words: its own output of the meaning, against the truth.

    python benchmarks/meanings.py runs/kosmos/final --data runs/first/data/drive-3

Phrases are drawn in both languages from phrasings taught and never taught, three quarters of them about a target with
no side, left or right in turn, the others about a motion. The frame is the first of the data; it does not change what
the words mean.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from machine import describe
from mobile_vla.core import Goal, Mode, Side
from mobile_vla.data import Dataset
from mobile_vla.language import LANGUAGES, SPLITS, Grammar
from mobile_vla.policy.text import SLOT_SIZES, goal_slots
from mobile_vla.policy.vla import Questions, VlaNetwork
from mobile_vla.policy.weights import load_network
from mobile_vla.train.see import NAMES

BATCH = 8


@torch.inference_mode()
def shares_right(network: VlaNetwork, pixels: torch.Tensor, phrases: int, split: str) -> dict[str, float]:
    """Share of phrases whose mode, kind, colour and side are read right."""
    grammar, rng = Grammar.load(), np.random.default_rng(0)
    plain = [mode for mode in Mode if mode is not Mode.GO]
    goals = [
        Goal(plain[number // 4 % len(plain)])
        if number % 4 == 3
        else Goal(Mode.GO, NAMES[int(rng.integers(len(NAMES)))], (None, *Side)[number % 4])
        for number in range(phrases)
    ]
    texts = [grammar.phrase(goal, rng, LANGUAGES[place % 2], split) for place, goal in enumerate(goals)]
    right = np.zeros(len(SLOT_SIZES))
    for start in range(0, phrases, BATCH):
        part = slice(start, start + BATCH)
        meaning = network(Questions(pixels, network.tokenise(texts[part]))).meaning
        read = torch.stack([each.argmax(1) for each in meaning.split(list(SLOT_SIZES.values()), 1)], dim=1)
        right += (read == torch.tensor([goal_slots(goal) for goal in goals[part]])).sum(0).numpy()
    return dict(zip(SLOT_SIZES, (right / phrases).round(3).tolist(), strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, help="checkpoint of a full-size policy")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data set to take a frame from")
    parser.add_argument("--phrases", type=int, default=400, metavar="N", help="of each split (default 400)")
    options = parser.parse_args()
    describe()
    network = load_network(options.policy)
    assert isinstance(network, VlaNetwork), f"{options.policy} is no full-size policy"
    dataset = Dataset.open(options.data)
    pixels = torch.from_numpy(dataset.episode(dataset.episode_indices[0]).images(0, 1).copy())
    for split in SPLITS:
        shares = shares_right(network, pixels, options.phrases, split)
        print(f"{split}:", ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
