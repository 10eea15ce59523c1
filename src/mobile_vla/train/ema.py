"""The moving average of the weights that are trained: often steadier than the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mobile_vla.core import ConfigError


class Average:
    """An exponential moving average of ``parameters`` by their names; with a ``decay`` of 0 there is none.

    The decay grows with the steps, as (1 + step) / (10 + step), up to ``decay``: the first weights are soon forgotten.
    ConfigError where a parameter is narrower than float32, which would lose what an average gathers.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._decay, self._parameters = decay, parameters if decay else {}
        narrow = next((name for name, each in self._parameters.items() if each.dtype != torch.float32), None)
        if narrow is not None:
            raise ConfigError(
                f"ema averages weights of float32 and {narrow} is of {self._parameters[narrow].dtype}: set ema to 0, "
                "or train weights of float32 (precision=bf16 computes in bfloat16 all the same)"
            )
        self._aside = {name: each.detach().clone() for name, each in self._parameters.items()}
        self._applied = False

    @property
    def raw(self) -> Mapping[str, Tensor]:
        """The trained weights themselves, while the average stands in the network."""
        return self._aside if self._applied else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights that ``step`` (from 0) has made."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, average in self._aside.items():
            average.lerp_(self._parameters[name], 1.0 - decay)

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the average into the network and the weights aside, or back."""
        for name, parameter in self._parameters.items():
            there = parameter.detach().clone()
            parameter.copy_(self._aside[name])
            self._aside[name].copy_(there)
        self._applied = not self._applied

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the average meanwhile."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()
