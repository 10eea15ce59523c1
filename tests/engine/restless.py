"""Small networks in which every number matters: fresh ones have biases of zero and norms that change nothing."""

import torch
from torch import Tensor

from mobile_vla.policy.kinds import kind_named
from mobile_vla.policy.step import DecisionStep, Inputs, step_of
from mobile_vla.policy.vla import VlaNetwork
from policy.little import CONTRACT, head, settled

TEXTS = ("go to the red box", "stop", "find the green ball and stop")


def restless(name: str, head_name: str = "lstm", size: tuple[int, int] = (96, 192), **options: object) -> VlaNetwork:
    kind = kind_named(name)
    towers = dict.fromkeys(kind.config.towers, "tiny")
    torch.manual_seed(3)
    config = kind.config(height=size[0], width=size[1], pointer=16, head=head(head_name), **towers, **options)
    return shaken(kind.make(config, CONTRACT))


def shaken(network: VlaNetwork) -> VlaNetwork:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    for tower in network.towers.values():  # colours that are not alike
        spec = tower.spec
        tower.spec = type(spec)(spec.source, spec.config, spec.tokenizer, (0.48, 0.40, 0.31), (0.27, 0.21, 0.35))
    return settled(network, driving=False)


def inputs_of(step: DecisionStep, sessions: int = 2, seed: int = 0) -> Inputs:
    """Noise to see, words of different lengths, and a history that is not the beginning."""
    generator = torch.Generator().manual_seed(seed)
    example = step.example(sessions)
    read = [step.read(TEXTS[(seed + place) % len(TEXTS)]) for place in range(sessions)]

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    return Inputs(
        torch.randint(0, 256, example.pixels.shape, dtype=torch.uint8, generator=generator),
        tuple(torch.cat(parts) for parts in zip(*read, strict=True)),
        noise(example.motion),
        example.history + 0.5 * noise(example.history),
    )


def step_and_inputs(network: VlaNetwork, sessions: int = 2) -> tuple[DecisionStep, Inputs]:
    step = step_of(network)
    return step, inputs_of(step, sessions)
