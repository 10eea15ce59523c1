"""How long ``policy.preprocess.fit`` takes of a decision, beside the way it was and what else was tried; one thread.

Each call gets a frame that a JPEG decoder has just written, as a camera's thread does, and comes after a decision of
the shipped policy: called again and again on one frame, every way is up to three times as fast as it ever is on a
robot, for the processor then foresees its branches and has the bytes near. The ways take turns in an order drawn anew
each time. The frames' content is drawn too: none of the ways looks at it.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from machine import describe, latencies
from mobile_vla.core import Frame, Instruction, Observation, Twist
from mobile_vla.policy.preprocess import ASPECT, HEIGHT, WIDTH, fit
from mobile_vla.policy.weights import SHIPPED, load_policy

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
CAMERAS = ["640x480", "1280x720", "1920x1080", "1344x376", "641x479"]
SIZES = [(HEIGHT, WIDTH), (224, 224)]
WARM_UP = 5
BEFORE, NOW, FIXED, ROWS_FIRST = (
    "before: float planes",
    "now: fit",
    "now: fit, of a read-only frame",
    "rows, then columns",
)
OUT, PILLOW, GAP, COPY = "into a buffer (out=)", "Pillow", "Pillow, reducing_gap=2", "copying the crop, the floor"


def _crop(pixels: Pixels) -> Pixels:
    left, top, right, bottom = _box(pixels)
    return pixels[top:bottom, left:right]


def _box(pixels: Pixels) -> tuple[int, int, int, int]:
    height, width = pixels.shape[:2]
    rows, columns = min(height, width // ASPECT), min(width, height * ASPECT)
    top, left = (height - rows) // 2, (width - columns) // 2
    return left, top, left + columns, top + rows


def _before(pixels: Pixels, size: Size) -> Pixels:
    planes = torch.from_numpy(np.ascontiguousarray(_crop(pixels))).permute(2, 0, 1)[None].float()
    small = F.interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def _bytes(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(_crop(pixels)))[None].permute(0, 3, 1, 2)


def _rows_first(pixels: Pixels, size: Size) -> Pixels:
    planes = _bytes(pixels)
    fewer = F.interpolate(planes, size=(size[0], planes.shape[3]), mode="bilinear", antialias=True)
    return F.interpolate(fewer, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def _into(buffer: torch.Tensor, pixels: Pixels, size: Size) -> Pixels:
    torch.ops.aten._upsample_bilinear2d_aa.out(_bytes(pixels), size, False, None, None, out=buffer.permute(0, 3, 1, 2))
    return buffer[0].numpy()


def _pillow(pixels: Pixels, size: Size, gap: float | None = None) -> Pixels:
    picture = Image.fromarray(pixels)
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR, box=_box(pixels), reducing_gap=gap))


def _ways(size: Size) -> dict[str, Callable[[Pixels], Pixels]]:
    buffer = torch.empty((1, *size, 3), dtype=torch.uint8)
    return {
        BEFORE: lambda pixels: _before(pixels, size),
        NOW: lambda pixels: fit(pixels, size),
        FIXED: lambda pixels: fit(pixels, size),
        ROWS_FIRST: lambda pixels: _rows_first(pixels, size),
        OUT: lambda pixels: _into(buffer, pixels, size),
        PILLOW: lambda pixels: _pillow(pixels, size),
        GAP: lambda pixels: _pillow(pixels, size, gap=2.0),
        COPY: lambda pixels: _crop(pixels).copy(),
    }


def _decision() -> Callable[[], object]:
    policy = load_policy(SHIPPED)
    state = policy.reset(Instruction("go to the red cup"))
    observation = Observation(
        Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 0, "none", "front", 0), Twist(0.3, 0.0, 0.0)
    )
    return lambda: policy.step(observation, state)


def measure(camera: str, size: Size, times: int, between: Callable[[], object]) -> dict[str, dict[str, Any]]:
    """Of each way: ``milliseconds`` of every call, and ``levels``, how far it is from the exact picture at most."""
    width, height = map(int, camera.split("x"))
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8))
    jpeg = simplejpeg.encode_jpeg(np.array(coarse.resize((width, height))), quality=85)
    frame = simplejpeg.decode_jpeg(jpeg, "RGB")
    planes = torch.from_numpy(_crop(frame).astype(np.float64)).permute(2, 0, 1)[None]
    exact = F.interpolate(planes, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    ways = _ways(size)
    found = {name: {"milliseconds": []} for name in ways}
    for name, way in ways.items():
        if name != COPY:
            found[name]["levels"] = round(float(np.abs(way(frame) - exact).max()), 2)
    for turn in range(times + WARM_UP):
        for name in rng.permutation(list(ways)):
            fresh = simplejpeg.decode_jpeg(jpeg, "RGB")
            fresh.flags.writeable = name != FIXED
            between()
            began = time.perf_counter()
            ways[name](fresh)
            spent = 1e3 * (time.perf_counter() - began)
            if turn >= WARM_UP:
                found[name]["milliseconds"].append(spent)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camera", nargs="+", default=CAMERAS, metavar="WxH", help=f"default: {' '.join(CAMERAS)}")
    parser.add_argument("--times", type=int, default=200, help="calls of each way, camera and size (default 200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write p50, p90, p99 and levels there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    describe()
    between = _decision()
    rows = []
    for size in SIZES:
        for camera in options.camera:
            print(f"\n{camera} to {size[1]}x{size[0]}")
            found = measure(camera, size, options.times, between)
            for name, each in found.items():
                latencies(name + (f", {each['levels']} levels off" if "levels" in each else ""), each["milliseconds"])
                p50, p90, p99 = np.percentile(each["milliseconds"], [50, 90, 99])
                named = {"camera": camera, "size": f"{size[1]}x{size[0]}", "way": name, "levels": each.get("levels")}
                rows.append(named | {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99})
            before, now = (np.median(found[name]["milliseconds"]) for name in (BEFORE, NOW))
            print(f"fit takes 1/{before / now:.1f} of the time that it took before")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
