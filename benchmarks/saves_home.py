"""Where the drill of saves keeps its checkpoints, and how it tells whether one was lost."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_vla.checkpoint import Checkpoint, Metric, load, save
from mobile_vla.checkpoint.keep import prune, step_folder
from mobile_vla.checkpoint.manifest import MANIFEST, read_manifest
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.core import ActionContract, CheckpointError

LAST, BEST = 2, 1


def checkpoint_of(step: int, size: int) -> Checkpoint:
    """The one that is saved at ``step``: about ``size`` bytes, other ones at every step."""
    rng = np.random.default_rng(step)
    tensors = {f"layer{number}": rng.integers(0, 256, size // 8, np.uint8) for number in range(4)}
    training = {f"moment{number}": rng.integers(0, 256, size // 8, np.uint8) for number in range(4)}
    metric = Metric("success", score(step), "higher")
    return Checkpoint("compact", {}, ActionContract(), {}, tensors, training, step, metric)


def score(step: int) -> float:
    """Up and down, so that the best is not always among the last."""
    return step * 7919 % 101 / 101


def kept(steps: list[int]) -> list[int]:
    """What pruning leaves of checkpoints that are all whole."""
    best = sorted(steps, key=lambda step: (-score(step), step))[:BEST]
    return [step for step in steps if step in steps[-LAST:] or step in best]


@dataclass(frozen=True)
class Home:
    """Where steps are saved: each to a folder of its own with older ones pruned, or all over the same folder."""

    root: Path
    over: bool
    size: int

    def folder(self, step: int) -> Path:
        return self.root / "latest" if self.over else step_folder(self.root, step)

    def save(self, step: int, report: Callable[[str], None] = lambda line: None) -> None:
        checkpoint = checkpoint_of(step, self.size)
        report(f"begin {step}")
        save(self.folder(step), checkpoint)
        report(f"saved {step}")
        if not self.over:
            prune(self.root, last=LAST, best=BEST)
        report(f"done {step}")

    def whole(self) -> tuple[list[int], list[str]]:
        """Steps that are there to the last byte, in order, and what looks like a checkpoint and is none."""
        steps, wrong = [], []
        for folder in sorted(path.parent for path in self.root.glob(f"*/{MANIFEST}")):
            try:
                verdict, found = verify(folder), load(folder, training=True)
                expected = checkpoint_of(found.step or 0, self.size)
                same = [
                    ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)
                    for ours, theirs in ((found.tensors, expected.tensors), (found.training, expected.training))
                ]
                if verdict.state is State.WHOLE and all(same) and self.folder(found.step or 0) == folder:
                    steps.append(found.step or 0)
                else:
                    wrong.append(f"{folder.name} is {verdict.state}, step {found.step}: {verdict.damage}")
            except CheckpointError as error:
                wrong.append(str(error))
        return steps, wrong

    def leftovers(self) -> list[str]:
        """Files and folders that belong to no checkpoint."""
        found = []
        for folder in self.root.iterdir():
            named = {MANIFEST, *read_manifest(folder).files} if (folder / MANIFEST).exists() else set()
            found += [f"{folder.name}/{path.name}" for path in folder.iterdir() if path.name not in named]
            if not named:
                found.append(f"{folder.name} (no manifest)")
        return sorted(found)


def losses(home: Home, before: list[int], reports: list[str]) -> list[str]:
    """What is no longer whole that was ``before``, or became so since, and no newer one has taken its place."""
    now, wrong = home.whole()
    saved = [int(line.split()[1]) for line in reports if line.startswith("saved")]
    begun = [int(line.split()[1]) for line in reports if line.startswith("begin")]
    if home.over:
        allowed = {(saved or before)[-1], *begun[-1:]}
        return wrong + ([] if len(now) == 1 and set(now) <= allowed else [f"latest holds {now}, not one of {allowed}"])
    must = before
    for step in saved:
        must = kept([*must, step])
    return wrong + [f"step {step} is lost" for step in must if step not in now]


def stage(home: Home, reports: list[str]) -> str:
    """How far the save that was cut off had come, by what it left behind."""
    if not reports or reports[-1].startswith("done"):
        return "between two saves"
    verb, step = reports[-1].split()
    folder = home.folder(int(step))
    if verb == "saved":
        return "removing older ones" if home.leftovers() else "just after the save"
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    partial = sorted(name for name in names if name.endswith(".partial"))
    if partial:
        return f"writing {re.split(r'[.-]', partial[0].lstrip('.'))[0]}"
    if (folder / MANIFEST).exists() and read_manifest(folder).step == int(step):
        return "with the new manifest in place"
    new = [name for name in home.leftovers() if name.startswith(f"{folder.name}/")]
    return "between two files" if new else "before the first byte"


def mend(home: Home) -> list[str]:
    """The next save after a failure: what is wrong after it."""
    before, _ = home.whole()
    step = max(before) + 1
    home.save(step)
    now, wrong = home.whole()
    expected = [step] if home.over else kept([*before, step])
    return wrong + ([] if now == expected else [f"{now} are there, not {expected}"]) + home.leftovers()
