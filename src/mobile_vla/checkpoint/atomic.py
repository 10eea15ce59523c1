"""Files that are whole or not there: temporary file, fsync, read back, rename, fsync of the folder."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mobile_vla.core import CheckpointError

PARTIAL = ".partial"
"""Suffix of a file that is still being written."""
PIECE = 4 * 2**20
"""Bytes read at once: enough for the disk's full speed, little enough for any robot's memory."""

_SPARE_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def require_space(folder: Path, needed_bytes: int) -> None:
    """CheckpointError that names what is free and what is needed, when ``folder``'s disk is too small."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SPARE_BYTES:
        raise CheckpointError(
            f"{folder} needs {readable(needed_bytes + _SPARE_BYTES)} of free space and has {readable(free)}; "
            "nothing was written there and what was saved before is untouched: free some space and save again"
        )


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, read and seek in that takes the place of ``path`` when the block ends without an error.

    It is on the disk, to the last byte, before the name changes, and so is the new name before this returns. With an
    error nothing is left of it. CheckpointError for a full or broken disk.
    """
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with temporary.open("w+b") as file:
            yield file
            to_the_disk(file)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in _FULL:
            free = shutil.disk_usage(path.parent).free
            raise CheckpointError(
                f"the disk of {path} is full ({readable(free)} free): it was not written, and what was saved before is "
                "untouched; free some space and save again"
            ) from error
        raise CheckpointError(f"cannot write {path}: {error.strerror}; what was saved before is untouched") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> str:
    """Write a small file in one piece, read it back, and return its SHA-256. CheckpointError as ``replacing``."""
    with replacing(path) as file:
        file.write(data)
        to_the_disk(file)
        file.seek(0)
        if file.read() != data:
            raise other_bytes(path)
    return hashlib.sha256(data).hexdigest()


def to_the_disk(file: BinaryIO) -> None:
    """All that was written to ``file`` is on the disk; where the system can do it, the next read comes from there."""
    file.flush()
    os.fsync(file.fileno())
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def other_bytes(path: Path) -> CheckpointError:
    """The error for a disk that does not give back what was written."""
    return CheckpointError(
        f"the disk gives back other bytes for {path} than were written: it was not saved, and what was saved before is "
        "untouched; check this disk, or save to another"
    )


def sync_folder(folder: Path) -> None:
    """Names in ``folder`` are on the disk when this returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def readable(size_bytes: float) -> str:
    """Bytes for people: 6.4 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            break
        size_bytes /= 1000
    return f"{size_bytes:.0f} bytes" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
