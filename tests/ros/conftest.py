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
