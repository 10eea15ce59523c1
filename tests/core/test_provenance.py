import re
import subprocess

import pytest

from mobile_vla.core import provenance


def test_a_commit_is_a_hash_and_says_when_files_differ() -> None:
    commit = provenance.git_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", commit)


def test_outside_a_checkout_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 128, "", "fatal: not a git repository")

    monkeypatch.setattr(subprocess, "run", fails)
    assert provenance.git_commit() is None


def test_the_machine_names_its_processor() -> None:
    assert provenance.processor() in provenance.machine()
