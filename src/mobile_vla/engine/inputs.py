"""Inputs as decisions really meet them: what engines are calibrated on and compared over.

They are kept from drives of the policy itself, in PyTorch and float32, so that words, histories and odometry belong
together.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mobile_vla.core import (
    ConfigError,
    DatasetError,
    Frame,
    Instruction,
    InstructionError,
    Mode,
    Observation,
    Twist,
)
from mobile_vla.engine.backends.base import Decided, Engine, Opening
from mobile_vla.engine.backends.torch_ import TorchBackend
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.step import DecisionStep, Inputs, step_of
from mobile_vla.policy.weights import load_network

if TYPE_CHECKING:
    from mobile_vla.language import Grammar
    from mobile_vla.sim.world import World

FIRST_TAUGHT_SEED = 1_000_000
"""Scenes of seeds from here on are those that trainings draw from: calibrate on them, compare on others."""

_OF_A_DRIVE = 16
"""Decisions that are kept of one drive."""
_DRIVE_LIMIT_S = {Mode.GO: 45.0}
_SHORT_LIMIT_S = 15.0
_KINDS = 5


def driven_inputs(
    checkpoint: Path, count: int, seed: int = 0, advance: Callable[[int, int], None] = lambda done, total: None
) -> list[Inputs]:
    """``count`` decisions of drives in the simulator, told in English and Korean, the same for the same ``seed``.

    Routes, scenes with many objects, with a hidden and with an absent one, and manoeuvres take turns; of each drive
    decisions are kept from its beginning to its end. ``advance`` is told how many drives of how many are done. Needs
    the simulator. ConfigError for a ``count`` below 1.
    """
    from mobile_vla.language import Grammar
    from mobile_vla.sim.world import World

    policy, watch = _watched(checkpoint)
    drives = _drives(count)
    kept: list[Inputs] = []
    grammar, world = Grammar.load(), World(base="planar")
    try:
        for place, share in enumerate(_shares(count, drives)):
            watch.seen.clear()
            advance(place, drives)
            _drive(policy, world, grammar, place, seed)
            kept += _spread(watch.seen, share)
    finally:
        world.close()
    advance(drives, drives)
    return kept


def recorded_inputs(checkpoint: Path, dataset: Path, count: int, seed: int = 0) -> list[Inputs]:
    """``count`` decisions over recorded frames and velocities, of episodes that are drawn by ``seed``.

    ConfigError for a ``count`` below 1; DatasetError where the data hold too little, or an instruction that the policy
    cannot read; ContractMismatchError where they were recorded for another contract than the policy's.
    """
    from mobile_vla.data import Dataset

    data = Dataset.open(dataset)
    policy, watch = _watched(checkpoint)
    data.contract.require_same(policy.contract, str(dataset), "the policy")
    order: list[int] = np.random.default_rng(seed).permutation(data.episode_indices).tolist()
    drives = _drives(count)
    kept: list[Inputs] = []
    for index in order:
        if len(kept) == count:
            break
        watch.seen.clear()
        _replay(policy, data.episode(index))
        room = _shares(count, drives)[0] if len(order) >= drives else len(watch.seen)
        kept += _spread(watch.seen, min(room, count - len(kept), len(watch.seen)))
    if len(kept) < count:
        raise DatasetError(
            f"{dataset} holds {len(kept)} decisions of use in {len(order)} episodes, {count} are needed: give a larger "
            "data set"
        )
    return kept


def batched(inputs: Sequence[Inputs]) -> Inputs:
    """Of several sessions, as one batch."""
    words = tuple(torch.cat(parts) for parts in zip(*(each.words for each in inputs), strict=True))
    pixels, motion, history = (
        torch.cat([getattr(each, name) for each in inputs]) for name in ("pixels", "motion", "history")
    )
    return Inputs(pixels, words, motion, history)


class _Watch(Engine):
    """Keeps what the engine within is asked, of one session at a time."""

    def __init__(self, within: Engine) -> None:
        self._within, self.sessions = within, 1
        self.seen: list[Inputs] = []

    def bring(self, words: tuple[torch.Tensor, ...]) -> Any:
        return self._within.bring(words)

    def start(self) -> Any:
        return self._within.start()

    def decide(
        self, pixels: NDArray[np.uint8], words: Sequence[Any], motion: NDArray[np.float32], histories: Sequence[Any]
    ) -> Decided:
        self.seen.append(
            Inputs(
                torch.from_numpy(pixels.copy()),
                tuple(torch.from_numpy(part.copy()) for part in words[0]),
                torch.from_numpy(motion.copy()),
                torch.from_numpy(histories[0].copy()),
            )
        )
        return self._within.decide(pixels, words, motion, histories)


def _watched(checkpoint: Path) -> tuple[EnginePolicy, _Watch]:
    step: DecisionStep = step_of(load_network(checkpoint))
    watch = _Watch(TorchBackend().open(Opening(step, "fp32", 1, checkpoint, torch.get_num_threads())))
    return EnginePolicy(watch, step), watch


def _drives(count: int) -> int:
    if count < 1:
        raise ConfigError(f"{count} decisions show nothing: ask for at least 1")
    return max(min(count, _KINDS), -(-count // _OF_A_DRIVE))


def _shares(count: int, drives: int) -> list[int]:
    """How many of each drive: as even as can be."""
    return [len(part) for part in np.array_split(np.arange(count), drives)]


def _spread(seen: Sequence[Inputs], count: int) -> list[Inputs]:
    """``count`` of them from the first to the last; some twice where there are fewer."""
    places = np.linspace(0, len(seen) - 1, count).round().astype(int)
    return [seen[place] for place in places]


def _drive(policy: EnginePolicy, world: "World", grammar: "Grammar", place: int, seed: int) -> None:
    from mobile_vla.language import LANGUAGES
    from mobile_vla.policy.preprocess import HEIGHT, WIDTH
    from mobile_vla.runtime import DriveConfig, DriveLoop
    from mobile_vla.safety import Supervisor
    from mobile_vla.sim.limits import LIMITS
    from mobile_vla.sim.robot import SimBase, SimCamera, SimClock
    from mobile_vla.sim.scenarios import MANOEUVRES, ROUTES, draw_scene

    rng = np.random.default_rng([place, seed])
    turn, kind = divmod(place, _KINDS)
    routes, manoeuvre = ROUTES[(7 * place) % len(ROUTES)], MANOEUVRES[turn % len(MANOEUVRES)]
    scene = draw_scene((routes, "distractors", "hidden", "absent", manoeuvre)[kind], seed + place).scene
    goal = scene.goals[int(rng.integers(len(scene.goals)))]
    words = grammar.phrase(goal, rng, LANGUAGES[(turn + kind) % len(LANGUAGES)], "held_out")
    camera = SimCamera(world, policy.contract.frame_rate_hz, HEIGHT, WIDTH)
    try:
        world.load(scene)
        clock = SimClock(world)
        limit_s = _DRIVE_LIMIT_S.get(goal.mode, _SHORT_LIMIT_S)
        config = DriveConfig(time_limit_s=limit_s, identical_pixels=False)  # a rendered picture has no noise
        loop = DriveLoop(camera, SimBase(clock, world), policy, Supervisor(LIMITS), clock, config)
        camera.open()
        loop.run_blocking(Instruction(words))
    finally:
        camera.close()


def _replay(policy: EnginePolicy, episode: Any) -> None:
    from mobile_vla.data import schema

    columns = episode.read([schema.STATE, schema.CAPTURE_NS])
    velocities, stamps = columns[schema.STATE], columns[schema.CAPTURE_NS].reshape(-1)
    try:
        state = policy.reset(Instruction(episode.instruction))
    except InstructionError as error:
        raise DatasetError(
            f"the instruction of episode {episode.record.episode_index} of {episode.path} is of no use: {error}"
        ) from error
    for frame, velocity in zip(_frames(episode, stamps), velocities, strict=True):
        state = policy.step(Observation(frame, Twist.from_array(velocity)), state).state


def _frames(episode: Any, stamps: Iterable[int], at_once: int = 32) -> Iterator[Frame]:
    """Decoded a few at a time: a long episode of a large camera does not fit in memory."""
    for place, stamp in enumerate(stamps):
        if place % at_once == 0:
            pixels = episode.images(place, min(place + at_once, len(episode)))
        yield Frame(pixels[place % at_once], int(stamp), "recording", "front", place)
