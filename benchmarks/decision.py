"""From a camera frame to a velocity command: the whole way on one thread, and its stages, for real weights."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from machine import describe, latencies
from mobile_vla.core import NS_PER_S, Frame, Instruction, Observation, Twist
from mobile_vla.policy.compact import motion_features
from mobile_vla.policy.preprocess import HEIGHT, WIDTH, fit, to_tensor
from mobile_vla.policy.weights import SHIPPED, load_policy
from mobile_vla.runtime import ChunkQueue
from mobile_vla.safety import Inputs, Supervisor
from mobile_vla.sim.limits import LIMITS
from mobile_vla.sim.scenarios import draw_scene
from mobile_vla.sim.world import World

PERIOD_NS = NS_PER_S // 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", type=Path, default=SHIPPED)
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("--camera", default=f"{WIDTH}x{HEIGHT}", help="size of the camera's picture, e.g. 1280x720")
    options = parser.parse_args()
    torch.set_num_threads(1)
    describe()
    policy = load_policy(options.policy)
    parameters = sum(parameter.numel() for parameter in policy.network.parameters())
    print(f"{options.policy}: {parameters:,} parameters, float32, batch 1, one thread; frames of {options.camera}")
    width, height = map(int, options.camera.split("x"))
    world = World("planar")
    world.load(draw_scene("1box_vertical_left_medium", 1).scene)
    frames = [_frame(world, height, width, turn * 0.05) for turn in range(20)]
    _whole(policy, frames, options.times)
    _stages(policy, frames, options.times)


def _frame(world: World, height: int, width: int, turn_rad: float) -> np.ndarray:
    start = world.scene.start
    world.set_pose(type(start)(start.x, start.y, start.yaw + turn_rad))
    return world.render(height, width)


def _whole(policy, frames, times) -> None:
    instruction = Instruction("pass the box on the left and stop at the red cup")
    began = time.perf_counter()
    state = policy.reset(instruction)
    print(f"{'reading the instruction, once':44} {1e3 * (time.perf_counter() - began):.2f} ms")
    queue, supervisor, spent = ChunkQueue(), Supervisor(LIMITS), []
    for number in range(times + 20):
        now_ns = number * PERIOD_NS
        frame = Frame(frames[number % len(frames)], now_ns, "simulation", "front", number)
        began = time.perf_counter()
        step = policy.step(Observation(frame, Twist(0.3, 0.0, 0.1)), state)
        queue.offer(step.chunk)
        plan = queue.plan(now_ns)
        supervisor.step(now_ns, Inputs(plan.twist, plan.capture_ns))
        spent.append(1e3 * (time.perf_counter() - began))
        state = step.state
    latencies("frame to command (policy, queue, safety)", spent[20:])


@torch.inference_mode()
def _stages(policy, frames, times) -> None:
    network = policy.network
    state = policy.reset(Instruction("go to the red cup"))
    spent = {name: [] for name in ("fit and normalise", "eye", "pointer", "memory and head")}
    for number in range(times + 20):
        marks = [time.perf_counter()]
        pixels = to_tensor(torch.from_numpy(fit(frames[number % len(frames)]))[None])
        marks.append(time.perf_counter())
        sight = network.eye(pixels)
        marks.append(time.perf_counter())
        _, seen = network.read(sight, state.words)
        marks.append(time.perf_counter())
        motion = motion_features(torch.zeros(1, 3), torch.zeros(1, 3), policy.contract)
        network.decide(seen[:, None], state.words, motion[:, None], state.memory)
        marks.append(time.perf_counter())
        for name, before, after in zip(spent, marks[:-1], marks[1:], strict=True):
            spent[name].append(1e3 * (after - before))
    for name, values in spent.items():
        latencies(f"  {name}", values[20:])


if __name__ == "__main__":
    main()
