"""What is asked in a process of its own: ``python -m mobile_vla.doctor.probes NAME JSON`` prints a JSON object."""

import contextlib
import json
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

Values = dict[str, Any]


def torch_wheel(_: Values) -> Values:
    """Load torch, and compute a number on the GPU: to see a GPU is not yet to run on it."""
    import torch

    values: Values = {"version": str(torch.__version__), "cuda": torch.version.cuda, "computes": False}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            values["available"] = torch.cuda.is_available()
            if values["available"]:
                values["device"] = torch.cuda.get_device_name(0)
                values["computes"] = float((torch.ones(8, device="cuda") * 2).sum().item()) == 16.0
        except Exception as error:  # torch raises many kinds; the sentence goes to the user
            values["trouble"] = str(error).strip().partition("\n")[0]
    if said and "trouble" not in values:
        values["trouble"] = str(said[0].message).strip().partition("\n")[0]
    return values


def renderer(_: Values) -> Values:
    """Draw one picture of the simulated world; a driver of the GPU may end the process."""
    import numpy as np

    from mobile_vla.sim.choose import named_scene
    from mobile_vla.sim.gl import egl_problem
    from mobile_vla.sim.world import World

    problem = egl_problem()
    world = World()
    try:
        world.load(named_scene("hidden", 1))
        sees = len(np.unique(world.render(48, 96))) > 1
        return {"renderer": world.renderer_name, "egl_problem": problem, "sees": bool(sees)}
    finally:
        world.close()


def camera(values: Values) -> Values:
    """Open the robot's camera and count its frames for ``seconds``."""
    from mobile_vla.core import NS_PER_S, MonotonicClock
    from mobile_vla.runtime.config import read_robot

    config = read_robot(_path(values["robot"]), values["overrides"])
    clock = MonotonicClock()
    device = config.camera.build(clock)
    began = clock.now_ns()
    device.open()
    try:
        first = device.read(values["first_frame_s"])
        if first is None:
            return {"frames": 0, "rate_hz": 0.0, "nominal_hz": device.rate_hz}
        waited_s = (clock.now_ns() - began) / NS_PER_S
        frames, last = 0, first
        end = clock.now_ns() + int(values["seconds"] * NS_PER_S)
        while clock.now_ns() < end:
            if (frame := device.read(0.2)) is not None:
                frames, last = frames + 1, frame
        span_s = max((last.capture_ns - first.capture_ns) / NS_PER_S, 1e-9)
        height, width = last.pixels.shape[:2]
        return {
            "frames": frames,
            "rate_hz": frames / span_s if frames else 0.0,
            "nominal_hz": device.rate_hz,
            "first_frame_s": waited_s,
            "width": width,
            "height": height,
            "brightness": float(last.pixels[::8, ::8].mean()),
            "age_s": (clock.now_ns() - last.capture_ns) / NS_PER_S,
        }
    finally:
        device.close()


def base(values: Values) -> Values:
    """Open the robot's base and ask for its velocity; nothing is asked to move."""
    from mobile_vla.core import MonotonicClock
    from mobile_vla.runtime.config import read_robot

    config = read_robot(_path(values["robot"]), values["overrides"])
    device = config.base.build(MonotonicClock())
    device.open()
    try:
        velocity = device.velocity()
        return {
            "velocity": [velocity.vx, velocity.vy, velocity.wz],
            "command_timeout_s": device.command_timeout_s,
        }
    finally:
        device.close()


def wire(values: Values) -> Values:
    """One side of a conversation: ``ask`` writes until the other side, ``answer``, has written back ``count`` times."""
    from mobile_vla.ros import messages
    from mobile_vla.ros.connect import chosen, connect
    from mobile_vla.ros.topics import Qos, Topic
    from mobile_vla.ros.transport import Carrier, NodeConfig

    asks = values["side"] == "ask"
    word = values["word"]
    there, back = (
        Topic(f"/mobile_vla_doctor_{word}_{name}", "std_msgs/msg/String", Qos.DEFAULT, None, None, "doctor", "a check")
        for name in ("there", "back")
    )
    carrier = Carrier(values.get("carrier", Carrier.AUTO))
    config = NodeConfig(f"doctor_{word}_{values['side']}", carrier=carrier, localhost_only=values.get("localhost_only"))
    transport = connect(config)
    try:
        if not asks:
            answers = transport.publisher(back)
            transport.subscribe(there, lambda received: answers.publish(received.message))
            sys.stdin.read()  # until the other side closes it
            return {"answered": transport.received(there)}
        news = threading.Event()
        transport.subscribe(back, lambda _: news.set())
        questions = transport.publisher(there)
        began = time.monotonic_ns()
        trips: list[float] = []
        first_ms = None
        while len(trips) < values["count"] and time.monotonic_ns() - began < values["seconds"] * 1e9:
            news.clear()
            sent = time.monotonic_ns()
            questions.publish(messages.string(word))
            if news.wait(0.2):
                now = time.monotonic_ns()
                first_ms = (now - began) / 1e6 if first_ms is None else first_ms
                trips.append((now - sent) / 1e6)
                time.sleep(0.03)  # a topic is taken 50 times a second at most: sooner would measure that
        return {"carrier": chosen(carrier).value, "trips_ms": sorted(trips), "first_ms": first_ms}
    finally:
        transport.close()


PROBES: dict[str, Callable[[Values], Values]] = {
    "torch": torch_wheel,
    "renderer": renderer,
    "camera": camera,
    "base": base,
    "wire": wire,
}


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def main(arguments: list[str]) -> int:
    """Run one probe; what it prints goes to stderr, its answer is the last line on stdout."""
    name, values = arguments
    with contextlib.redirect_stdout(sys.stderr):
        try:
            answer = PROBES[name](json.loads(values))
        except Exception as error:  # a probe fails in any way it likes: the last line says how
            from mobile_vla.core import MobileVLAError

            kind = "" if isinstance(error, MobileVLAError) else f"{type(error).__name__}: "
            print(f"{kind}{error}".replace("\n", " "), file=sys.stderr)
            return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
