import numpy as np
import torch

from mobile_vla.core import ActionContract, Frame, Instruction, Observation, Twist
from mobile_vla.policy.compact import CompactConfig, CompactNetwork, CompactPolicy
from mobile_vla.policy.preprocess import HEIGHT, WIDTH
from mobile_vla.train.learner import NetworkLearner


def test_many_lanes_drive_as_the_policy_drives_alone() -> None:
    torch.manual_seed(2)
    config = CompactConfig(stem=4, middle=8, top=16, embedding=8, column=4, words=16, memory=16)
    network = CompactNetwork(config, ActionContract())
    learner, policy = NetworkLearner(network, lanes=2), CompactPolicy(network)
    texts = ("go to the red cup", "왼쪽으로 돌아 파란 의자까지 가")
    states = [policy.reset(Instruction(text)) for text in texts]
    for place, text in enumerate(texts):
        learner.reset(place, Instruction(text))
    rng = np.random.default_rng(0)
    for number in range(4):
        frames = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
        velocities = rng.uniform(-0.3, 0.3, (2, 3)).astype(np.float32)
        together = learner.act(frames, velocities)
        for place in range(2):
            frame = Frame(frames[place], number * 200_000_000, "test", "front", number)
            step = policy.step(Observation(frame, Twist.from_array(velocities[place])), states[place])
            states[place] = step.state
            # the learner sees in bf16, the policy in float32
            np.testing.assert_allclose(together[place], step.chunk.velocities, atol=0.02)
