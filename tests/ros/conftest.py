"""Domains and namespaces of their own for the tests of this room, confined to this machine."""

import os
import random
import uuid

import pytest


@pytest.fixture(scope="session")
def domain() -> int:
    """One per process that tests, below those whose ports lie among the ephemeral ones (32768 and up)."""
    return 1 + random.Random(os.getpid()).randrange(99)


@pytest.fixture
def namespace() -> str:
    """Unlike any other's, should two processes draw the same domain."""
    return f"/test_{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def nothing_stays_open():
    """A node that a test forgets keeps its domain open in this process, and harms a test far away."""
    from mobile_vla.ros import domain

    before = {number: shared.users for number, shared in domain._domains.items()}
    yield
    assert {number: shared.users for number, shared in domain._domains.items()} == before
