"""What is needed of CUDA's runtime, by ctypes: a Jetson has the library, and often no Python package for it."""

import ctypes
from typing import Any

import numpy as np

LIBRARIES = (
    "libcudart.so",
    "libcudart.so.13",
    "libcudart.so.12",
    "/usr/local/cuda/lib64/libcudart.so",
)
_TO_DEVICE, _TO_HOST = 1, 2
_THIS_THREAD_ALONE = 1
_PROPERTIES_BYTES = 8192
"""More than any version's cudaDeviceProp, whose first 256 bytes are the name."""
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76


class BuildError(Exception):
    """In one sentence, what is wrong and what to do about it."""


class Cuda:
    """The first GPU. BuildError where there is no library, no driver or no GPU."""

    def __init__(self) -> None:
        self._library = _load()
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int()
        self.call("cudaGetDeviceCount", ctypes.byref(count))
        if not count.value:
            raise BuildError("CUDA finds no GPU here: run this on the Jetson, in a container with --runtime nvidia")

    def call(self, name: str, *arguments: Any) -> None:
        """BuildError with CUDA's own words where it fails."""
        code = self.attempt(name, *arguments)
        if code:
            said = self._library.cudaGetErrorString(code).decode(errors="replace")
            raise BuildError(f"CUDA cannot go on ({name}: {said}): is this the Jetson, and is its GPU free?")

    def attempt(self, name: str, *arguments: Any) -> int:
        """CUDA's answer, which may be an error. BuildError for a CUDA that knows no such call."""
        function = getattr(self._library, name, None)
        if function is None:
            raise BuildError(f"this CUDA has no {name}: use JetPack 6.1 or newer")
        return int(function(*arguments))

    def name(self) -> str:
        """Of the GPU."""
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        newer = hasattr(self._library, "cudaGetDeviceProperties_v2")
        self.call("cudaGetDeviceProperties_v2" if newer else "cudaGetDeviceProperties", properties, 0)
        return properties.raw[:256].partition(b"\0")[0].decode(errors="replace")

    def attribute(self, which: int) -> int:
        """One of cudaDeviceAttr."""
        value = ctypes.c_int()
        self.call("cudaDeviceGetAttribute", ctypes.byref(value), which, 0)
        return value.value

    def gpu(self) -> dict[str, str]:
        """What a plan depends on: the GPU, how much of it there is, what it can do, and CUDA's version."""
        version = ctypes.c_int()
        self.call("cudaRuntimeGetVersion", ctypes.byref(version))
        return {
            "gpu": self.name(),
            "multiprocessors": str(self.attribute(_MULTIPROCESSORS)),
            "compute_capability": f"{self.attribute(_MAJOR)}.{self.attribute(_MINOR)}",
            "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
        }


class Stream:
    """One queue of work. What it begins is done when ``wait`` returns."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self.handle = cuda, ctypes.c_void_p()
        cuda.call("cudaStreamCreate", ctypes.byref(self.handle))

    def wait(self) -> None:
        """Until all that was begun is done."""
        self._cuda.call("cudaStreamSynchronize", self.handle)

    def record(self) -> None:
        """From now on nothing is run, all of it is written down; ends with ``recorded``."""
        self._cuda.call("cudaStreamBeginCapture", self.handle, _THIS_THREAD_ALONE)

    def recorded(self) -> ctypes.c_void_p:
        """What was written down, ready to be launched as one."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._cuda.call("cudaStreamEndCapture", self.handle, ctypes.byref(graph))
        self._cuda.call("cudaGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        self._cuda.call("cudaGraphDestroy", graph)
        return ready

    def abandon(self) -> None:
        """End a recording that failed, whatever CUDA says of it."""
        graph = ctypes.c_void_p()
        self._cuda.attempt("cudaStreamEndCapture", self.handle, ctypes.byref(graph))
        self._cuda.attempt("cudaGetLastError")

    def launch(self, ready: ctypes.c_void_p) -> None:
        """Run once more what was recorded."""
        self._cuda.call("cudaGraphLaunch", ready, self.handle)

    def close(self) -> None:
        """Give it back."""
        self._cuda.call("cudaStreamDestroy", self.handle)


class Buffer:
    """Memory of one tensor, on both sides: ``host`` is an array over memory that CUDA does not let be moved."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: Any) -> None:
        self._cuda, self._host, self.device = cuda, ctypes.c_void_p(), ctypes.c_void_p()
        self._size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        cuda.call("cudaHostAlloc", ctypes.byref(self._host), ctypes.c_size_t(self._size), 0)
        cuda.call("cudaMalloc", ctypes.byref(self.device), ctypes.c_size_t(self._size))
        memory = (ctypes.c_char * self._size).from_address(int(self._host.value or 0))
        self.host = np.frombuffer(memory, dtype).reshape(shape)

    def up(self, stream: Stream) -> None:
        """Begin to copy to the GPU."""
        self._copy(self.device, self._host, _TO_DEVICE, stream)

    def down(self, stream: Stream) -> None:
        """Begin to copy from the GPU."""
        self._copy(self._host, self.device, _TO_HOST, stream)

    def close(self) -> None:
        """Give both back; ``host`` may not be touched any more."""
        self._cuda.call("cudaFree", self.device)
        self._cuda.call("cudaFreeHost", self._host)

    def _copy(self, to: ctypes.c_void_p, of: ctypes.c_void_p, way: int, stream: Stream) -> None:
        self._cuda.call("cudaMemcpyAsync", to, of, ctypes.c_size_t(self._size), way, stream.handle)


def _load() -> ctypes.CDLL:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise BuildError(
        f"CUDA's runtime is not here ({', '.join(LIBRARIES)} cannot be loaded): run this on the Jetson, in a container "
        "with --runtime nvidia, or add its folder to LD_LIBRARY_PATH"
    )
