"""Where a report comes from: everything needed to make it again, or to know why it cannot be."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mobile_vla
from mobile_vla import __version__
from mobile_vla.checkpoint import load
from mobile_vla.checkpoint.manifest import CHECKPOINT, read_manifest
from mobile_vla.core.provenance import git_commit, machine
from mobile_vla.engine.folder import is_engine, read_engine
from mobile_vla.language import Grammar
from mobile_vla.sim.world import World

_PACKAGES = ("torch", "mujoco", "numpy", "scikit-fmm", "scipy")


@dataclass(frozen=True)
class Provenance:
    """``weights_sha256``: the checkpoint's identity, the same wherever and whenever the same weights are saved;
    ``checkpoint_sha256``: of that and of its config. ``source_sha256``: of this package as it is installed.
    ``git_commit``: see ``core.provenance``. ``engine``: name, precision and machine of one that decides in the
    network's place, None where PyTorch does as for training.
    """

    checkpoint: str
    checkpoint_sha256: str
    weights_sha256: str
    checkpoint_origin: dict[str, Any]
    contract: dict[str, Any]
    suites: tuple[str, ...]
    episodes_per_suite: int
    first_seed: int
    grammar_split: str
    source_sha256: str
    git_commit: str | None
    versions: dict[str, str]
    machine: str
    renderer: str
    base: str
    began: str
    engine: dict[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """Of everything that an episode's result hangs on, beside its plan."""
        parts = (self.checkpoint_sha256, self.source_sha256, self.renderer, self.base, *sorted(self.versions.items()))
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def provenance(
    checkpoint: Path, grammar: Grammar, *, first_seed: int, episodes: int, suites: Sequence[str]
) -> Provenance:
    """Of an evaluation that begins now. CheckpointError for a checkpoint that is missing or damaged."""
    engine = read_engine(checkpoint) if is_engine(checkpoint) else None
    folder = checkpoint / CHECKPOINT if engine else checkpoint
    loaded, manifest = load(folder), read_manifest(folder)
    parts = [manifest.identity, manifest.files[manifest.config].sha256]
    about = None
    if engine:
        parts.append(hashlib.sha256(engine.to_json()).hexdigest())
        about = {"name": engine.engine, "precision": engine.precision, "machine": engine.machine.to_dict()}
    world = World(base="rollers")
    renderer = world.renderer_name
    world.close()
    return Provenance(
        checkpoint=str(checkpoint),
        checkpoint_sha256=hashlib.sha256(" ".join(parts).encode()).hexdigest(),
        weights_sha256=manifest.identity,
        checkpoint_origin=dict(loaded.origin),
        contract=loaded.contract.to_dict(),
        suites=tuple(suites),
        episodes_per_suite=episodes,
        first_seed=first_seed,
        grammar_split=grammar.split_hash,
        source_sha256=_source_hash(),
        git_commit=git_commit(),
        versions={"mobile_vla": __version__, "python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
        machine=machine(),
        renderer=renderer,
        base="rollers",
        began=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        engine=about,
    )


def _source_hash() -> str:
    """Over the names and contents of the package's own files, weights aside."""
    root, digest = Path(mobile_vla.__file__).parent, hashlib.sha256()
    for path in sorted(path for suffix in ("py", "yaml") for path in root.rglob(f"*.{suffix}")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
