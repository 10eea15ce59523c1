"""What ``benchmarks/loop_profile.py`` makes of samples and of a short drive."""

from collections import Counter

import pytest

pytestmark = pytest.mark.needs("torch")

SRC = "/x/src/mobile_vla"
STEP = f"_infer ({SRC}/runtime/loop.py:1);consider ({SRC}/runtime/decide.py:2);step ({SRC}/policy/compact.py:3)"


def test_a_sample_counts_for_the_innermost_frame_that_is_ours():
    from loop_profile import part_of

    for inner, part in {
        f"forward ({SRC}/policy/compact.py:9);conv2d (/torch/nn.py:1)": "eye",
        f"Eye.forward ({SRC}/policy/compact.py:9)": "eye",
        f"fit ({SRC}/policy/preprocess.py:9)": "fit and normalise",
        f"read ({SRC}/policy/compact.py:9);point ({SRC}/policy/compact.py:8)": "words and pointer",
        f"decide ({SRC}/policy/compact.py:9);forward (/torch/rnn.py:1)": "memory and head",
        f"steps ({SRC}/engine/policy.py:9);run ({SRC}/engine/backends/torch_.py:8)": "engine",
        f"a_new_function ({SRC}/policy/compact.py:9)": "policy, around the network",
        "linear (/torch/nn.py:1)": "policy, around the network",
    }.items():
        assert part_of([*STEP.split(";"), *inner.split(";")]) == part
    assert "not ours" in part_of(["_bootstrap (/usr/lib/threading.py:1)"])


def test_the_start_of_the_program_is_not_of_the_drive():
    from loop_profile import count_stacks

    control = f"thread (0x1): MainThread;run_threaded ({SRC}/runtime/loop.py:1);plan ({SRC}/runtime/chunks.py:1)"
    inference = f"thread (0x2): drive-inference;_bootstrap (/lib/threading.py:1);{STEP}"
    lines = [
        "thread (0x1): MainThread;<module> (a.py:1);_find_and_load (<frozen importlib._bootstrap>:1) 700",
        f"{control} 3",
        f"{inference} 4",
        f"{inference};forward ({SRC}/policy/compact.py:1) 5",
    ]
    assert count_stacks(lines) == Counter(
        {
            ("drive-control", "chunk queue"): 3,
            ("drive-inference", "policy, around the network"): 4,
            ("drive-inference", "eye"): 5,
        }
    )


def test_the_stretches_of_a_short_drive_make_up_the_way():
    import torch

    from loop_profile import drive
    from mobile_vla.policy.weights import load_policy

    torch.set_num_threads(1)
    way = drive(load_policy(), 64, 48, 30.0, 10.0, 2.0)
    *stretches, whole = way.values()
    assert len(whole) >= 2
    for parts, total in zip(zip(*stretches, strict=True), whole, strict=True):
        assert all(part >= 0 for part in parts)
        assert sum(parts) == pytest.approx(total)
