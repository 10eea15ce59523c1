"""torch and the GPU: is there a torch, can it be loaded, was it built for this machine, and does it see the GPU.

The wrong build is the usual trouble on a Jetson: the general index has none for its GPU, so pip takes one for servers
or for the processor alone. NVIDIA's builds are at https://pypi.jetson-ai-lab.io (a folder for each JetPack and CUDA).
"""

import os
import platform
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mobile_vla.doctor.check import Check, Problem, State, checked
from mobile_vla.doctor.process import PIP, Answer, ask, output_of
from mobile_vla.doctor.purpose import Purpose

LIMIT_S = 90.0
"""Loading torch from a cold SD card takes most of a minute."""
OLDEST_TORCH = (2, 6)

_JETSON_INDEX = {36: "https://pypi.jetson-ai-lab.io/jp6/cu126"}
_NEWER_JETSON_INDEX = "https://pypi.jetson-ai-lab.io/sbsa/cu130"
_OLDEST_JETSON = 36
"""Releases of Jetson Linux: 36 is JetPack 6, with Python 3.10; 35 came with 3.8."""
_TORCH_INDEX = "https://download.pytorch.org/whl"
_GENERAL_INDEX_FITS = ("x86_64", "AMD64")
_BUILDS = {11: "cu118", 12: "cu126", 13: "cu130"}
"""The build to take by the newest CUDA that the driver knows: within a major version any of them runs.

https://docs.nvidia.com/deploy/cuda-compatibility/
"""
_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object file")
_LIBRARY_FOLDERS = (
    "usr/local/cuda/lib64",
    "usr/local/cuda*/lib64",
    "usr/local/cuda*/targets/*/lib",
    "usr/lib/*-linux-gnu",
    "usr/lib/*-linux-gnu/nvidia",
    "usr/lib/*-linux-gnu/openblas-pthread",
)
_BROUGHT_BY = {
    "libcusparseLt": f"{PIP} install nvidia-cusparselt-cu12",
    "libcudss": f"{PIP} install nvidia-cudss-cu13",
    "libnvpl_blas": f"{PIP} install nvpl-blas",
    "libnvpl_lapack": f"{PIP} install nvpl-lapack nvpl-blas",
    "libopenblas": "sudo apt-get install -y libopenblas0",
    "libgomp": "sudo apt-get install -y libgomp1",
}
"""Libraries that builds for the Jetson ask for and do not bring. Where pip puts them the loader does not look."""


@dataclass(frozen=True, slots=True)
class Jetson:
    """``release`` of Jetson Linux: 36 is JetPack 6; 0 where it cannot be told."""

    model: str
    release: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """What is there, without asking torch. ``driver_cuda``: the newest CUDA that the driver knows."""

    names: tuple[str, ...] = ()
    driver: str | None = None
    driver_cuda: tuple[int, int] | None = None
    toolkit: str | None = None
    jetson: Jetson | None = None

    @property
    def present(self) -> bool:
        """There is a GPU that torch might use."""
        return bool(self.names or self.jetson)


@dataclass(frozen=True, slots=True)
class Torch:
    """``installed``: the version that pip knows; ``answer`` of the process that loads it; None: nobody asked.

    ``lost_library``: a shared library that loading did not find; ``found_in``: a folder that has it after all.
    """

    installed: str | None
    answer: Answer | None = None
    lost_library: str | None = None
    found_in: str | None = None

    @property
    def loaded(self) -> Mapping[str, object]:
        """What it says of itself; nothing where it cannot be loaded."""
        return (self.answer.values if self.answer else None) or {}


def look_at_gpu(root: Path) -> Gpu:
    """By the system's own files below ``root``, and nvidia-smi, which does not need torch."""
    names = (output_of(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], 20.0) or "").strip()
    rows = [row.split(", ") for row in names.splitlines() if ", " in row]
    known = re.search(r"CUDA (?:UMD )?Version:\s*(\d+)\.(\d+)", (output_of(["nvidia-smi"], 20.0) or "") if rows else "")
    return Gpu(
        names=tuple(row[0] for row in rows),
        driver=rows[0][1] if rows else None,
        driver_cuda=(int(known[1]), int(known[2])) if known else None,
        toolkit=_toolkit(root),
        jetson=jetson_of(root),
    )


def jetson_of(root: Path) -> Jetson | None:
    """The Jetson that this is; None for another machine. Both files are Jetson Linux's own."""
    model = _text(root / "proc/device-tree/model").strip("\0 \n")
    release = re.search(r"# R(\d+)", _text(root / "etc/nv_tegra_release"))
    if release is None and "jetson" not in model.lower():
        return None
    return Jetson(model or "Jetson", int(release[1]) if release else 0)


def look_at_torch(root: Path) -> Torch:
    """Loads it in another process: a build for another machine may end the process that loads it."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return Torch(None)
    answer = ask("torch", {}, LIMIT_S)
    lost = _LIBRARY.search(answer.trouble)
    return Torch(installed, answer, lost and lost[1], lost and _folder_of(lost[1], root))


def judge_torch(seen: Torch, gpu: Gpu, purpose: Purpose) -> Check:
    """Can the policy run here at all?"""
    bad = State.FAIL if purpose.needs_policy else State.NOT_NEEDED
    if seen.installed is None:
        if not purpose.needs_policy:
            return Check("torch", State.NOT_NEEDED, "not installed; the policy runs on another machine")
        return checked("torch", "", [Problem(bad, "not installed", install_lines(gpu, fresh=True))])
    if seen.answer is None or seen.answer.values is None:
        trouble = seen.answer.trouble if seen.answer else "not looked at"
        if seen.lost_library is not None:
            return checked("torch", seen.installed, [_library_problem(seen.lost_library, seen.found_in, gpu, bad)])
        wrong = "; it was built for another machine" if "SIGILL" in trouble else ""
        problem = Problem(bad, f"{seen.installed} cannot be loaded: {trouble}{wrong}", install_lines(gpu))
        return checked("torch", "", [problem])
    problems = []
    if _numbers(seen.installed) < OLDEST_TORCH:
        problems.append(Problem(bad, f"{seen.installed} is too old: 2.6 or newer is needed", install_lines(gpu)))
    cuda = seen.loaded.get("cuda")
    return checked("torch", f"{seen.installed}, {f'built for CUDA {cuda}' if cuda else 'built without CUDA'}", problems)


def judge_gpu(seen: Torch, gpu: Gpu, purpose: Purpose) -> Check:
    """Does torch see the GPU? Without it the policy runs on the processor, so nothing here is worse than a warning."""
    facts = _gpu_facts(gpu)
    if not gpu.present:
        device = seen.loaded.get("device")
        return Check("GPU", State.OK, str(device) if device else "none; the policy runs on the processor")
    if not purpose.needs_policy:
        return Check("GPU", State.NOT_NEEDED, facts)
    problems = []
    if gpu.jetson is not None and 0 < gpu.jetson.release < _OLDEST_JETSON:
        sentence = (
            f"Jetson Linux R{gpu.jetson.release} is older than JetPack 6, the first with Python 3.10: flash a newer"
        )
        problems.append(Problem(State.WARN, sentence))
    elif seen.loaded:
        problems += _blindness(seen, gpu)
    else:
        problems.append(Problem(State.WARN, "torch has to be repaired before it can use it"))
    facts = f"{seen.loaded.get('device')} computes; {facts}" if seen.loaded.get("computes") else facts
    return checked("GPU", facts, problems)


def install_lines(gpu: Gpu, *, fresh: bool = False) -> tuple[str, ...]:
    """The line that installs the torch for this machine, if there is one; ``fresh`` where none is installed yet.

    Then it is the line of ``cli.extras``, the one that every other command gives, where that brings a torch that fits.
    """
    if fresh and gpu.jetson is None and platform.machine() in _GENERAL_INDEX_FITS:
        return (f'{PIP} install -e ".[policy]"  # in the checkout',)
    again = "" if fresh else " --force-reinstall --no-deps"
    if gpu.jetson is not None:
        if 0 < gpu.jetson.release < _OLDEST_JETSON:
            return ()  # nobody builds a torch for it that we can use
        index = _JETSON_INDEX.get(gpu.jetson.release, _NEWER_JETSON_INDEX)
        return (f"{PIP} install{again} torch --index-url {index}",)
    if gpu.driver_cuda is not None:
        build = _BUILDS.get(gpu.driver_cuda[0], _BUILDS[max(_BUILDS)])
        return (f"{PIP} install{again} torch --index-url {_TORCH_INDEX}/{build}",)
    return (f"{PIP} install{again} torch --index-url {_TORCH_INDEX}/cpu",)


def _blindness(seen: Torch, gpu: Gpu) -> list[Problem]:
    """Why a torch that can be loaded does not compute on a GPU that is there."""
    cuda = seen.loaded.get("cuda")
    if seen.loaded.get("computes"):
        return []
    if not cuda:
        where = "the wheel of the general index, " if gpu.jetson is not None else ""
        sentence = f"this torch is {where}built for the processor alone, so the GPU is not used"
        return [Problem(State.WARN, sentence, install_lines(gpu))]
    if gpu.driver_cuda is not None and _numbers(str(cuda))[0] > gpu.driver_cuda[0]:
        newest = ".".join(map(str, gpu.driver_cuda))
        sentence = f"the driver {gpu.driver} knows CUDA up to {newest}, torch was built for {cuda}: the GPU is not used"
        return [Problem(State.WARN, sentence, install_lines(gpu))]
    trouble = str(seen.loaded.get("trouble") or "torch sees no GPU")
    if "no kernel image" in trouble:
        sentence = f"this torch has nothing that runs on this GPU ({seen.loaded.get('device')})"
        return [Problem(State.WARN, sentence, install_lines(gpu))]
    if gpu.jetson is not None:
        rights = 'sudo usermod -aG video,render "$USER"'
        return [Problem(State.WARN, f"the GPU is not used: {trouble}", (rights, *install_lines(gpu)))]
    return [Problem(State.WARN, f"the GPU is not used: {trouble}", ("sudo modprobe nvidia_uvm", "nvidia-smi"))]


def _library_problem(library: str, found_in: str | None, gpu: Gpu, bad: State) -> Problem:
    if found_in is not None:
        line = f"export LD_LIBRARY_PATH={shlex.quote(found_in)}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
        return Problem(bad, f"{library} is in {found_in}, where the loader does not look", (line,))
    brought = next((line for name, line in _BROUGHT_BY.items() if library.startswith(name)), None)
    if brought is None and gpu.jetson is not None and library.startswith(("libcu", "libnv")):
        brought = "sudo apt-get install -y nvidia-jetpack"
    return Problem(bad, f"it needs {library}, which is nowhere", (brought,) if brought else install_lines(gpu))


def _folder_of(library: str, root: Path) -> str | None:
    """The folder below ``root``, or of a package of NVIDIA's by pip, that has it."""
    import sysconfig

    packages = Path(sysconfig.get_paths()["purelib"])
    places = [folder for pattern in _LIBRARY_FOLDERS for folder in sorted(root.glob(pattern))]
    places += sorted(packages.glob("nvidia/*/lib")) + sorted(packages.glob("nvpl/lib"))
    return next((os.fspath(folder) for folder in places if (folder / library).exists()), None)


def _toolkit(root: Path) -> str | None:
    """Of CUDA as installed beside the driver; torch brings its own, so this is only told."""
    found = re.search(r'"cuda"\s*:\s*{[^}]*"version"\s*:\s*"([\d.]+)"', _text(root / "usr/local/cuda/version.json"))
    return found[1] if found else None


def _gpu_facts(gpu: Gpu) -> str:
    facts = list(gpu.names)
    if gpu.jetson is not None:
        facts.append(
            f"{gpu.jetson.model}, Jetson Linux R{gpu.jetson.release}" if gpu.jetson.release else gpu.jetson.model
        )
    if gpu.driver:
        newest = f", knows CUDA up to {'.'.join(map(str, gpu.driver_cuda))}" if gpu.driver_cuda else ""
        facts.append(f"driver {gpu.driver}{newest}")
    facts += [f"toolkit {gpu.toolkit}"] if gpu.toolkit else []
    return ", ".join(facts)


def _numbers(text: str) -> tuple[int, int]:
    numbers = re.findall(r"\d+", text)
    return (int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0) if numbers else (0, 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
