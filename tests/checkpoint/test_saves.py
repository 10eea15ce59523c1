import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mobile_vla.checkpoint.manifest import MANIFEST
from mobile_vla.checkpoint.store import WEIGHTS
from saves import kind_of
from saves_home import Home, kept, losses, mend, stage

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZE = 20_000


@pytest.fixture
def fast(tmp_path):
    """Memory where there is some to save to: a disk that waits for fsync shows nothing more of a kill."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path) as folder:
        yield folder


def test_no_checkpoint_is_lost_to_a_kill_or_a_full_disk(fast):
    command = [sys.executable, BENCHMARKS / "saves.py", "--kills=25", "--full-disks=8", "--bytes=200000", "--json"]
    ended = subprocess.run([*command, f"--folder={fast}"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    score = json.loads(ended.stdout)
    assert score["lost"] == []
    assert (score["kills"], score["full"]) == (25, 8)
    assert score["boundaries"] > 30
    assert {
        "before the first byte",
        "writing weights",
        "writing training",
        "writing config",
        "writing manifest",
        "between two files",
        "with the new manifest in place",
        "removing older ones",
    } <= score["stages"].keys()
    assert any(kind.startswith("met in the middle") for kind in score["errors"])


CARELESS = """
import shutil, sys
from pathlib import Path
import saves_home
from saves import Score, kill_at_boundaries
careful = saves_home.save

def save(folder, checkpoint):
    shutil.rmtree(folder, ignore_errors=True)
    careful(folder, checkpoint)

def prune(parent, last, best):
    for folder in sorted(parent.iterdir())[:-1]:
        shutil.rmtree(folder)

over, score = sys.argv[2] == "over", Score()
home = saves_home.Home(Path(sys.argv[1]), over, 20_000)
for step in range(1, 4):
    home.save(step)
setattr(saves_home, *(("save", save) if over else ("prune", prune)))
kill_at_boundaries([home], score)
print(len(score.lost))
"""


@pytest.mark.parametrize("how", ["over", "steps"])
def test_the_drill_sees_what_a_careless_save_or_pruning_loses(fast, how):
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    said = subprocess.run([sys.executable, "-c", CARELESS, fast, how], env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert int(said.stdout) == 1


@pytest.fixture(params=[False, True])
def home(tmp_path, request):
    home = Home(tmp_path, over=request.param, size=SIZE)
    for step in (1, 2, 3):
        home.save(step)
    return home


def test_nothing_is_lost_where_nothing_went_wrong(home):
    before = home.whole()[0]
    assert before == ([3] if home.over else kept([1, 2, 3]))
    reports = []
    home.save(4, reports.append)
    assert reports == ["begin 4", "saved 4", "done 4"]
    assert losses(home, before, reports) == mend(home) == home.leftovers() == []


def flip(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)


@pytest.mark.parametrize("harm", [flip, shutil.rmtree, lambda folder: (folder / MANIFEST).unlink()])
def test_a_checkpoint_that_is_no_longer_whole_is_a_loss(home, harm):
    before = home.whole()[0]
    harm(home.folder(3))
    assert losses(home, before, [])


def test_an_older_one_in_the_place_of_a_newer_is_a_loss(home, tmp_path):
    before = home.whole()[0]
    shutil.copytree(home.folder(3), tmp_path / "aside")
    home.save(4)
    shutil.rmtree(home.folder(4))
    shutil.move(tmp_path / "aside", home.folder(4))
    assert losses(home, before, ["begin 4", "saved 4"])


def test_what_is_left_over_is_seen(home):
    (home.folder(3) / ".weights.safetensors.partial").touch()
    assert home.leftovers() == [f"{home.folder(3).name}/.weights.safetensors.partial"]
    assert stage(home, ["begin 3"]) == "writing weights"


def test_pruning_keeps_the_best_and_the_last():
    for steps in ([], [5], [1, 2], list(range(1, 30))):
        left = kept(steps)
        assert left[-2:] == steps[-2:]
        assert len(left) <= 3
        assert left == sorted(left)


def test_errors_of_a_full_disk_are_told_apart():
    assert kind_of("x needs 3.1 MB of free space and has 20.0 kB; nothing").startswith("foreseen")
    assert kind_of("the disk of x is full (0 bytes free): it was").startswith("met")
    assert kind_of("cannot write x: Input/output error") == "another"
