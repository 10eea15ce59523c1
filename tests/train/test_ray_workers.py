"""On a real cluster of one node. Its drivers run in processes of their own, as Ray is loud in the one that it is in."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import torch

import mobile_vla
from mobile_vla.core import ActionContract, ConfigError
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.weights import save_network
from mobile_vla.train.generate import GenerateJob, generate
from mobile_vla.train.workers import TRIES, fan_out

from .toil import Task, Toil

pytestmark = pytest.mark.needs("ray")

TESTS = Path(__file__).parents[1]
PATIENCE_S = 290.0


@dataclass(frozen=True)
class Cluster:
    address: str
    environment: Mapping[str, str]

    def drive(self, program: str, folder: Path) -> Any:
        """What the last line of a program says, in JSON."""
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder), self.address],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two CPUs, and an installation that nobody changes meanwhile."""
    address = f"127.0.0.1:{free_port()}"
    place = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # its sockets' paths must be short
    shutil.copytree(Path(mobile_vla.__file__).parent, Path(place, "src", "mobile_vla"))
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": f"{place}/src{os.pathsep}{TESTS}"}
    with tempfile.TemporaryFile("w+") as said:
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
                *(f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1", f"--temp-dir={place}"),
                *("--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000"),
            ],
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + PATIENCE_S
            while "Ray runtime started" not in text_of(said):
                assert head.poll() is None, text_of(said)
                assert time.monotonic() < until, text_of(said)
                time.sleep(0.1)
            yield Cluster(address, environment)
        finally:
            head.terminate()
            try:
                head.wait(30)
            except subprocess.TimeoutExpired:
                head.kill()
                head.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            shutil.rmtree(place, ignore_errors=True)


def text_of(file: IO[str]) -> str:
    return os.pread(file.fileno(), 1 << 20, 0).decode()


TOIL = """
import json, sys
from pathlib import Path
from mobile_vla.core import MobileVLAError
from train.toil import Task, Toil
from mobile_vla.train.workers import fan_out
toil, address = Toil(Path(sys.argv[1])), sys.argv[2]
said = [list(fan_out(toil, [Task(number, kills=number == 3) for number in range(12)], 1, address))]
for bad in (Task(20, kills=99), Task(21, refuses=True)):
    try:
        list(fan_out(toil, [bad], 1, address))
    except MobileVLAError as error:
        said.append([type(error).__name__, str(error), str(error.__cause__)])
print(json.dumps(said))
"""


def test_a_cluster_does_as_local_processes_do(cluster: Cluster, tmp_path: Path) -> None:
    toil = Toil(tmp_path)
    results, deadly, refused = cluster.drive(TOIL, tmp_path)
    assert results == [number**2 for number in range(12)]
    begun = [len(toil.noted("begun", number)) for number in range(12)]
    assert begun[3] == 2
    assert sum(begun) in (13, 14)  # an answer can be lost with the worker that has gone on to the next task
    assert deadly[0] == "WorkersError"
    assert deadly[1].startswith("task 20 ended 3 workers, the last on the cluster (")
    assert len(toil.noted("begun", 20)) == TRIES
    assert refused[:2] == ["ConfigError", "task 21 cannot be done"]
    assert "toil.py" in refused[2]


DATA = """
import json, sys
from pathlib import Path
from mobile_vla.core import ActionContract
from mobile_vla.data import Dataset
from mobile_vla.evaluate import Job, drive_all, plan_episodes
from mobile_vla.language import Grammar
from mobile_vla.train.generate import GenerateJob, generate
folder, address = Path(sys.argv[1]), sys.argv[2]
job = GenerateJob("drive", first_seed=70, episodes=4, lanes=2, max_frames=4, policy=folder / "policy")
generate(job, folder / "data", ActionContract(), 1, address)
jobs = [Job(episode, "policy") for episode in plan_episodes("manoeuvres", 1, Grammar.load())]
far = list(drive_all(jobs, folder / "policy", 1, address))
hashes = [record.extras["scene_seed"] for record in Dataset.open(folder / "data").records]
print(json.dumps([hashes, far == list(drive_all(jobs, folder / "policy", 1))]))
"""


def test_episodes_come_back_and_figures_are_the_same(cluster: Cluster, tmp_path: Path) -> None:
    torch.manual_seed(1)
    sizes = CompactConfig(stem=4, middle=8, top=16, embedding=8, column=4, words=16, memory=16)
    save_network(tmp_path / "policy", CompactNetwork(sizes, ActionContract()), {"untrained": True})
    seeds, same = cluster.drive(DATA, tmp_path)
    assert seeds == list(range(70, 74))
    assert same


def test_where_no_cluster_answers_it_is_said_at_once(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match=f"no Ray cluster can be used at {address}"):
        next(fan_out(Toil(tmp_path), [Task(0)], 1, address))
    with pytest.raises(ConfigError, match="ray start --head"):
        generate(GenerateJob("survey", 0, 1), tmp_path / "data", ActionContract(), 1, f"ray://{address}")
