"""Whether a network fits into this machine, asked before it is made: afterwards the kernel may have ended us."""

import re
from pathlib import Path

from torch import nn

from mobile_vla.core import ConfigError

MEMINFO = Path("/proc/meminfo")
_GIB = 2**30


def require_memory(network: nn.Module) -> None:
    """ConfigError where the weights of ``network``, which may lie on the meta device, do not fit into free memory.

    Where a machine does not tell what is free (Linux does), nothing is refused.
    """
    needed = sum(each.numel() * each.element_size() for each in (*network.parameters(), *network.buffers()))
    free = _free_bytes()
    if free is not None and needed > free:
        count = sum(each.numel() for each in network.parameters())
        raise ConfigError(
            f"the network has {count:,} parameters, {needed / _GIB:.1f} GiB, and this machine has "
            f"{free / _GIB:.1f} GiB of free memory: name a smaller backbone (network.kosmos, network.clip), or use a "
            "machine with more"
        )


def _free_bytes() -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
