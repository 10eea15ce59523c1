"""What an engine was made on. Elsewhere it is refused: it was chosen, compiled or tuned for that machine."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mobile_vla.core.provenance import processor

INSTRUCTIONS = frozenset(
    {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"}
    | {"asimd", "asimddp", "bf16", "i8mm", "sve"}
)
"""Instruction sets that decide which arithmetic is fast, as Linux names them."""


@dataclass(frozen=True)
class Fingerprint:
    """``device``: the GPU and its driver, empty for engines of the CPU; ``libraries``: versions by distribution."""

    system: str
    architecture: str
    processor: str
    instructions: tuple[str, ...]
    device: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "instructions": list(self.instructions), "libraries": dict(self.libraries)}

    def differences(self, other: "Fingerprint") -> list[str]:
        """In words, for each that differs: what this one has, and what the other."""
        mine, theirs = self.to_dict(), other.to_dict()
        mine |= mine.pop("libraries")
        theirs |= theirs.pop("libraries")
        return [
            f"{name}: {_said(mine.get(name))} there, {_said(theirs.get(name))} here"
            for name in [*mine, *(theirs.keys() - mine.keys())]
            if mine.get(name) != theirs.get(name)
        ]


def fingerprint(libraries: Iterable[str], device: str = "cpu") -> Fingerprint:
    """Of this machine, with the versions of these distributions; ``device`` is "cpu" or "cuda"."""
    return Fingerprint(
        system=platform.system(),
        architecture=platform.machine(),
        processor=processor(),
        instructions=_instructions(),
        device=_graphics() if device == "cuda" else "",
        libraries={name: _version(name) for name in libraries},
    )


def has_instruction(*names: str) -> bool:
    """This processor has one of these instruction sets."""
    return not set(names).isdisjoint(_instructions())


def _instructions() -> tuple[str, ...]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    flags = next(
        (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))), []
    )
    return tuple(sorted(INSTRUCTIONS.intersection(flags)))


def _graphics() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no GPU"
    about = torch.cuda.get_device_properties(0)
    return f"{about.name}, compute capability {about.major}.{about.minor}, CUDA {torch.version.cuda}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"


def _said(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value) or "none"
    return str(value) if value else "none"
