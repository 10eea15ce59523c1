import os
import subprocess
import sys
import uuid

import pytest

from mobile_vla.core import BaseError
from mobile_vla.robot.bases.claim import Claim

LIMIT_S = 30.0
HOLD = """
import sys
from mobile_vla.robot.bases.claim import Claim
claim = Claim(sys.argv[1])
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name():
    return f"can_{uuid.uuid4().hex[:8]}"


def test_it_is_refused_to_a_second_one_until_the_first_lets_go(name):
    first = Claim(name)
    with pytest.raises(BaseError, match=f"{name} is driven by this process already"):
        Claim(name)
    first.close()
    first.close()
    Claim(name).close()


def test_others_are_not_in_the_way(name):
    first, other = Claim(name), Claim(f"{name}x")
    first.close()
    other.close()


def test_another_process_is_named_and_the_kernel_takes_back_what_it_had_when_it_is_killed(name):
    with subprocess.Popen([sys.executable, "-c", HOLD, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"mine\n"
            for _ in range(3):  # asking changes nothing
                with pytest.raises(
                    BaseError, match=rf"{name} is driven by another process \(pid {other.pid}\) already"
                ):
                    Claim(name)
        finally:
            other.kill()
    Claim(name).close()


def test_when_more_ask_than_can_wait_it_is_still_refused(name):
    first = Claim(name)
    for _ in range(200):
        with pytest.raises(BaseError, match="already"):
            Claim(name)
    first.close()


def test_a_child_that_runs_another_program_does_not_inherit_it(name):
    first = Claim(name)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=()) as child:
        first.close()
        Claim(name).close()
        child.communicate(b"\n", LIMIT_S)
    assert child.pid != os.getpid()
