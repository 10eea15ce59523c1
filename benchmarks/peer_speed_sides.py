"""One side of ``peer_speed.py``, in a process of its own: times what it is asked for, line by line, until told no more.

    python peer_speed_sides.py SIDE --threads N --cores 0,1 [--policy DIR] [--camera WxH ...]

The side ``act`` runs in LeRobot's environment and imports nothing of ours. A side first says who it is and which works
it has, as one line of JSON. Then it reads ``{"work": name, "seconds": how long}`` and answers with the milliseconds of
each call, until its input ends.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

ACT, POLICY, ONNXRUNTIME, OPENVINO = "act", "policy", "onnxruntime", "openvino"
IMAGE, STATE, ACTION = "observation.images.front", "observation.state", "action"
ACT_CAMERA, AXES = 224, 3
SELECT, FRAME_TO_ACTION = "select_action, of a normalised batch", "camera frame 224x224 to action"
FRAMES, WARM_UP, LEAST = 8, 3, 10
"""Different frames that take turns; calls before each turn that do not count; calls of a turn at least."""


class Work(NamedTuple):
    """``call`` is timed; ``before`` it comes what is not."""

    call: Callable[[], object]
    before: Callable[[], object] = lambda: None


class Side(NamedTuple):
    """Who it is, in short and at length, and what can be timed of it, by name."""

    name: str
    about: str
    works: dict[str, Work]


def drawn_frames(width: int, height: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(FRAMES)]


def act(threads: int) -> Side:
    """LeRobot's ACT in its default sizes over one camera, with random weights."""
    import lerobot
    import torch
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.act.processor_act import make_act_pre_post_processors
    from lerobot.utils.control_utils import predict_action

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = ACTConfig(
        input_features={
            IMAGE: PolicyFeature(FeatureType.VISUAL, (3, ACT_CAMERA, ACT_CAMERA)),
            STATE: PolicyFeature(FeatureType.STATE, (AXES,)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (AXES,))},
        pretrained_backbone_weights=None,
        device="cpu",
        push_to_hub=False,
    )
    policy = ACTPolicy(config)
    plain = {"mean": np.zeros(AXES), "std": np.ones(AXES)}
    picture = {"mean": np.full((3, 1, 1), 0.45), "std": np.full((3, 1, 1), 0.25)}
    before, after = make_act_pre_post_processors(config, {IMAGE: picture, STATE: plain, ACTION: plain})
    frames, velocity, device = cycle(drawn_frames(ACT_CAMERA, ACT_CAMERA)), np.zeros(AXES, np.float32), "cpu"
    batch = before({IMAGE: torch.rand(1, 3, ACT_CAMERA, ACT_CAMERA), STATE: torch.zeros(1, AXES)})

    @torch.inference_mode()
    def select() -> object:
        return policy.select_action(batch)

    def whole() -> object:
        seen = {IMAGE: next(frames), STATE: velocity}
        return predict_action(seen, policy, torch.device(device), before, after, use_amp=False)

    count = sum(parameter.numel() for parameter in policy.parameters())
    about = f"lerobot {lerobot.__version__}, torch {torch.__version__}, {count:,} parameters, random weights"
    # its queue of actions is emptied before each call, or 99 of 100 would be look-ups
    return Side(
        "LeRobot's ACT", about, {SELECT: Work(select, policy.reset), FRAME_TO_ACTION: Work(whole, policy.reset)}
    )


def policy(folder: Path, threads: int, cameras: list[str]) -> Side:
    """A checkpoint or an engine of ours: camera frame to command, with the chunk queue and the supervisor."""
    import torch

    from mobile_vla.core import NS_PER_S, Frame, Instruction, Observation, Twist
    from mobile_vla.engine.folder import is_engine, open_engine, read_engine
    from mobile_vla.policy.weights import load_policy
    from mobile_vla.runtime import ChunkQueue
    from mobile_vla.safety import Inputs, Supervisor
    from mobile_vla.sim.limits import LIMITS

    torch.set_num_threads(threads)
    if is_engine(folder):
        about = read_engine(folder)
        ours, how = open_engine(folder, threads), f"{about.engine} {about.precision}, {about.parameters:,} parameters"
    else:
        ours = load_policy(folder)
        how = f"torch fp32, eager, {sum(each.numel() for each in ours.network.parameters()):,} parameters"

    def driving(camera: str) -> Work:
        width, height = map(int, camera.split("x"))
        frames, period_ns = cycle(enumerate(cycle(drawn_frames(width, height)))), NS_PER_S // 5
        queue, supervisor = ChunkQueue(), Supervisor(LIMITS)
        kept = {"state": ours.reset(Instruction("pass the box on the left and stop at the red cup"))}

        def drive() -> object:
            number, pixels = next(frames)
            now_ns = number * period_ns
            observation = Observation(Frame(pixels, now_ns, "benchmark", "front", number), Twist(0.3, 0.0, 0.1))
            step = ours.step(observation, kept["state"])
            kept["state"] = step.state
            queue.offer(step.chunk)
            plan = queue.plan(now_ns)
            return supervisor.step(now_ns, Inputs(plan.twist, plan.capture_ns))

        return Work(drive)

    works = {f"camera frame {camera} to command": driving(camera) for camera in cameras}
    return Side(f"ours, {folder.name}", how, works)


def _graph(folder: Path, to: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The policy's decision as ONNX, and inputs for it by name."""
    from mobile_vla.checkpoint.manifest import CHECKPOINT
    from mobile_vla.engine.folder import is_engine
    from mobile_vla.engine.onnx_ import GRAPH, arrays, input_names, write_graph
    from mobile_vla.policy.step import step_of
    from mobile_vla.policy.weights import load_network

    step = step_of(load_network(folder / CHECKPOINT if is_engine(folder) else folder))
    write_graph(step, to / GRAPH)
    return to / GRAPH, arrays(step.example(), input_names(step))


def _own(folder: Path, suffix: str) -> Path | None:
    """The graph in bytes that an engine of ours runs, where it is of this library."""
    from mobile_vla.engine.folder import is_engine, read_engine

    if not is_engine(folder) or read_engine(folder).precision != "int8":
        return None
    return next(folder.glob(f"*{suffix}"), None)


def bare_onnxruntime(folder: Path, threads: int) -> Side:
    """ONNX Runtime on the graph of ours: no frame to fit, no command to make."""
    import onnxruntime

    def work(session: Any, inputs: dict[str, np.ndarray]) -> Work:
        return Work(lambda: session.run(None, inputs))

    with tempfile.TemporaryDirectory() as temporary:
        path, inputs = _graph(folder, Path(temporary))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        paths = {"fp32": path, "int8": _own(folder, ".onnx")}
        works = {
            name: work(onnxruntime.InferenceSession(str(each), options, providers=["CPUExecutionProvider"]), inputs)
            for name, each in paths.items()
            if each is not None
        }
    return Side("ONNX Runtime, bare", f"{onnxruntime.__version__}, the graph of {folder.name}", works)


def bare_openvino(folder: Path, threads: int) -> Side:
    """OpenVINO on the graph of ours, in each precision that the processor has."""
    from mobile_vla.engine.backends.openvino_ import library

    openvino = library()
    core, hints = openvino.Core(), {"fp32": "f32", "bf16": "bf16"}
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        del hints["bf16"]

    def work(model: Any, inputs: dict[str, np.ndarray], hint: str) -> Work:
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return Work(lambda: request.infer(inputs, share_inputs=True, share_outputs=True))

    with tempfile.TemporaryDirectory() as temporary:
        path, inputs = _graph(folder, Path(temporary))
        model = core.read_model(path)
        works = {name: work(model, inputs, hint) for name, hint in hints.items()}
        if (own := _own(folder, ".xml")) is not None:
            works["int8"] = work(core.read_model(own), inputs, "f32")
    about = f"{openvino.__version__.split('-')[0]}, the graph of {folder.name}"
    return Side("OpenVINO, bare", about, works)


def spent_ms(work: Work, seconds: float) -> list[float]:
    """Of each call, for so long."""
    for _ in range(WARM_UP):
        work.before()
        work.call()
    spent: list[float] = []
    began = time.perf_counter()
    while len(spent) < LEAST or time.perf_counter() - began < seconds:
        work.before()
        start = time.perf_counter()
        work.call()
        spent.append(1e3 * (time.perf_counter() - start))
    return spent


def serve(side: Side, asked: IO[str], answers: IO[str]) -> None:
    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer({"name": side.name, "about": side.about, "works": list(side.works)})
    for line in asked:
        wanted = json.loads(line)
        answer(spent_ms(side.works[wanted["work"]], wanted["seconds"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=[ACT, POLICY, ONNXRUNTIME, OPENVINO])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cores", required=True, metavar="N,N", help="numbers of the cores that it may run on")
    parser.add_argument("--policy", type=Path, metavar="DIR")
    parser.add_argument("--camera", nargs="*", default=[], metavar="WxH")
    options = parser.parse_args()
    # the answers have a way of their own: what a library prints goes to the error stream
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.sched_setaffinity(0, [int(core) for core in options.cores.split(",")])
    makers = {
        ACT: lambda: act(options.threads),
        POLICY: lambda: policy(options.policy, options.threads, options.camera),
        ONNXRUNTIME: lambda: bare_onnxruntime(options.policy, options.threads),
        OPENVINO: lambda: bare_openvino(options.policy, options.threads),
    }
    needed = "lerobot" if options.side == ACT else None if options.side == POLICY else options.side
    if needed and importlib.util.find_spec(needed) is None:
        answers.write(json.dumps({"missing": needed}) + "\n")
        answers.flush()
        return
    serve(makers[options.side](), sys.stdin, answers)


if __name__ == "__main__":
    main()
