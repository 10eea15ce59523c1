"""What the full-size policies have in common: towers that see and read, a pointer, a history, a head.

Reads top to bottom. A frame is seen once (``see``), whatever the words; the words are read once an instruction
(``read``). Then the words are asked of the frame (``ask``): the towers' answers, what the words point at, and how far
the way is free become one feature a frame. The head looks back over these features, with the base's own motion, and
gives the chunk and the status. What is particular to a policy, which towers and how their answers are joined, stands in
a file of its own (``kosmos_clip.py`` and its relatives).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from mobile_vla.core import ActionChunk, ActionContract, CheckpointError, Instruction, Observation, Step
from mobile_vla.policy.compact import MOTION_SIZE, integrate, motion_features
from mobile_vla.policy.encoders.clip import ClipTower
from mobile_vla.policy.encoders.kosmos import KosmosTower
from mobile_vla.policy.encoders.sources import describe, load_weights
from mobile_vla.policy.encoders.tower import Seen, Tower, TowerSpec, Words, repeat, stack
from mobile_vla.policy.heads import STATUSES, Decided, Head
from mobile_vla.policy.kinds import PolicyKind
from mobile_vla.policy.memory import require_memory
from mobile_vla.policy.pointer import FreeWay, Pointed, Pointer, grounding_of
from mobile_vla.policy.preprocess import fit
from mobile_vla.policy.text import SLOT_SIZES
from mobile_vla.policy.vla_config import VlaConfig
from mobile_vla.robot.registry import read_settings


class Asked(NamedTuple):
    """N frames under N words.

    ``lead`` (N, A): the leading tower's answer. ``beside`` (N, B): what else there is to know. ``pointed`` as it says.
    """

    lead: Tensor
    beside: Tensor
    pointed: Pointed


class Questions(NamedTuple):
    """Frames uint8 (B, H, W, 3), each under K instructions: ``tokens`` of B * K texts, those of a frame in a row."""

    pixels: Tensor
    tokens: tuple[Words, ...]


class Drives(NamedTuple):
    """Windows uint8 (B, T, H, W, 3), each under one instruction, and ``motion`` (B, T, MOTION_SIZE)."""

    pixels: Tensor
    tokens: tuple[Words, ...]
    motion: Tensor


class Remembered(NamedTuple):
    """Windows of which the towers' answers are known, as from ``ask``: (B, T, A), (B, T, B), (B, T, MOTION_SIZE)."""

    lead: Tensor
    beside: Tensor
    motion: Tensor


class Answers(NamedTuple):
    """What ``forward`` gives in training: ``ranges`` of the frames seen, ``pointed`` of the words asked of them.

    ``what`` (N, cells, W): what stands at each patch, see ``Pointer.what``; ``meaning`` (N, M) logits of the slots of
    ``text.SLOT_SIZES``, one after another. None where nothing was seen; ``decided`` is None where nothing was driven.
    """

    pointed: Pointed | None = None
    ranges: Tensor | None = None
    what: Tensor | None = None
    meaning: Tensor | None = None
    decided: Decided | None = None


class Look(NamedTuple):
    """Of N frames, before any words: what each tower saw, keys and boxes to point at, and the free way."""

    seen: tuple[Seen, ...]
    keys: Tensor
    boxes: Tensor
    ranges: Tensor
    way: Tensor


class VlaNetwork(nn.Module):
    """Towers by name in the order of ``config.towers``; the first one's patches are what words point at."""

    kind: ClassVar[str]
    """The name of its ``PolicyKind``."""
    shortened: str = ""
    """What of it is left, in the words of ``shorten.read_shortening``; empty where nothing is left out."""

    def __init__(
        self, config: VlaConfig, contract: ActionContract, specs: dict[str, TowerSpec], towers: dict[str, nn.Module]
    ) -> None:
        super().__init__()
        self.config, self.contract, self.specs = config, contract, specs
        self.towers = nn.ModuleDict(towers)
        each = [cast("Tower", towers[name]) for name in config.towers]
        answer = sum(tower.answer for tower in each)
        leading = each[0]
        self.pointer = Pointer(leading.patch, answer, leading.grid, config.pointer)
        self.way = FreeWay(leading.patch, leading.grid)
        self.meaning = nn.Linear(leading.answer, sum(SLOT_SIZES.values()))
        self.width = config.feature or leading.answer
        beside = answer - leading.answer + self.pointer.features + self.way.features
        self.enter = nn.Linear(leading.answer, self.width) if self.width != leading.answer else nn.Identity()
        self.join = nn.Linear(beside, self.width)
        self.motion = nn.Linear(MOTION_SIZE, self.width)
        self.head = Head(config.head, self.width, contract.horizon)

    def _each(self) -> list[Tower]:
        return [cast("Tower", self.towers[name]) for name in self.config.towers]

    def tokenise(self, texts: Sequence[str]) -> tuple[Words, ...]:
        """Numbers of the texts, for each tower."""
        return tuple(tower.tokenise(texts) for tower in self._each())

    def read(self, tokens: tuple[Words, ...]) -> tuple[Words, ...]:
        """Each tower's words: computed once an instruction."""
        return tuple(tower.read(each) for tower, each in zip(self._each(), tokens, strict=True))

    def see(self, pixels: Tensor) -> Look:
        """Frames, uint8 (N, height, width, 3), whatever the words."""
        seen = tuple(tower.see(pixels) for tower in self._each())
        keys, boxes = self.pointer.describe(seen[0].patches)
        ranges, way = self.way(seen[0].patches)
        return Look(seen, keys, boxes, ranges, way)

    def ask(self, look: Look, words: tuple[Words, ...]) -> Asked:
        """N looks, each under words of its own."""
        answers = [tower.ask(seen, each) for tower, seen, each in zip(self._each(), look.seen, words, strict=True)]
        pointed = self.pointer(look.keys, look.boxes, torch.cat([answer.float() for answer in answers], dim=-1))
        beside = torch.cat([answer.float() for answer in answers[1:]] + [pointed.features, look.way], dim=-1)
        return Asked(answers[0].float(), beside, pointed)

    def decide(self, lead: Tensor, beside: Tensor, motion: Tensor, history: Tensor) -> Decided:
        """T frames of N sessions: (N, T, A) and (N, T, B) as from ``ask``, (N, T, MOTION_SIZE), and the history."""
        own = self.join.weight.dtype
        feature = self.enter(lead.to(own)) + self.join(beside.to(own)) + self.motion(motion.to(own))
        decided: Decided = self.head(feature, history)
        return decided

    def forward(self, asked: "Questions | Drives | Remembered") -> Answers:
        """In training: all that can be learnt from. Drives begin with an empty history, wherever they are cut from."""
        match asked:
            case Questions(pixels, tokens):
                words = self.read(tokens)
                look = self.see(pixels)
                under = self.ask(_repeated(look, len(words[0][0]) // len(pixels)), words)
                what = self.pointer.what(look.seen[0].patches)
                return Answers(under.pointed, look.ranges, what, self.meaning(under.lead))
            case Drives(pixels, tokens, motion):
                batch, steps = pixels.shape[:2]
                look = self.see(pixels.flatten(0, 1))
                under = self.ask(look, tuple(repeat(each, steps) for each in self.read(tokens)))
                lead, beside = (torch.unflatten(part, 0, (batch, steps)) for part in (under.lead, under.beside))
                decided = self.decide(lead, beside, motion, self.head.initial(batch))
                return Answers(under.pointed, look.ranges, decided=decided)
            case Remembered(lead, beside, motion):
                return Answers(decided=self.decide(lead, beside, motion, self.head.initial(len(lead))))


def _repeated(look: Look, times: int) -> Look:
    seen = tuple(Seen(each.tokens.repeat_interleave(times, 0), each.patches) for each in look.seen)
    return Look(seen, *(part.repeat_interleave(times, 0) for part in look[1:]))


def kind_from(network: type[VlaNetwork], config: type[VlaConfig]) -> PolicyKind:
    """The ``PolicyKind`` of a network whose class is called with (config, contract, specs)."""

    def make(chosen: VlaConfig, contract: ActionContract) -> VlaNetwork:
        specs = {name: describe(getattr(chosen, name), name) for name in chosen.towers}
        with torch.device("meta"):
            require_memory(network(chosen, contract, specs))  # type: ignore[call-arg]
        made = network(chosen, contract, specs)  # type: ignore[call-arg]
        for tower in made.towers.values():
            load_weights(cast("KosmosTower | ClipTower", tower))
        return made

    def sizes(made: VlaNetwork) -> dict[str, Any]:
        if made.shortened:
            raise CheckpointError(f"a shortened network ({made.shortened}) is not saved: save the one it was made of")
        return {"config": asdict(made.config), "towers": {name: asdict(spec) for name, spec in made.specs.items()}}

    def build(values: Mapping[str, Any], contract: ActionContract) -> VlaNetwork:
        specs = {name: read_settings(TowerSpec, spec, f"tower {name}") for name, spec in values["towers"].items()}
        chosen = read_settings(config, values["config"], f"policy {network.kind}")
        return network(chosen, contract, specs)  # type: ignore[call-arg]

    def step(made: VlaNetwork) -> nn.Module:
        from mobile_vla.policy.vla_step import VlaStep

        return VlaStep(made)

    return PolicyKind(network.kind, network, config, make, sizes, build, VlaPolicy, step)


class VlaState(NamedTuple):
    """What passes from step to step, of one session: the words as read, the history, and odometry since the words."""

    words: tuple[Words, ...]
    history: Tensor
    odometry: tuple[float, float, float]
    stamp_ns: int | None


class VlaPolicy:
    """Such a network behind the ``Policy`` protocol.

    It keeps nothing between steps: any number of robots may share it.
    """

    def __init__(self, network: VlaNetwork) -> None:
        network.eval()
        self.network = network
        self._own = next(network.head.parameters())

    @property
    def contract(self) -> ActionContract:
        """What the numbers in the chunks mean."""
        return self.network.contract

    @torch.inference_mode()
    def reset(self, instruction: Instruction) -> VlaState:
        """Reads the words; nothing remembered, odometry at the origin. InstructionError when the text does not fit."""
        tokens = self.network.tokenise([instruction.text])
        words = self.network.read(tuple(tuple(part.to(self._own.device) for part in each) for each in tokens))
        return VlaState(words, self.network.head.initial(1).clone(), (0.0, 0.0, 0.0), None)

    def step(self, observation: Observation, state: VlaState) -> Step:
        """Decide on one observation; ``state`` is unchanged, the next one is in the Step."""
        return self.steps([observation], [state])[0]

    @torch.inference_mode()
    def steps(self, observations: Sequence[Observation], states: Sequence[VlaState]) -> list[Step]:
        """One step of each of several robots, as one batch."""
        network, device = self.network, self._own.device
        odometry = [_moved(observation, state) for observation, state in zip(observations, states, strict=True)]
        frames = np.stack([fit(each.frame.pixels, network.config.size) for each in observations])
        velocity = torch.from_numpy(np.stack([each.velocity.as_array() for each in observations]))
        motion = motion_features(velocity, torch.tensor(odometry), self.contract)
        words = tuple(stack([state.words[place] for state in states]) for place in range(len(states[0].words)))
        asked = network.ask(network.see(torch.from_numpy(frames).to(device)), words)
        history = torch.cat([state.history for state in states])
        decided = network.decide(asked.lead[:, None], asked.beside[:, None], motion[:, None].to(device), history)
        shares = network.head.chunk(decided.context[:, 0]).float().cpu().numpy()
        velocities = self.contract.denormalise(shares)
        said = decided.status[:, 0].argmax(dim=-1).tolist()
        believed = Pointed(*(part.cpu() for part in asked.pointed))
        steps = []
        for place, (observation, state) in enumerate(zip(observations, states, strict=True)):
            status = STATUSES[said[place]]
            rows = np.zeros_like(velocities[place]) if status.is_final else velocities[place]
            here = slice(place, place + 1)
            pointed = Pointed(*(part[here] for part in believed))
            after = VlaState(state.words, decided.history[here], odometry[place], observation.frame.capture_ns)
            chunk = ActionChunk(rows, observation.frame.capture_ns, self.contract.rate_hz)
            steps.append(Step(chunk, grounding_of(pointed, status), after))
        return steps


def _moved(observation: Observation, state: VlaState) -> tuple[float, float, float]:
    elapsed_s = 0.0 if state.stamp_ns is None else (observation.frame.capture_ns - state.stamp_ns) * 1e-9
    return integrate(state.odometry, observation.velocity, elapsed_s)
