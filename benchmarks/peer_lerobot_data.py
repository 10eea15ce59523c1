"""LeRobot and we on each other's data: it writes and we import, we write and it reads.

LeRobot needs an older torch than ours, so it lives in an environment of its own:

    python3.11 -m venv lerobot && lerobot/bin/pip install lerobot==0.4.4
    python benchmarks/peer_lerobot_data.py --lerobot lerobot/bin/python

The same script runs in both environments. ``--fixture DIR`` keeps the two small data sets that LeRobot writes;
tests/data/imports/lerobot_image and lerobot_video were made so.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FPS = 10
FRAMES = (12, 8)
HEIGHT, WIDTH = 48, 64
TASKS = ("go to the red cup", "빨간 컵 앞에 멈춰")
JOINTS = tuple(
    f"arm_{joint}.pos"
    for joint in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
)
NAMES = (*JOINTS, "x.vel", "y.vel", "theta.vel")
"""LeKiwi's: arm, then m/s, m/s and DEG/s."""
CAMERA = "observation.images.front"
MAPPING = {
    "contract": {"limits": [0.6, 0.6, 1.6], "rate_hz": 10, "horizon": 4, "frame_rate_hz": 5},
    "every": 2,
    "camera": {"column": CAMERA, "channel_order": "rgb"},
    "action": {
        "linear_x": {"column": "action", "name": "x.vel", "unit": "m/s", "positive": "forward"},
        "linear_y": {"column": "action", "name": "y.vel", "unit": "m/s", "positive": "left"},
        "angular_z": {"column": "action", "name": "theta.vel", "unit": "deg/s", "positive": "counter-clockwise"},
    },
    "state": {
        "linear_x": {"column": "observation.state", "name": "x.vel", "unit": "m/s", "positive": "forward"},
        "linear_y": {"column": "observation.state", "name": "y.vel", "unit": "m/s", "positive": "left"},
        "angular_z": {
            "column": "observation.state",
            "name": "theta.vel",
            "unit": "deg/s",
            "positive": "counter-clockwise",
        },
    },
    "instruction": {"task": True},
}


def action_of(episode: int, frame: int) -> np.ndarray:
    """LeKiwi's nine numbers; each base axis has values of its own, and the last turns up to 90 deg/s."""
    joints = np.arange(6, dtype=np.float32) * 100 + 1000
    base = (0.01 * frame + 0.1 * episode, -0.02 * frame, 90.0 - 5.0 * frame)
    return np.array([*joints, *base], dtype=np.float32)


def picture_of(episode: int, frame: int) -> np.ndarray:
    """Left half red, brighter with each frame; right half blue; a green bar on top from the second episode on."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[:, : WIDTH // 2, 0] = 40 + 16 * frame
    pixels[:, WIDTH // 2 :, 2] = 220
    if episode:
        pixels[: HEIGHT // 4, :, :] = (0, 200, 0)
    return pixels


def write_by_lerobot(root: Path, dtype: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {
        CAMERA: {"dtype": dtype, "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (len(NAMES),), "names": list(NAMES)},
        "action": {"dtype": "float32", "shape": (len(NAMES),), "names": list(NAMES)},
    }
    dataset = LeRobotDataset.create(
        "peer/set", FPS, features, root=root, robot_type="lekiwi", use_videos=dtype == "video"
    )
    for episode, frames in enumerate(FRAMES):
        for frame in range(frames):
            action = action_of(episode, frame)
            state = action / 2
            dataset.add_frame(
                {
                    CAMERA: picture_of(episode, frame),
                    "observation.state": state,
                    "action": action,
                    "task": TASKS[episode],
                }
            )
        dataset.save_episode()
    dataset.finalize()


def read_by_lerobot(root: Path) -> dict:
    """What LeRobot's own loader gives for each frame of a data set of ours."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("ours/set", root=root)
    rows = [dataset[place] for place in range(len(dataset))]
    return {
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "fps": dataset.fps,
        "tasks": [row["task"] for row in rows],
        "actions": [row["action"].tolist() for row in rows],
        "states": [row["observation.state"].tolist() for row in rows],
        "chunk_shape": list(rows[0]["action.chunk"].shape),
        "colours": [[half.mean((1, 2)).tolist() for half in row[CAMERA].chunk(2, dim=2)] for row in rows],
    }


def meet(lerobot: Path, keep: Path | None) -> None:
    """Our side: import what LeRobot wrote, let it read the import, and compare."""
    from mobile_vla.data import Dataset, schema, validate
    from mobile_vla.data.imports import import_data, read_mapping

    def peer(*arguments: object) -> str:
        command = [str(lerobot), __file__, *map(str, arguments)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    with tempfile.TemporaryDirectory() as scratch:
        for dtype in ("image", "video"):
            theirs = (keep or Path(scratch)) / f"lerobot_{dtype}"
            ours = Path(scratch) / f"ours_{dtype}"
            peer("--write", theirs, "--dtype", dtype)
            mapping = Path(scratch) / "mapping.yaml"
            mapping.write_text(json.dumps(MAPPING))
            report = import_data(theirs, "lerobot", ours, read_mapping(mapping, []))
            assert not validate(ours), validate(ours)
            dataset = Dataset.open(ours)
            largest = 0.0
            for number, episode in enumerate(dataset):
                taken = range(0, FRAMES[number], 2)
                expected = np.stack([action_of(number, frame)[6:] for frame in taken])
                expected[:, 2] = np.deg2rad(expected[:, 2])
                np.testing.assert_allclose(episode[schema.ACTION], expected, atol=1e-6)
                np.testing.assert_allclose(episode[schema.STATE], expected / 2, atol=1e-6)
                assert episode.instruction == TASKS[number]
                pictures = np.stack([picture_of(number, frame) for frame in taken]).astype(int)
                largest = max(largest, np.abs(episode.images() - pictures)[:, 16:, 4:28].mean(axis=(1, 2)).max())
            print(f"{dtype}: LeRobot wrote {sum(FRAMES)} frames, we imported {report.frames}, numbers equal to 1e-6,")
            print(f"  colour of the left half off by at most {largest:.1f} of 255 in the mean of a channel")
            seen = json.loads(peer("--read", ours).splitlines()[-1])
            assert (seen["episodes"], seen["frames"], seen["fps"]) == (len(dataset), dataset.total_frames, 5)
            columns = dataset.columns([schema.ACTION, schema.STATE])
            np.testing.assert_array_equal(np.array(seen["actions"], np.float32), columns[schema.ACTION])
            np.testing.assert_array_equal(np.array(seen["states"], np.float32), columns[schema.STATE])
            assert list(dict.fromkeys(seen["tasks"])) == list(TASKS)
            means = np.concatenate([episode.images().reshape(len(episode), HEIGHT, 2, -1, 3) for episode in dataset])
            gap = np.abs(np.array(seen["colours"]) - means.mean(axis=(1, 3)) / 255).max()
            assert gap < 0.01, gap
            print(f"  LeRobot read ours: {seen['frames']} frames, numbers equal, mean colours within {gap:.4f} of 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot", type=Path, metavar="PYTHON", help="Python of an environment with lerobot 0.4.4")
    parser.add_argument("--fixture", type=Path, metavar="DIR", help="keep what LeRobot writes here")
    parser.add_argument("--write", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--dtype", choices=("image", "video"), help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_by_lerobot(options.write, options.dtype)
    elif options.read:
        print(json.dumps(read_by_lerobot(options.read)))
    elif options.lerobot:
        meet(options.lerobot, options.fixture)
    else:
        parser.error("give --lerobot the Python of an environment with lerobot in it")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
