"""An engine on the disk: its files, the policy's checkpoint that it was made from, and what every byte must hash to.

``engine.json`` is written last; ``checkpoint/`` shares its files with the original where the disk allows it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dacite

from mobile_vla import __version__
from mobile_vla.checkpoint.atomic import PARTIAL, PIECE, sync_folder, write_bytes
from mobile_vla.checkpoint.manifest import CHECKPOINT, ENGINE, MANIFEST, engine_instead, read_manifest
from mobile_vla.core import CheckpointError, ConfigError, DamagedCheckpointError
from mobile_vla.core.provenance import git_commit
from mobile_vla.engine.backends import backend
from mobile_vla.engine.backends.base import Backend, Making, Opening
from mobile_vla.engine.fingerprint import Fingerprint, fingerprint
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.step import DecisionStep, Inputs, step_of
from mobile_vla.policy.weights import load_network

_FORMAT, _SELF = 1, "engine_sha256"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What one file has to be."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class EngineManifest:
    """``identity``: of the checkpoint's weights. ``parameters``: numbers that the decision it was made from has.

    ``shorten``: what was left out of the network, as ``policy.shorten.read_shortening`` reads it; empty for nothing.
    ``notes``: what was measured of it, by whoever made it.
    """

    engine: str
    precision: str
    sessions: int
    policy: str
    identity: str
    parameters: int
    machine: Fingerprint
    files: Mapping[str, FileRecord]
    made: Mapping[str, Any]
    shorten: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """With the hash of itself."""
        values = {"format": _FORMAT, **asdict(self), "machine": self.machine.to_dict()}
        values[_SELF] = _digest(values)
        return json.dumps(values, indent=1, ensure_ascii=False).encode() + b"\n"


def is_engine(folder: Path) -> bool:
    """An engine was made there; says nothing of damage since."""
    return (folder / ENGINE).exists()


def make_engine(
    checkpoint: Path,
    out: Path,
    engine: str,
    precision: str,
    sessions: int = 1,
    calibration: Sequence[Inputs] = (),
    notes: Mapping[str, Any] | None = None,
    shorten: str = "",
) -> EngineManifest:
    """Make an engine of a policy for this machine; ``out`` is whole or as it was before.

    ``calibration``: as in ``backends.base.Making``; ``shorten``: as in ``EngineManifest``. ConfigError for a precision
    that the engine or the machine does not have, for ``sessions`` below 1, for what cannot be left out, and where
    ``out`` holds anything but an engine; errors of ``load_network``.
    """
    runs = usable(engine, precision)
    require_checkpoint(checkpoint)
    if sessions < 1:
        raise ConfigError(f"an engine for {sessions} sessions decides nothing: choose at least 1")
    require_room(out)
    partial = out.with_name(f".{out.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        bring_checkpoint(checkpoint, partial / CHECKPOINT)
        step = decision_of(partial / CHECKPOINT, shorten)
        known = read_manifest(partial / CHECKPOINT)
        parameters = count_parameters(step)
        runs.write(Making(step, precision, sessions, partial, calibration))
        manifest = EngineManifest(
            engine=engine,
            precision=precision,
            sessions=sessions,
            policy=known.policy,
            identity=known.identity,
            parameters=parameters,
            machine=fingerprint(runs.libraries, runs.device),
            files=_records(partial),
            made={
                "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "git_commit": git_commit(),
                "mobile_vla": __version__,
            },
            shorten=shorten,
            notes=dict(notes or {}),
        )
        write_bytes(partial / ENGINE, manifest.to_json())
        exchange(partial, out)
    except OSError as error:
        raise CheckpointError(f"the engine cannot be written to {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def require_checkpoint(folder: Path) -> None:
    """ConfigError for an engine, of which no other is made."""
    if is_engine(folder):
        raise ConfigError(engine_instead(folder))


def require_room(out: Path) -> None:
    """ConfigError where ``out`` holds anything but an engine, which another may take the place of."""
    if out.exists() and not is_engine(out) and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} holds something that is no engine: choose another folder with --out")


def usable(engine: str, precision: str) -> Backend:
    """The engine of this name, if it and this machine have the precision; ConfigError says what else there is."""
    runs = backend(engine)
    if precision not in runs.precisions:
        raise ConfigError(
            f"the engine {engine} has no precision {precision!r}: choose among {', '.join(runs.precisions)}"
        )
    if reason := runs.unusable(precision):
        raise ConfigError(f"the engine {engine} cannot run in {precision} here: {reason}")
    return runs


def count_parameters(step: DecisionStep) -> int:
    """Numbers that the decision's parameters hold, each once."""
    return sum(parameter.numel() for parameter in step.parameters())


def note(folder: Path, **values: Any) -> EngineManifest:
    """Add to an engine's notes what was found out after it was made."""
    manifest = read_engine(folder)
    manifest = replace(manifest, notes={**manifest.notes, **values})
    write_bytes(folder / ENGINE, manifest.to_json())
    return manifest


def read_engine(folder: Path) -> EngineManifest:
    """CheckpointError where there is none, DamagedCheckpointError where ``engine.json`` is not as it was written."""
    path = folder / ENGINE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"no engine at {folder}: {ENGINE} cannot be read ({error.strerror})") from error
    try:
        values = json.loads(data)
        if not isinstance(values, dict) or values.pop("format", None) != _FORMAT:
            raise CheckpointError(f"the engine at {folder} was made by another version of mobile-vla: export it again")
        values.pop(_SELF, None)
        manifest = dacite.from_dict(EngineManifest, values, dacite.Config(strict=True, cast=[tuple]))
    except (ValueError, RecursionError, dacite.DaciteError) as error:
        raise DamagedCheckpointError(path, f"it cannot be read ({error}): export the engine again") from error
    if manifest.to_json() != data:
        raise DamagedCheckpointError(path, "it was changed after it was written: export the engine again")
    return manifest


def open_engine(folder: Path, threads: int = 1) -> EnginePolicy:
    """The policy with its decisions made by the engine, on so many threads of a CPU.

    Errors of ``require_sound``; CheckpointError for an engine that its library cannot read.
    """
    manifest = require_sound(folder)
    step = decision_of(folder / CHECKPOINT, manifest.shorten)
    runs = backend(manifest.engine)
    return EnginePolicy(runs.open(Opening(step, manifest.precision, manifest.sessions, folder, threads)), step)


def require_sound(folder: Path) -> EngineManifest:
    """The manifest of an engine that can be opened here, as far as can be told without opening it.

    DamagedCheckpointError where a file is not what was written; CheckpointError for an engine of another machine, of
    other weights than lie within it, or without any; ConfigError where its library is not installed.
    """
    manifest = read_engine(folder)
    runs = usable(manifest.engine, manifest.precision)
    differences = manifest.machine.differences(fingerprint(runs.libraries, runs.device))
    if differences:
        raise CheckpointError(
            f"the engine at {folder} was made for another machine ({'; '.join(differences)}): make one here with "
            f"mobile-vla export {folder / CHECKPOINT} --out DIR"
        )
    _require_files(folder, manifest)
    try:
        identity = read_manifest(folder / CHECKPOINT).identity
    except DamagedCheckpointError:
        raise
    except CheckpointError as error:
        raise CheckpointError(f"the engine at {folder} has lost its {CHECKPOINT}: export it again") from error
    if identity != manifest.identity:
        raise CheckpointError(
            f"the engine at {folder} was made from weights {manifest.identity[:16]}, beside it lie {identity[:16]}: "
            "export it again"
        )
    return manifest


def decision_of(checkpoint: Path, shorten: str = "") -> DecisionStep:
    """Of a checkpoint's network, or of what is left of it. ConfigError for what cannot be left out."""
    network = load_network(checkpoint)
    if shorten:
        from mobile_vla.policy.shorten import read_shortening
        from mobile_vla.policy.shorten import shorten as shortened

        network = shortened(network, read_shortening(shorten))  # type: ignore[type-var]
    return step_of(network)


def bring_checkpoint(checkpoint: Path, to: Path) -> None:
    """Its files into a new folder, by hard links, or as copies where the disk has none."""
    to.mkdir(parents=True)
    for name in (*read_manifest(checkpoint).files, MANIFEST):
        try:
            os.link(checkpoint / name, to / name)
        except OSError:
            shutil.copy2(checkpoint / name, to / name)


def exchange(partial: Path, out: Path) -> None:
    """``partial``, complete, takes the place of ``out``."""
    sync_folder(partial)
    if out.exists():
        old = out.with_name(f".{out.name}.old{PARTIAL}")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out, old)
        os.replace(partial, out)
        shutil.rmtree(old)
    else:
        os.replace(partial, out)
    sync_folder(out.parent)


def _records(folder: Path) -> dict[str, FileRecord]:
    """Of the engine's own files; the checkpoint has a manifest of its own."""
    files = [each for each in sorted(folder.rglob("*")) if each.is_file()]
    names = {each: each.relative_to(folder).as_posix() for each in files}
    return {name: _record(each) for each, name in names.items() if not name.startswith(f"{CHECKPOINT}/")}


def _record(path: Path) -> FileRecord:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
    return FileRecord(size, digest.hexdigest())


def _require_files(folder: Path, manifest: EngineManifest) -> None:
    for name, known in manifest.files.items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise DamagedCheckpointError(folder / ENGINE, f"it names a file elsewhere, {name}: export the engine again")
        try:
            found = _record(path)
        except OSError as error:
            raise DamagedCheckpointError(
                path, f"it cannot be read ({error.strerror}): export the engine again"
            ) from error
        if found != known:
            raise DamagedCheckpointError(path, "it holds other bytes than were written: export the engine again")


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
