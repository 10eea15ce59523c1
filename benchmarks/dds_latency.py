"""Messages from one process to another and back through our transport: what a hop costs, without any of our nodes.

Unlike ``latency_dds``, which sends bytes alone, a message is made, written, taken, read and handed on, on either side.
"""

import argparse
import json
import multiprocessing
import os
import platform
import time
import uuid

import numpy as np

from mobile_vla.core import Frame
from mobile_vla.core.provenance import processor
from mobile_vla.ros import messages
from mobile_vla.ros.connect import connect
from mobile_vla.ros.topics import IMAGE, IMAGE_COMPRESSED, Qos, Topic
from mobile_vla.ros.transport import NodeConfig

WARM_UP = 15
SMALL = Topic("small", "std_msgs/msg/String", Qos.NEWEST, 30.0, None, "benchmark", "a few bytes, for comparison")


def back_of(topic: Topic) -> Topic:
    return Topic(f"{topic.name}/back", topic.type, topic.qos, topic.rate_hz, None, "benchmark", "the same, sent back")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--rate", type=float, default=30.0, help="images a second")
    parser.add_argument("--times", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frame = Frame(pixels, 0, "monotonic", "front", 0)
    kinds = {
        "a few bytes": (SMALL, lambda stamp: messages.string(str(stamp)), lambda message: int(message.data)),
        f"{options.size} compressed": (
            IMAGE_COMPRESSED, lambda stamp: messages.compressed_message(frame, stamp, ""), messages.stamp_ns,
        ),
        f"{options.size} raw": (IMAGE, lambda stamp: messages.image_message(frame, stamp, ""), messages.stamp_ns),
    }  # fmt: skip
    rows = {name: _measure(*kind, options.rate, options.times) for name, kind in kinds.items()}
    if options.json:
        print(json.dumps({"rate_hz": options.rate, "machine": _machine(), "milliseconds": rows}, indent=2))
        return
    print(_machine())
    print(f"two processes on loopback, {options.rate:g} Hz; milliseconds, stamped before it is made a message")
    for name, row in rows.items():
        for way in ("one_way", "there_and_back"):
            p50, p99, most, count = (row[way][key] for key in ("p50", "p99", "max", "count"))
            what = f"{name}, {way.replace('_', ' ')}"
            print(f"{what:34} p50 {p50:7.2f}  p99 {p99:7.2f}  max {most:7.2f}   ({count} of {options.times} came)")


def _measure(topic, make, stamp_of, rate_hz, times):
    """Send stamps in messages of one kind to the other process, which sends them back as they are."""
    config = NodeConfig("near", f"/benchmark_{uuid.uuid4().hex[:8]}", domain=99, localhost_only=True)
    spawn = multiprocessing.get_context("spawn")
    done, ways = spawn.Event(), spawn.Queue()
    far = spawn.Process(
        target=_answer, args=(NodeConfig("far", config.namespace, domain=99, localhost_only=True), topic, done, ways)
    )
    far.start()
    round_trips: list[float] = []
    with connect(config) as near:
        near.subscribe(back_of(topic), lambda r: round_trips.append((r.received_ns - stamp_of(r.message)) / 1e6))
        publisher = near.publisher(topic)
        if not near.wait_for_readers(topic, 1, 60.0):
            raise SystemExit("the other process was not found")
        time.sleep(1.0)  # until the way back is matched too
        began = time.monotonic()
        for number in range(times + WARM_UP):
            publisher.publish(make(time.monotonic_ns()))
            time.sleep(max(0.0, began + (number + 1) / rate_hz - time.monotonic()))
        time.sleep(0.5)
        done.set()
        one_way = ways.get(timeout=60)
        far.join(60)
    return {"one_way": _summary(one_way), "there_and_back": _summary(round_trips[WARM_UP:])}


def _answer(config, topic, done, ways) -> None:
    came: list[float] = []
    with connect(config) as far:
        back = far.publisher(back_of(topic))
        stamp_of = (lambda m: int(m.data)) if topic.type == SMALL.type else messages.stamp_ns

        def answer(received) -> None:
            came.append((received.received_ns - stamp_of(received.message)) / 1e6)
            back.publish(received.message)

        far.subscribe(topic, answer)
        done.wait(600)
    ways.put(came[WARM_UP:])


def _summary(milliseconds):
    p50, p99 = np.percentile(milliseconds, [50, 99]) if milliseconds else (float("nan"), float("nan"))
    return {
        "p50": float(p50),
        "p99": float(p99),
        "max": max(milliseconds, default=float("nan")),
        "count": len(milliseconds),
    }


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    return f"{processor()}, {cores} cores, Python {platform.python_version()}; load before the run {load:.1f}"


if __name__ == "__main__":
    main()
