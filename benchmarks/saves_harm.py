"""What the drill of saves does to them: something just before a chosen call, and a disk that is too small."""

import ctypes
import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Trap:
    """Does something just before the n-th time that a save makes, renames, removes or syncs a file or folder."""

    at: int = 0
    spring: Callable[[], None] = lambda: None

    def install(self) -> None:
        """For good: hooks of this kind cannot be taken out, so this is for a process of its own."""
        sync = os.fsync

        def fsync(handle: int) -> None:
            self.step()
            sync(handle)

        os.fsync = fsync
        sys.addaudithook(lambda event, values: self.step() if self._counts(event, values) else None)

    @staticmethod
    def _counts(event: str, values: tuple[Any, ...]) -> bool:
        if event == "open":
            return isinstance(values[1], str) and bool(set(values[1]) & set("wax+"))
        return event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")

    def step(self) -> None:
        if self.at > 0:
            self.at -= 1
            if self.at == 0:
                self.spring()


@dataclass(frozen=True)
class SmallDisk:
    """A disk of its own, or where none can be mounted files that cannot grow."""

    root: Path
    mounted: bool

    def squeeze(self, free: int) -> None:
        """Leave so many bytes, of the disk or for any one file."""
        if self.mounted:
            self.relieve()
            with (self.root / "other").open("wb") as file:
                spare = shutil.disk_usage(self.root).free - free
                if spare > 0:
                    os.posix_fallocate(file.fileno(), 0, spare)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (free, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def relieve(self) -> None:
        if self.mounted:
            (self.root / "other").unlink(missing_ok=True)
        else:
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def small_disk(root: Path, size: int) -> SmallDisk:
    """Mounted in a name space of this process alone, so that it goes when the process does."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_user, new_mounts, private_all_below = 0x10000000, 0x00020000, (1 << 18) | (1 << 14)
    user, group = os.getuid(), os.getgid()
    mounted = libc.unshare(new_mounts) == 0
    if not mounted and libc.unshare(new_user | new_mounts) == 0:
        mounted = True
        for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path(f"/proc/self/{name}").write_text(line)
    mounted = mounted and libc.mount(None, b"/", None, private_all_below, None) == 0
    mounted = mounted and libc.mount(b"tmpfs", os.fsencode(root), b"tmpfs", 0, b"size=%d" % size) == 0
    return SmallDisk(root, mounted)
