"""How a network is spread over processes: by PyTorch's own DDP or FSDP2, told by torchrun's environment.

A training asks one of these instead of torch.distributed; ``Alone`` is the answer of a single process.
"""

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import Self

from mobile_vla.core import ConfigError, MobileVLAError, TrainingError

Kind = Literal["ddp", "fsdp2"]
Blocks = Sequence[type[nn.Module]] | Callable[[nn.Module], bool]
"""Which modules FSDP2 shards by themselves: their classes, or what says so of a module."""

Taken = tuple[Tensor, dict[str, float]]
Loss = Callable[[nn.Module, Any], Taken]
"""Of a network and a batch: the loss, and figures worth a curve."""

T = TypeVar("T")

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOST = ("gloo", "NCCL", "ProcessGroup", "Connection", "Broken pipe", "Timed out")


def launched() -> int:
    """Number of processes that torchrun started this one as one of; 0 where torchrun did not."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _VARIABLES) else 0


class Alone:
    """One process: nothing is spread."""

    rank, world = 0, 1

    @property
    def is_first(self) -> bool:
        """This process writes, prints and judges for all."""
        return self.rank == 0

    def wrap(self, network: nn.Module, loss: Loss, *, judged: bool = False) -> Callable[[Any], Taken]:
        """What takes a batch to its loss; the network's parameters may be other objects afterwards.

        ``judged`` says that ``whole`` is going to be asked for. A training of several stages asks again for the same
        network: it then goes by what the network's parameters require.
        """
        return partial(loss, network)

    def passing(self, wrapped: Callable[[Any], Taken], *, last: bool) -> AbstractContextManager[object]:
        """Around one pass, forward and backward, of several that add their gradients up; ``last`` of a step."""
        return nullcontext()

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Each figure's mean over the processes that have it."""
        return dict(figures)

    def tell(self, value: T) -> T:
        """The first process's ``value``, in all of them. It has to be small."""
        return value

    def gather(self, tensor: Tensor) -> Tensor:
        """A tensor of the network, of its shape or with none, whole and on the CPU of the first process.

        The others get an empty one. Shares memory where it can.
        """
        return tensor.detach().cpu()

    @torch.no_grad()
    def fill(self, target: Tensor, whole: Tensor | None) -> None:
        """Fill ``target``, spread as it is, with the first process's ``whole``."""
        if whole is not None:
            target.copy_(whole)

    @contextmanager
    def whole(self, network: nn.Module) -> Iterator[nn.Module | None]:
        """The network that the first process alone can call, with the weights of now; None in the others."""
        yield network if self.is_first else None

    def barrier(self) -> None:
        """Wait until all processes are here."""


class Spread(Alone):
    """``world`` processes of which this is number ``rank``; a context, left together by all.

    An exception that leaves it on one process ends the others: they exit with status 1 and say nothing. A process that
    dies, or does not answer within the time limit, is a TrainingError on one of those that are left.
    """

    def __init__(self, kind: Kind, blocks: Blocks, store: Store, device: torch.device, limit_s: float) -> None:
        self.kind, self.device = kind, device
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._blocks, self._store, self._limit_s = blocks, store, limit_s
        self._mesh = init_device_mesh(device.type, (self.world,)) if kind == "fsdp2" else None
        self._skeleton: nn.Module | None = None
        self._takers: dict[nn.Module, _Taker] = {}

    @classmethod
    def from_environment(cls, kind: Kind, blocks: Blocks = (), limit_s: float = 1800.0) -> Self | None:
        """Meet the other processes that torchrun has started; None where it did not start this one.

        NCCL between GPUs, one a process, and gloo on a machine without. ``blocks`` are what FSDP2 gathers one at a
        time: the layers of the backbone. Nobody waits longer than ``limit_s`` for another. ConfigError where a process
        has no GPU for itself, TrainingError where the processes do not find each other.
        """
        if kind not in ("ddp", "fsdp2"):
            raise ConfigError(f"a network is spread by ddp or by fsdp2, not by {kind!r}")
        if not launched():
            return None
        device, backend = _device_of_this_process()
        try:
            store, rank, world = next(rendezvous("env://", timeout=timedelta(seconds=limit_s)))
            store = PrefixStore("mobile-vla", store)
            limit = timedelta(seconds=limit_s)
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
        except (RuntimeError, ValueError) as error:
            meet = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise TrainingError(
                f"the {launched()} processes of this training do not find each other at {meet}: start all of them with "
                f"torchrun ({_first_line(error)})"
            ) from error
        return cls(kind, blocks, store, device, limit_s)

    def __enter__(self) -> Self:
        """Close it by leaving."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let one process say what went wrong, where something did."""
        if not isinstance(error, Exception):
            self.close()
            return
        first_to_fail = self._first_to_fail()
        self.close()
        if not first_to_fail:
            raise SystemExit(1) from error
        if not isinstance(error, MobileVLAError) and _is_lost(error):
            raise TrainingError(
                f"another process of this training ended, or did not answer within {self._limit_s:.0f} s "
                f"({_first_line(error)}); the same command, given again, goes on at the last whole step"
            ) from error

    def close(self) -> None:
        """Part from the other processes."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def wrap(self, network: nn.Module, loss: Loss, *, judged: bool = False) -> Callable[[Any], Taken]:
        """As ``Alone.wrap``; moves the network to this process's device. The weights are the first process's."""
        network.to(self.device)
        if self.kind == "ddp":
            warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified.*")
            # a batch need not reach every parameter
            return DistributedDataParallel(_Taker(network, loss), find_unused_parameters=True)
        if judged and self.is_first and self._skeleton is None:
            self._skeleton = _skeleton(network)
        taker = self._takers.get(network)
        if taker is None:
            taker = self._takers[network] = _Taker(network, loss)
            self._shard(taker)
        taker.loss = loss
        return taker

    def _shard(self, taker: "_Taker") -> None:
        network = taker.network
        for value in network.state_dict().values():
            self.fill(value, value if self.is_first else None)
        scalars = {name: each for name, each in network.named_parameters() if each.ndim == 0}
        for name, each in scalars.items():
            if each.requires_grad:
                raise ConfigError(f"fsdp2 cannot shard {name}, which is a single number: do not train it, or use ddp")
        # resharded even at the root: what stayed gathered would not see weights that are put in the place of others
        shard = partial(fully_shard, mesh=self._mesh, reshard_after_forward=True)
        if scalars:
            shard = partial(shard, ignored_params=set(scalars.values()))
        for module in reversed([each for each in network.modules() if self._is_block(each)]):
            shard(module)
        shard(taker)

    def _is_block(self, module: nn.Module) -> bool:
        return isinstance(module, tuple(self._blocks)) if isinstance(self._blocks, Sequence) else self._blocks(module)

    def passing(self, wrapped: Callable[[Any], Taken], *, last: bool) -> AbstractContextManager[object]:
        """DDP sends the gradients with the last pass alone, FSDP2 with each: it would have to hold them whole.

        With DDP, all passes of a step have to reach the same parameters.
        """
        if isinstance(wrapped, DistributedDataParallel) and not last:
            return wrapped.no_sync()
        return nullcontext()

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """As ``Alone.mean``."""
        everyone: list[Mapping[str, float]] = [{}] * self.world
        dist.all_gather_object(everyone, dict(figures))
        names = dict.fromkeys(name for each in everyone for name in each)
        values = {name: [each[name] for each in everyone if name in each] for name in names}
        return {name: sum(each) / len(each) for name, each in values.items()}

    def tell(self, value: T) -> T:
        """As ``Alone.tell``."""
        told: list[T | None] = [value if self.is_first else None]
        dist.broadcast_object_list(told, 0)
        return told[0]  # type: ignore[return-value]

    def gather(self, tensor: Tensor) -> Tensor:
        """As ``Alone.gather``; all processes have to ask for the same."""
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        return tensor.detach().cpu() if self.is_first else torch.empty(0)

    @torch.no_grad()
    def fill(self, target: Tensor, whole: Tensor | None) -> None:
        """As ``Alone.fill``; all processes have to ask for the same."""
        sent = torch.empty(target.shape, dtype=target.dtype, device=target.device)
        if whole is not None:
            sent.copy_(whole)
        if isinstance(target, DTensor):
            sent = distribute_tensor(sent, target.device_mesh, target.placements)  # from the first process
        else:
            dist.broadcast(sent, 0)
        target.copy_(sent)

    @contextmanager
    def whole(self, network: nn.Module) -> Iterator[nn.Module | None]:
        """As ``Alone.whole``."""
        if self.kind == "ddp":
            yield network if self.is_first else None
            return
        weights = {name: self.gather(value) for name, value in network.state_dict().items()}
        if self._skeleton is None:
            yield None
            return
        self._skeleton.load_state_dict({name: each.to(self.device) for name, each in weights.items()}, assign=True)
        del weights
        yield self._skeleton.eval()
        _empty(self._skeleton)

    def barrier(self) -> None:
        """As ``Alone.barrier``."""
        dist.all_reduce(torch.zeros(()))

    def _first_to_fail(self) -> bool:
        try:
            return int(self._store.add("failed", 1)) == 1
        except RuntimeError:
            return True  # the first process is gone with the store, and nobody else knows of it


class _Taker(nn.Module):
    """A network with its loss: whatever part of the network the loss calls is called within this module's forward."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Any) -> Taken:
        """Loss and figures."""
        return self.loss(self.network, batch)


def _device_of_this_process() -> tuple[torch.device, str]:
    if not torch.cuda.is_available():
        return torch.device("cpu"), "gloo"
    number, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= gpus:
        raise ConfigError(
            f"process {number} of this machine has no GPU of its own: it has {gpus}; start torchrun with "
            f"--nproc-per-node {gpus}"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number), "cpu:gloo,cuda:nccl"


def _skeleton(network: nn.Module) -> nn.Module:
    """A copy of the network whose parameters take no memory."""
    without = {id(each): nn.Parameter(torch.empty_like(each, device="meta"), False) for each in network.parameters()}
    return copy.deepcopy(network, dict(without))


def _empty(network: nn.Module) -> None:
    for module in network.modules():
        for name, each in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(each, device="meta"), False))


def _is_lost(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
