"""A session of recording: which episode is next, what the buttons do, what is kept."""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from mobile_vla.core import NS_PER_S, DatasetError, Instruction, MobileVLAError
from mobile_vla.core.backports import StrEnum
from mobile_vla.data import Dataset, EpisodeWriter, schema
from mobile_vla.data.store import read_journal
from mobile_vla.record.checks import Report
from mobile_vla.record.disk import DiskGuard, Room
from mobile_vla.record.draft import Draft, Moment
from mobile_vla.record.film import Strip, strip_of, write_film
from mobile_vla.record.hands import HandLoop, HandStep
from mobile_vla.record.pilot import PolicyPilot
from mobile_vla.record.plan import Cell, Plan, Progress, Words
from mobile_vla.safety import Reason, SafetyState, Standstill
from mobile_vla.teleop import Button

EXTRA_RECORDED_AT = "recorded_at"
"""Beside an episode: when it began, by the machine's calendar clock, ISO 8601 in UTC."""

_LOOK_AT_DISK_NS = NS_PER_S
_SETTLE_STEPS = 5
_WAIT_S = 60.0
_log = logging.getLogger(__name__)


class Phase(StrEnum):
    """Where the session is."""

    READY = "ready"  # the next episode may begin
    RECORDING = "recording"
    REVIEW = "review"  # recorded and checked; the operator decides
    SAVING = "saving"


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """``longest_s``: an episode ends by itself. ``review_s``: after so long the proposal of the checks is followed."""

    longest_s: float = 120.0
    review_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Status:
    """For the live line. ``cell`` None: the plan is done. ``frames`` and ``lasted_s`` of the open episode."""

    phase: Phase
    cell: Cell | None
    words: Words | None
    frames: int
    lasted_s: float
    progress: Progress
    room: Room


@dataclass(frozen=True, slots=True)
class Summary:
    """What this session did."""

    kept: int
    discarded: int
    episodes: int
    frames: int


class Audience(Protocol):
    """Who is told, in the thread of the control loop: must not wait."""

    def say(self, sentence: str) -> None:
        """Something happened."""
        ...

    def show(self, step: HandStep, status: Status) -> None:
        """After every control step."""
        ...

    def report(self, report: Report) -> None:
        """An episode ended and was checked."""
        ...


class RecordSession:
    """The listener of a ``HandLoop``: turns buttons and frames into episodes of ``writer``.

    START begins the episode of the next cell of the plan, STOP ends it, and it is checked, with a proposal. Then
    STOP keeps it, DISCARD and REPEAT do not, START follows the proposal and begins the next; so does time. DISCARD and
    REPEAT in an episode throw it away; REPEAT stays at its cell though the plan has enough of it. NEXT goes on to
    another cell, REPLAY makes a film of the episode under review or else of the last kept one, QUIT ends the session.

    Writing and filming happen in threads beside the loop. ``finish`` belongs after the loop, whatever ended it: an
    open episode is discarded, one under review is kept when the checks propose so, and what was kept is durable.
    """

    def __init__(
        self,
        loop: HandLoop,
        writer: EpisodeWriter,
        plan: Plan,
        audience: Audience,
        over: threading.Event,
        *,
        pilot: PolicyPilot | None = None,
        config: SessionConfig | None = None,
        guard: DiskGuard | None = None,
        first: Cell | None = None,
    ) -> None:
        self._loop, self._writer, self._plan, self._audience, self._over = loop, writer, plan, audience, over
        self._pilot, self._config = pilot, config or SessionConfig()
        height, width, _ = writer.image_shape
        self._guard = guard or DiskGuard(writer.root, height * width, writer.contract.frame_rate_hz)
        self._worker = ThreadPoolExecutor(2, thread_name_prefix="record-disk")
        self._saving: Future[None] | None = None
        self._filming: Future[Path] | None = None
        self._progress = plan.progress(read_journal(writer.root)[0])
        self._cell = first or self._progress.next()
        self._draft: Draft | None = None
        self._stack = ExitStack()
        self._report: Report | None = None
        self._words: Words | None = None
        self._phase = Phase.READY
        self._now_ns = self._review_until_ns = self._disk_due_ns = self._frame_ns = 0
        self._settled = self._kept = self._discarded = 0
        self._begin_when_saved = False
        self._standstill: Standstill = loop.supervisor.config.standstill
        self._room = self._guard.room()
        self.failure: MobileVLAError | None = None

    @property
    def status(self) -> Status:
        """Now."""
        draft = self._draft
        return Status(
            phase=self._phase,
            cell=self._cell,
            words=self._words if draft else self._next_words(),
            frames=draft.frames if draft else 0,
            lasted_s=draft.lasted_s if draft else 0.0,
            progress=self._progress,
            room=self._room,
        )

    @property
    def film(self) -> Path:
        """Where REPLAY writes, beside the data set; the next one takes its place."""
        return self._writer.root.with_name(f"{self._writer.root.name}-last.mp4")

    def announce(self) -> None:
        """Say what is next."""
        cell, words = self._cell, self._next_words()
        if cell is None or words is None:
            self._audience.say("the plan is done: quit, or repeat the last scenario")
            return
        have = self._progress.counts[cell.name]
        self._audience.say(f'next: {cell.scenario}, {cell.distance} ({have}/{cell.count}): "{words.text}"')

    def step(self, step: HandStep) -> None:
        """One control step; what the data set refuses ends the session and is kept as ``failure``."""
        self._now_ns = step.tick.stamp_ns
        if step.frame is not None:
            self._frame_ns = step.frame.capture_ns
        open_before = self._draft if self._phase is Phase.RECORDING else None
        try:
            self._poll()
            self._press(step.stick.pressed)
            if self._phase is Phase.RECORDING:
                if open_before is not None and open_before is self._draft:  # one that begins here has the next step
                    self._record(open_before, step)
            elif self._phase is Phase.REVIEW and self._now_ns >= self._review_until_ns:
                self._follow_proposal()
            self._look_at_disk()
        except MobileVLAError as error:
            self._fail(error)
        self._audience.show(step, self.status)

    def finish(self) -> Summary:
        """End the session; waits for what is being written, for a bounded time."""
        self._over.set()
        try:
            if self._phase is Phase.RECORDING:
                self._drop("the session ended while it was recorded")
            elif self._phase is Phase.REVIEW:
                self._follow_proposal()
            if self._saving is not None:
                wait([self._saving], _WAIT_S)
                if not self._saving.done():
                    raise DatasetError(f"the disk took more than {_WAIT_S:g} s for the last episode: look after it")
                self._poll()
        except MobileVLAError as error:
            self._fail(error)
        finally:
            self._stack.close()
            self._worker.shutdown(wait=self._saving is None, cancel_futures=True)
        return Summary(self._kept, self._discarded, self._writer.total_episodes, self._writer.total_frames)

    def _press(self, pressed: frozenset[Button]) -> None:
        if Button.QUIT in pressed:
            self._over.set()
        elif Button.DISCARD in pressed or Button.REPEAT in pressed:
            self._discard(again=Button.REPEAT in pressed)
        elif Button.STOP in pressed:
            self._stop_or_keep()
        elif Button.START in pressed:
            self._start()
        elif Button.NEXT in pressed:
            self._skip()
        if Button.REPLAY in pressed:
            self._replay()

    def _start(self) -> None:
        if self._phase is Phase.REVIEW:
            self._begin_when_saved = True
            self._follow_proposal()
            return
        if self._phase is not Phase.READY:
            self._audience.say("an episode is under way: stop it first" if self._draft else "still writing: wait")
            return
        cell, words = self._cell, self._next_words()
        supervisor = self._loop.supervisor
        if cell is None or words is None:
            self.announce()
        elif supervisor.state.is_stop:
            self._audience.say(f"the robot is in {supervisor.state.replace('_', ' ')}: re-arm or resume first")
        elif self._now_ns - self._frame_ns > NS_PER_S:
            self._audience.say("the camera has given no frame for a second: wait for it, or look after it")
        else:
            self._begin(cell, words)

    def _begin(self, cell: Cell, words: Words) -> None:
        extras = {
            **cell.extras(words),
            EXTRA_RECORDED_AT: datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        recording = self._stack.enter_context(self._writer.episode(words.text, extras))
        self._draft, self._words, self._phase = Draft(recording, self._writer.contract), words, Phase.RECORDING
        self._settled = 0
        if self._pilot is not None:
            self._loop.hand_to(self._pilot, Instruction(words.text))
        self._audience.say(f'recording {cell.name}: "{words.text}"')

    def _record(self, draft: Draft, step: HandStep) -> None:
        tick = step.tick
        stopped = tick.sentence if tick.state.is_stop and tick.reason is not Reason.TAKEN_OVER else None
        running = tick.state is SafetyState.RUNNING
        draft.step(Moment(step.frame, step.measured_then, tick.wanted, step.driver, running, stopped))
        final = tick.grounding is not None and tick.grounding.status.is_final and self._standstill.holds(tick.measured)
        self._settled = self._settled + 1 if final else 0
        if stopped is not None:
            self._end("the robot was stopped")
        elif self._settled >= _SETTLE_STEPS:
            self._end(f"the policy says {tick.grounding.status.value if tick.grounding else ''}")
        elif draft.steps / self._writer.contract.rate_hz >= self._config.longest_s:
            self._end(f"an episode lasts {self._config.longest_s:g} s at most")

    def _stop_or_keep(self) -> None:
        if self._phase is Phase.RECORDING:
            self._end("stopped by the operator")
        elif self._phase is Phase.REVIEW:
            self._keep()
        else:
            self._audience.say("nothing is being recorded: start an episode first")

    def _end(self, why: str) -> None:
        """From RECORDING to REVIEW."""
        assert self._draft is not None
        self._loop.take_back()
        self._report = self._draft.end()
        self._draft.recording.note(**{schema.EXTRA_OUTCOME: why})
        self._phase = Phase.REVIEW
        self._review_until_ns = self._now_ns + round(self._config.review_s * NS_PER_S)
        if self._draft.frames == 0:
            self._drop("it holds no frame")
            return
        self._audience.say(f"{why}: {self._draft.frames} frames in {self._draft.lasted_s:.1f} s")
        self._audience.report(self._report)

    def _follow_proposal(self) -> None:
        if self._report is not None and self._report.keep:
            self._keep()
        elif self._report is not None:
            self._drop(f"the checks propose so ({', '.join(self._report.bad)})")

    def _keep(self) -> None:
        assert self._draft is not None
        self._guard.saw(self._draft.coded_frames, self._draft.size_bytes)
        self._phase = Phase.SAVING
        stack, self._stack = self._stack, ExitStack()
        self._saving = self._worker.submit(stack.close)

    def _discard(self, again: bool) -> None:
        if self._phase in (Phase.RECORDING, Phase.REVIEW):
            self._drop("repeat the scenario" if again else "as the operator wishes")
        elif again and self._phase is Phase.READY:
            last = next(reversed(read_journal(self._writer.root)[0]), None)
            name = last.extras.get(schema.EXTRA_SCENARIO) if last else None
            self._cell = next((cell for cell in self._plan.cells if cell.name == name), self._cell)
            self.announce()
        else:
            self._audience.say("there is no open episode to discard; kept ones stay in the data set")

    def _drop(self, why: str) -> None:
        assert self._draft is not None
        frames = self._draft.frames
        self._loop.take_back()
        self._draft.recording.discard()
        self._stack.close()
        self._discarded += 1
        self._draft = self._report = None
        self._phase = Phase.READY
        self._audience.say(f"discarded the episode of {frames} frames: {why}")
        if not self._over.is_set():
            self._ready()

    def _ready(self) -> None:
        """Go on to what comes after an episode."""
        self.announce()
        if self._begin_when_saved:
            self._begin_when_saved = False
            self._start()

    def _skip(self) -> None:
        if self._phase is not Phase.READY:
            self._audience.say("decide about the open episode first")
            return
        self._cell = self._progress.next(self._cell)
        self.announce()

    def _replay(self) -> None:
        if self._filming is not None:
            self._audience.say("a film is being made: wait")
        elif self._phase is Phase.REVIEW and self._draft is not None:
            self._filming = self._worker.submit(self._make_film, self._draft.strip())
        elif self._writer.total_episodes == 0:
            self._audience.say("there is no kept episode to replay yet")
        else:
            self._filming = self._worker.submit(self._make_film, None)

    def _make_film(self, strip: Strip | None) -> Path:
        """In the worker; without a strip the last kept episode is read from the disk."""
        if strip is None:
            dataset = Dataset.open(self._writer.root)
            strip = strip_of(dataset.episode(dataset.episode_indices[-1]))
        write_film(self.film, strip, self._writer.contract)
        return self.film

    def _poll(self) -> None:
        """What the worker has done since the last step."""
        if self._filming is not None and self._filming.done():
            filming, self._filming = self._filming, None
            error = filming.exception()
            if error is not None:
                _log.info("the film could not be made", exc_info=error)
            said = f"no film: {error}" if error else f"the last episode as a film: {filming.result()}"
            self._audience.say(said)
        if self._saving is None or not self._saving.done():
            return
        saving, self._saving = self._saving, None
        draft, self._draft, self._report = self._draft, None, None
        self._phase = Phase.READY
        saving.result()
        self._kept += 1
        cell = self._cell
        if cell is not None:
            counts = self._progress.counts.copy()
            counts[cell.name] += 1
            self._progress = replace(self._progress, counts=counts)
            if counts[cell.name] >= cell.count:
                self._cell = self._progress.next(cell)
        self._audience.say(f"kept as episode {self._writer.total_episodes - 1}: {draft.frames if draft else 0} frames")
        if not self._over.is_set():
            self._ready()

    def _next_words(self) -> Words | None:
        return self._cell.words_for(self._progress.counts[self._cell.name]) if self._cell else None

    def _look_at_disk(self) -> None:
        if self._now_ns < self._disk_due_ns:
            return
        self._disk_due_ns = self._now_ns + _LOOK_AT_DISK_NS
        draft = self._draft
        if draft is not None and draft.coded_frames:
            self._guard.saw(draft.coded_frames, draft.size_bytes)
        self._room = self._guard.room(draft.size_bytes if draft else 0)
        if self._room.usable_bytes == 0:
            if self._phase is Phase.RECORDING:
                self._end("the disk is nearly full")
            self._fail(DatasetError(f"the disk of {self._writer.root} is nearly full: make room, then record on"))

    def _fail(self, error: MobileVLAError) -> None:
        self.failure = self.failure or error
        self._over.set()
