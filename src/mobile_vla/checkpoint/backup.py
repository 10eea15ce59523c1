"""A second copy of a damaged checkpoint before anyone works on it, since it may be the only one."""

import hashlib
import shutil
from pathlib import Path

from mobile_vla.checkpoint.atomic import PIECE, readable, replacing, require_space
from mobile_vla.core import CheckpointError


def disk_bytes(path: Path) -> int:
    """Of a file, or of all files below a folder."""
    return sum(each.stat().st_size for each in _files(path))


def backup_offer(path: Path) -> str:
    """One sentence: how large a copy would be, and whether the disk has room for it."""
    if not path.exists():
        raise CheckpointError(f"there is nothing at {path}")
    size, free = disk_bytes(path), shutil.disk_usage(path.parent).free
    room = "enough" if free > 2 * size else "too little for a copy beside what is recovered"
    return (
        f"{path} is only read; a copy of it would need {readable(size)}, and {readable(free)} are free here, {room} "
        "(--backup DIR makes one first)"
    )


def back_up(path: Path, folder: Path) -> Path:
    """Copy ``path`` into ``folder`` under a name that is free; every file is read back and compared.

    CheckpointError when the disk is too small or gives back other bytes; nothing is left of the copy then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, disk_bytes(path))
    target = _free(folder, path.name)
    if path.is_file():
        _copy(path, target)
        return target
    try:
        for file in _files(path):
            place = target / file.relative_to(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(file, place)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target


def _copy(source: Path, target: Path) -> None:
    digest, back = hashlib.sha256(), hashlib.sha256()
    with source.open("rb") as original, replacing(target) as copy:
        while piece := original.read(PIECE):
            digest.update(piece)
            copy.write(piece)
        copy.flush()
        copy.seek(0)
        while piece := copy.read(PIECE):
            back.update(piece)
        if digest.digest() != back.digest():
            raise CheckpointError(f"the copy {target} has other bytes than {source}: check this disk")


def _free(folder: Path, name: str) -> Path:
    names = (f"{name}.backup{number}" for number in ("", *(f"-{count}" for count in range(2, 1000))))
    return next(folder / each for each in names if not (folder / each).exists())


def _files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
