import json

import numpy as np
import pytest
import torch

from mobile_vla.core import Frame, Instruction, Observation, Twist
from mobile_vla.policy.weights import load_policy
from mobile_vla.ros import topics
from mobile_vla.ros.bag import BagWriter
from mobile_vla.ros.messages import belief_message, chunk_message, image_message, odometry, string

GO = "go to the red cup"
BEGAN_NS = 1_700_000_000_000_000_000


@pytest.fixture
def bag(policy, tmp_path):
    """Five decisions of the small policy on noise, recorded."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    decides = load_policy(policy)
    state = decides.reset(Instruction(GO))
    recorded = (topics.ACTIVE_INSTRUCTION, topics.IMAGE, topics.ODOM, topics.CHUNK, topics.BELIEF)
    with BagWriter(tmp_path / "bag", {f"/{topic.name}": topic for topic in recorded}) as writer:

        def write(topic, message, stamp_ns):
            writer.write(f"/{topic.name}", message, stamp_ns)

        write(topics.ACTIVE_INSTRUCTION, string(GO), BEGAN_NS)
        for number in range(1, 6):
            stamp = BEGAN_NS + number * 200_000_000
            frame = Frame(rng.integers(0, 256, (96, 192, 3), dtype=np.uint8), stamp, "wire", "front", number)
            velocity = Twist(0.1 * number, 0.0, 0.0)
            step = decides.step(Observation(frame, velocity), state)
            state = step.state
            write(topics.ODOM, odometry(velocity, (0.0, 0.0, 0.0), stamp - 1), stamp)
            write(topics.IMAGE, image_message(frame, stamp, "camera"), stamp)
            write(topics.BELIEF, belief_message(step.grounding, GO, 5.0, stamp), stamp + 20_000_000)
            write(topics.CHUNK, chunk_message(step.chunk, stamp), stamp + 20_000_000)
    return tmp_path / "bag"


def test_the_same_policy_decides_the_same_and_another_one_does_not(call, bag, policy, policy_of_another_robot):
    code, out, _ = call("replay", bag, "--policy", policy, "--json")
    assert code == 0
    same = json.loads(out)
    assert (same["decisions"], same["frames_missing"], same["frames_lossless"]) == (5, 0, True)
    assert same["same_status"] == 5
    assert same["largest_difference"] < 1e-5
    code, out, _ = call("replay", bag, "--policy", policy_of_another_robot, "--json")
    assert code == 0  # another policy is meant to differ
    other = json.loads(out)
    assert other["same_to_the_bit"] == 0
    assert other["largest_difference"] > 1e-3
    assert other["mean_difference_of_standing_still"] == same["mean_difference_of_standing_still"]


def test_in_words(call, bag, policy):
    code, out, _ = call("replay", bag, "--policy", policy)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "5 decisions again, frames raw; 0 lack their frame"
    assert lines[2] == "status the same: 5 of 5"
    assert lines[3].startswith("mean difference linear_x: ")
    assert lines[-1].startswith("largest difference: ")


def test_a_single_file_does_too(call, bag, policy):
    assert call("replay", bag / "bag.mcap", "--policy", policy)[1].startswith("5 decisions again")


def test_what_is_no_recording_of_a_drive_is_refused(refuse, policy, tmp_path):
    assert "there is no bag" in refuse("replay", tmp_path / "nothing", "--policy", policy)
    with BagWriter(tmp_path / "empty", {"/odom": topics.ODOM}) as writer:
        writer.write("/odom", odometry(Twist(0.0, 0.0, 0.0), (0.0, 0.0, 0.0), BEGAN_NS), BEGAN_NS)
    assert "no decisions" in refuse("replay", tmp_path / "empty", "--policy", policy)
