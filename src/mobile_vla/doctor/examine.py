"""The examination: every check in order, each with a time limit, none able to end the others."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from mobile_vla.doctor import disk, machine, torch_wheel
from mobile_vla.doctor.check import Check, State
from mobile_vla.doctor.purpose import Purpose

LIMIT_S = 120.0
"""For one check; those that ask another process end it sooner by limits of their own."""

Step = tuple[str, Callable[[], Check]]


def examine(
    purpose: Purpose, tell: Callable[[str], None] = lambda name: None, root: Path = Path("/")
) -> tuple[Check, ...]:
    """Examine this machine, in less than half a minute as a rule; ``tell`` is given each name before its check begins.

    ``root`` stands before the paths of the system's files. Nothing is changed, nothing moves, and no packet leaves the
    machine but those of nodes that look for each other.
    """
    checks = []
    for name, step in _steps(purpose, root):
        tell(name)
        checks.append(limited(name, step))
    return tuple(checks)


def limited(name: str, step: Callable[[], Check], limit_s: float = LIMIT_S) -> Check:
    """What ``step`` finds; a warning when it fails or does not end: that the doctor stumbles is no proof of illness."""
    results: list[Check] = []

    def work() -> None:
        try:
            results.append(step())
        except Exception as error:  # whatever it is, the other checks go on
            results.append(Check(name, State.WARN, f"the check itself failed: {type(error).__name__}: {error}"))

    thread = threading.Thread(target=work, name=f"doctor {name}", daemon=True)
    thread.start()
    thread.join(limit_s)
    return results[0] if results else Check(name, State.WARN, f"the check did not end within {limit_s:g} s")


def _steps(purpose: Purpose, root: Path) -> Iterator[Step]:
    """Imports of a step happen in the step: what is missing is a finding, not the end of the doctor."""
    python = machine.look_at_python()
    jetson = torch_wheel.jetson_of(root) is not None
    yield "Python", lambda: machine.judge_python(python)
    yield "packages", lambda: machine.judge_packages(python, purpose)
    yield "processor", lambda: machine.judge_processor(machine.look_at_processor(root, jetson))
    yield from _learning(purpose, root)
    yield from _devices(purpose, root, jetson)
    yield from _network(purpose, root)

    def opengl() -> Check:
        from mobile_vla.doctor import renderer

        return renderer.judge_renderer(renderer.look_at_renderer(python, purpose), purpose)

    def clocks() -> Check:
        from mobile_vla.doctor import clock

        return clock.judge_clocks(clock.look_at_clocks(), purpose)

    def precedence() -> Check:
        from mobile_vla.doctor import precedence

        return precedence.judge_precedence(precedence.look_at_precedence(), purpose)

    yield "OpenGL", opengl
    yield "disk", lambda: disk.judge_disk(disk.look_at_disk([Path(name) for name in disk.FOLDERS]))
    yield "clock", clocks
    yield "control thread", precedence


def _learning(purpose: Purpose, root: Path) -> Iterator[Step]:
    gpu = torch_wheel.Gpu()
    torch = torch_wheel.Torch(None)

    def wheel() -> Check:
        nonlocal gpu, torch
        gpu = torch_wheel.look_at_gpu(root)
        torch = torch_wheel.look_at_torch(root)
        return torch_wheel.judge_torch(torch, gpu, purpose)

    def checkpoint() -> Check:
        from mobile_vla.doctor import checkpoint

        if purpose.policy is None:
            return Check("checkpoint", State.NOT_NEEDED, "the policy runs on another machine")
        return checkpoint.judge_checkpoint(checkpoint.look_at_checkpoint(purpose.policy), purpose.policy)

    yield "torch", wheel
    yield "GPU", lambda: torch_wheel.judge_gpu(torch, gpu, purpose)
    yield "checkpoint", checkpoint


def _devices(purpose: Purpose, root: Path, jetson: bool) -> Iterator[Step]:
    from mobile_vla.doctor import base, cameras, can_bus, serial_ports

    yield "cameras", lambda: cameras.judge_cameras(cameras.look_at_cameras(), purpose)
    if purpose.robot is not None:
        camera_kind = purpose.robot.camera_kind
        yield "camera", lambda: cameras.judge_camera(cameras.try_camera(purpose), camera_kind)
    yield "CAN", lambda: can_bus.judge_can(can_bus.look_at_can(root), purpose, jetson)
    wanted = purpose.serial_port
    yield "serial", lambda: serial_ports.judge_serial(serial_ports.look_at_serial(root, wanted), purpose)
    if purpose.robot is not None:
        base_kind = purpose.robot.base_kind
        yield "base", lambda: base.judge_base(base.try_base(purpose), base_kind)


def _network(purpose: Purpose, root: Path) -> Iterator[Step]:
    from mobile_vla.doctor import wire

    network = wire.Network({}, None, "", None)

    def multicast() -> Check:
        nonlocal network
        network = wire.look_at_network(root)
        return wire.judge_multicast(network, purpose)

    yield "DDS", lambda: wire.judge_talk(wire.try_talk(), purpose, wire.installed_ros(root))
    yield "multicast", multicast
    yield "DDS buffers", lambda: wire.judge_buffers(network)
    yield "ROS", lambda: wire.judge_ros(os.environ, purpose)
