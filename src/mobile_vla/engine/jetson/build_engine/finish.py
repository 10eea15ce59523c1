"""The folder's own papers: what was exported into it, and ``engine.json``, by which the engine may be driven with."""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .cuda import BuildError

DRAFT, ENGINE, PLAN, PLAN_MACHINE, CACHE = "draft.json", "engine.json", "decision.plan", "plan.json", "timing.cache"
_FORMAT, _SELF = 1, "engine_sha256"


def read_draft(folder: Path) -> dict[str, Any]:
    """What was exported. BuildError where a file is missing or is not what was exported."""
    try:
        draft = json.loads((folder / DRAFT).read_bytes())
        if draft.get("format") != _FORMAT:
            raise BuildError(f"{folder / DRAFT} is of another version: use the build_engine that was exported with it")
        for name, known in draft["files"].items():
            if record(folder / name) != known:
                raise BuildError(f"{folder / name} is not what was exported: copy the folder again")
    except OSError as error:
        raise BuildError(
            f"{error.filename} cannot be read ({error.strerror}): run this in a folder that mobile-vla export "
            "--for jetson made, or name it by --folder"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{folder / DRAFT} cannot be understood ({error}): copy the folder again") from error
    return dict(draft)


def forget(folder: Path) -> None:
    """No engine is here any more, until ``finish`` says so."""
    (folder / ENGINE).unlink(missing_ok=True)


def finish(folder: Path, draft: Mapping[str, Any], machine: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Write ``engine.json``: the draft's manifest with this machine, the plan's hashes and what was found."""
    values = dict(draft["manifest"])
    values["machine"] = dict(machine)
    values["files"] = {name: record(folder / name) for name in (PLAN, PLAN_MACHINE)}
    values["made"] = {**values["made"], "at": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    values["notes"] = {**values["notes"], **notes}
    plain = json.dumps(values, sort_keys=True, separators=(",", ":"))
    values[_SELF] = hashlib.sha256(plain.encode()).hexdigest()
    write(folder / ENGINE, json.dumps(values, indent=1, ensure_ascii=False).encode() + b"\n")


def write(path: Path, data: bytes) -> None:
    """Whole, or as it was before."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BuildError(
            f"{path} cannot be written ({error.strerror}): is the disk full or the folder not yours?"
        ) from error


def record(path: Path) -> dict[str, Any]:
    """Size and hash of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
            size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}
