"""The compact policy: words and pixels in, velocities and a grounding out, in a few milliseconds on one core.

Reads top to bottom. The eye turns a frame into a grid of cells, without knowing the words, so that one frame serves any
number of instructions. The words point at a cell (or at none): that is the grounding, trained as such. What the words
point at, how far the way is free in each direction, the base's own motion and the words themselves then feed a GRU that
remembers what has left the view, and a head gives the chunk. (Words as pointers into a picture's cells: CLIPort,
Shridhar et al. 2021, among others.)
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_vla.core import (
    ActionChunk,
    ActionContract,
    CheckpointError,
    Grounding,
    Instruction,
    Observation,
    Status,
    Step,
    Twist,
)
from mobile_vla.language import VOCABULARY_HASH, encode
from mobile_vla.policy.kinds import PolicyKind
from mobile_vla.policy.preprocess import HEIGHT, WIDTH, fit, to_tensor
from mobile_vla.policy.text import TextEncoder

STRIDE = 8
ROWS, COLUMNS = HEIGHT // STRIDE, WIDTH // STRIDE
CELLS = ROWS * COLUMNS
STATUSES = tuple(Status)
NOMINAL_FOV_RAD = 1.484
CAMERA_FORWARD_M = 0.10
"""The camera's place ahead of the base's centre, used to turn a picture's column into a bearing of the base."""


@dataclass(frozen=True)
class CompactConfig:
    """Sizes of the network."""

    stem: int = 16
    middle: int = 32
    top: int = 96
    embedding: int = 64
    column: int = 16
    words: int = 96
    memory: int = 256


class Sight(NamedTuple):
    """What the eye makes of N frames, whatever the words.

    ``cells``: (N, CELLS, embedding) to be pointed at. ``boxes``: (N, CELLS, 5), each cell's offset of its object's
    middle (columns, rows), log of its half size (columns, rows), all in cells, and log distance in metres.
    ``columns``: (N, COLUMNS, column) features of the free way. ``ranges``:
    (N, COLUMNS), log metres from the base to what blocks it.
    """

    cells: Tensor
    boxes: Tensor
    columns: Tensor
    ranges: Tensor


class Pointed(NamedTuple):
    """What words point at: ``logits`` (N, CELLS + 1), the last for "not in view"; ``features`` (N, P) for memory."""

    logits: Tensor
    features: Tensor


class Decision(NamedTuple):
    """``actions`` (N, T, horizon, 3), shares of the limits; ``status`` logits (N, T, 4); ``memory`` (1, N, memory)."""

    actions: Tensor
    status: Tensor
    memory: Tensor


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width, 3, 1), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return F.relu(x + self.norm(self.second(self.first(x))))


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Eye(nn.Module):
    """(N, 3, HEIGHT, WIDTH) to ``Sight``."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _conv(3, config.stem, 5, 2),
            _conv(config.stem, config.middle, 3, 2),
            Residual(config.middle),
            _conv(config.middle, config.top, 3, 2),
            Residual(config.top),
            Residual(config.top),
        )
        self.place = nn.Parameter(torch.zeros(1, config.top, ROWS, COLUMNS))
        self.cell = nn.Conv2d(config.top, config.embedding, 1)
        self.box = nn.Conv2d(config.top, 5, 1)
        self.squeeze = nn.Conv2d(config.top, 16, 1)
        self.column = nn.Linear(16 * ROWS, config.column)
        self.range = nn.Linear(config.column, 1)

    def forward(self, frames: Tensor) -> Sight:
        """One pass over the frames."""
        features = self.trunk(frames) + self.place
        squeezed = F.relu(self.squeeze(features)).permute(0, 3, 1, 2).flatten(2)
        columns = F.relu(self.column(squeezed))
        return Sight(
            self.cell(features).flatten(2).transpose(1, 2),
            self.box(features).flatten(2).transpose(1, 2),
            columns,
            self.range(columns).squeeze(-1),
        )


class CompactNetwork(nn.Module):
    """Eye, words, pointer, memory and head."""

    kind: ClassVar = "compact"

    def __init__(self, config: CompactConfig, contract: ActionContract) -> None:
        super().__init__()
        self.config, self.contract = config, contract
        self.eye = Eye(config)
        self.text = TextEncoder(config.words)
        self.query = nn.Linear(config.words, config.embedding)
        self.nothing = nn.Linear(config.words, 1)
        self.focus = 15.0 / math.sqrt(config.embedding)
        pointed = COLUMNS + ROWS + 1 + 6 + config.embedding
        self.enter = nn.Linear(COLUMNS * config.column + COLUMNS + pointed + config.words + MOTION_SIZE, config.memory)
        self.memory = nn.GRU(config.memory, config.memory, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(2 * config.memory, config.memory),
            nn.ReLU(),
            nn.Linear(config.memory, 3 * contract.horizon + len(STATUSES)),
        )

    def point(self, sight: Sight, words: Tensor) -> Pointed:
        """Where the words (N, words) point in each of N frames."""
        query = F.normalize(self.query(words).float(), dim=-1)
        scores = self.focus * torch.einsum("nce,ne->nc", sight.cells.float(), query)
        logits = torch.cat([scores, self.nothing(words)], dim=1)
        shares = logits.float().softmax(dim=1)
        cells, absent = shares[:, :-1], shares[:, -1:]
        inner = scores.float().softmax(dim=1)
        grid = cells.view(-1, ROWS, COLUMNS)
        found = torch.einsum("nc,nce->ne", inner, sight.cells.float())
        box = pointed_box(inner, sight.boxes.float())
        bearing = bearing_of(box[:, 0], box[:, 4])
        features = [grid.sum(1), grid.sum(2), absent, box, bearing[:, None], 0.2 * found]
        return Pointed(logits, torch.cat(features, dim=1))

    def read(self, sight: Sight, words: Tensor) -> tuple[Pointed, Tensor]:
        """What is meant in each of N sights by (N, words), and all that is seen as (N, F) features for the memory."""
        pointed = self.point(sight, words)
        seen = [sight.columns.flatten(1).float(), sight.ranges.float(), pointed.features]
        return pointed, torch.cat(seen, dim=1)

    def decide(self, seen: Tensor, words: Tensor, motion: Tensor, memory: Tensor | None = None) -> Decision:
        """T steps of N episodes: (N, T, F) as from ``read``, (N, words), (N, T, MOTION_SIZE), (1, N, memory)."""
        steps = words[:, None].expand(-1, seen.shape[1], -1)
        entered = F.relu(self.enter(torch.cat([seen, steps, motion], dim=2)))
        remembered, memory = self.memory(entered, memory)
        out = self.head(torch.cat([remembered, entered], dim=2))
        split = 3 * self.contract.horizon
        return Decision(out[..., :split].unflatten(2, (self.contract.horizon, 3)), out[..., split:], memory)


MOTION_SIZE = 8


def motion_features(velocity: Tensor, odometry: Tensor, contract: ActionContract) -> Tensor:
    """Measured velocity (..., 3) and odometry since the instruction (..., 3) to (..., 8).

    Odometry is (x, y) in metres and the angle turned in radians, not wrapped, so that a full turn is not nothing.
    """
    limits = torch.tensor(contract.limits)
    turned = odometry[..., 2:]
    parts = [velocity / limits, odometry[..., :2] / 2.0, turned.cos(), turned.sin(), turned / (2 * math.pi)]
    return torch.cat(parts, dim=-1)


def pointed_box(shares: Tensor, boxes: Tensor) -> Tensor:
    """The mean box under (N, CELLS) shares: (N, 5), middle and half size as shares of the image, and log distance."""
    cell = torch.arange(CELLS)
    column, row = (cell % COLUMNS).float() + 0.5, (cell // COLUMNS).float() + 0.5
    u, v = (column + boxes[..., 0]) / COLUMNS, (row + boxes[..., 1]) / ROWS
    absolute = torch.stack([u, v, boxes[..., 2].exp() / COLUMNS, boxes[..., 3].exp() / ROWS, boxes[..., 4]], dim=-1)
    return torch.einsum("nc,ncb->nb", shares, absolute)


def bearing_of(u: Tensor, log_distance: Tensor) -> Tensor:
    """Bearing of the base (left positive, rad) of a picture's column (share of the width) at a distance of the base."""
    tangent = (1.0 - 2.0 * u) * math.tan(NOMINAL_FOV_RAD / 2)
    ahead = log_distance.exp().clamp(0.2, 6.0) * torch.cos(torch.atan(tangent))
    return torch.atan2(tangent * (ahead - CAMERA_FORWARD_M).clamp_min(0.05), ahead)


def command(decision: Decision, contract: ActionContract) -> tuple[NDArray[np.float32], list[Status]]:
    """The last step of N decisions as velocities (N, horizon, 3) in physical units, and what each says it is doing.

    Who says that it has finished stands still.
    """
    velocities = contract.denormalise(decision.actions[:, -1].numpy())
    statuses = [STATUSES[index] for index in decision.status[:, -1].argmax(dim=1).tolist()]
    velocities[[status.is_final for status in statuses]] = 0.0
    return velocities, statuses


class CompactState(NamedTuple):
    """What passes from step to step: the encoded words, the memory, and odometry since the instruction."""

    words: Tensor
    memory: Tensor
    odometry: tuple[float, float, float]
    stamp_ns: int | None


def integrate(odometry: tuple[float, float, float], velocity: Twist, duration_s: float) -> tuple[float, float, float]:
    """Dead reckoning over ``duration_s`` (midpoint rule): (x, y, turned) in the frame of the episode's start."""
    x, y, yaw = odometry
    middle = yaw + 0.5 * duration_s * velocity.wz
    cos, sin = math.cos(middle), math.sin(middle)
    return (
        x + duration_s * (cos * velocity.vx - sin * velocity.vy),
        y + duration_s * (sin * velocity.vx + cos * velocity.vy),
        yaw + duration_s * velocity.wz,
    )


class CompactPolicy:
    """The network behind the ``Policy`` protocol."""

    def __init__(self, network: CompactNetwork) -> None:
        network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network

    @property
    def contract(self) -> ActionContract:
        """What the numbers in the chunks mean."""
        return self.network.contract

    @torch.inference_mode()
    def reset(self, instruction: Instruction) -> CompactState:
        """Encodes the words; no memory, odometry at the origin. InstructionError when the text does not fit."""
        words = self.network.text(torch.from_numpy(encode(instruction.text))[None])
        return CompactState(words, torch.zeros(1, 1, self.network.config.memory), (0.0, 0.0, 0.0), None)

    @torch.inference_mode()
    def step(self, observation: Observation, state: CompactState) -> Step:
        """Decide on one observation; ``state`` is unchanged, the next one is in the Step."""
        frame, velocity = observation.frame, observation.velocity
        elapsed_s = 0.0 if state.stamp_ns is None else (frame.capture_ns - state.stamp_ns) * 1e-9
        odometry = integrate(state.odometry, velocity, elapsed_s)
        pixels = to_tensor(torch.from_numpy(fit(frame.pixels))[None])
        sight = self.network.eye(pixels)
        pointed, seen = self.network.read(sight, state.words)
        motion = motion_features(torch.from_numpy(velocity.as_array())[None], torch.tensor([odometry]), self.contract)
        decision = self.network.decide(seen[:, None], state.words, motion[:, None], state.memory)
        velocities, (status,) = command(decision, self.contract)
        chunk = ActionChunk(velocities[0], frame.capture_ns, self.contract.rate_hz)
        return Step(
            chunk,
            grounding_of(pointed, sight, status),
            CompactState(state.words, decision.memory, odometry, frame.capture_ns),
        )


def grounding_of(pointed: Pointed, sight: Sight, status: Status) -> Grounding:
    """The belief of one frame (N = 1) in physical units."""
    inner = pointed.logits[:, :-1].float().softmax(dim=1)
    box = pointed_box(inner, sight.boxes.float())
    u, v, half_u, half_v, log_distance = (float(value) for value in box[0])
    return Grounding(
        visibility=1.0 - float(pointed.logits.float().softmax(dim=1)[0, -1]),
        bearing_rad=float(bearing_of(box[:, 0], box[:, 4])[0]),
        distance_m=min(math.exp(min(log_distance, 3.0)), 10.0),
        box=(u - half_u, v - half_v, u + half_u, v + half_v),
        status=status,
    )


def _sizes(network: CompactNetwork) -> dict[str, Any]:
    return asdict(network.config) | {"vocabulary": VOCABULARY_HASH}


def _build(sizes: Mapping[str, Any], contract: ActionContract) -> CompactNetwork:
    chosen = dict(sizes)
    if chosen.pop("vocabulary", None) != VOCABULARY_HASH:
        raise CheckpointError("it was trained with another alphabet of characters: train it again")
    return CompactNetwork(CompactConfig(**chosen), contract)


def _step(network: CompactNetwork) -> nn.Module:
    from mobile_vla.policy.compact_step import CompactStep

    return CompactStep(network)


KIND = PolicyKind("compact", CompactNetwork, CompactConfig, CompactNetwork, _sizes, _build, CompactPolicy, _step)
