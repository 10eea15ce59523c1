"""What stands for ssh in the tests of copying: the other end of rsync's own protocol, on this machine, over a pipe."""

import os
import shlex
import sys
from pathlib import Path

_SSH = r"""#!/bin/sh
# as ssh: options and the host come first, and what follows is joined and handed to a shell
while case $1 in -?*) true ;; *) false ;; esac; do shift 2; done
shift
echo "$*" >>{folder}/log
filter=$(sed -n 1p {folder}/plan)
sed -i 1d {folder}/plan
if [ -z "$filter" ]; then exec sh -c "$*"; fi
mkfifo {folder}/pipe.$$
exec 3<&0
sh -c "exec $*" <&3 >{folder}/pipe.$$ &
eval "$filter" <{folder}/pipe.$$
kill $! 2>/dev/null  # a line that breaks does so both ways
exit 0
"""


_FIRST = """
import os, select, sys
left = int(sys.argv[1])
while left and (data := os.read(0, min(left, 1 << 15))):
    left -= len(data)
    while data:
        select.select([], [1], [])  # rsync has made it one that does not wait
        data = data[os.write(1, data):]
"""


def first(count: int) -> str:
    """A filter that passes on so many bytes, each as soon as it comes."""
    return f"{shlex.quote(sys.executable)} -I -S -c {shlex.quote('exec(' + repr(_FIRST) + ')')} {count}"


ALL = first(1 << 60)


class FarSide:
    """``plan`` holds a shell filter for each connection that is still to come: what it lets through arrives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._plan, self._log = folder / "plan", folder / "log"
        self._plan.touch()
        self._log.touch()
        self.program = folder / "far side"  # rsync splits RSYNC_RSH at spaces that are not quoted
        self.program.write_text(_SSH.replace("{folder}", shlex.quote(str(folder))))
        self.program.chmod(0o700)

    @property
    def shell(self) -> str:
        return f"'{self.program}'"

    def plan(self, *filters: str) -> None:
        self._plan.write_text("".join(f"{each}\n" for each in filters))

    @property
    def connections(self) -> int:
        return len(self._log.read_text().splitlines())


def everything(path: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Names, modes, dates and contents below ``path``, to see that nothing of it was changed."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in (".", *names):
            each = Path(folder, name)
            about = each.lstat()
            content = each.read_bytes() if each.is_file() else None
            found[str(each)] = (about.st_mode, about.st_mtime_ns, content)
    return found
