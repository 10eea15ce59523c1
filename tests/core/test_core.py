import subprocess
import sys

import mobile_vla.core as core


def test_every_public_name_is_there_once():
    assert len(set(core.__all__)) == len(core.__all__)
    assert all(hasattr(core, name) for name in core.__all__)


def test_it_loads_nothing_heavy():
    heavy = ("torch", "mujoco", "pyarrow", "gymnasium", "yaml", "PIL")
    code = f"import sys, mobile_vla.core; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
