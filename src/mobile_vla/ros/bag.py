"""Recording of messages as ROS 2 bags: MCAP with ROS 2 schemas, which Foxglove and ``ros2 bag`` open; and reading them.

A bag is a folder with metadata.yaml (rosbag2's version 8, which Humble and Jazzy both read) and one .mcap file
(mcap.dev/spec, mcap.dev/spec/registry). Nothing that a bag holds is executed.
"""

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import BufferedWriter
from pathlib import Path
from typing import Any

import yaml
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_types_from_msg
from typing_extensions import Self

from mobile_vla.core import MobileVLAError
from mobile_vla.ros.inbox import PROFILES
from mobile_vla.ros.messages import TYPES, deserialise, serialise, type_hash
from mobile_vla.ros.topics import Qos, Topic

_log = logging.getLogger(__name__)

CHUNK_BYTES = 4 << 20
CHUNK_S = 1.0
"""A chunk is on disk this long after its first message at the latest, give or take the time that the disk needs."""
MIN_FREE_BYTES = 1 << 30
_RECORD_LIMIT = 1 << 30
_VERSION = 8


class BagError(MobileVLAError):
    """A bag cannot be written or read."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message of a bag. ``topic``: absolute name. ``stamp_ns``: system time at which it was recorded."""

    topic: str
    type_name: str
    stamp_ns: int
    message: Any


class BagWriter:
    """Writes a new bag at ``path``; any thread may.

    ``topics``: by absolute name; a name missing there cannot be written. A thread puts what was written on disk every
    second, so a crash loses at most the open chunk, and what comes before reads back (``recover``). When less than
    ``min_free_bytes`` are left on the disk the bag is finished, and ``stopped`` says so. BagError when ``path`` exists
    or the disk is that full already, TransportError for a type that we do not know.
    """

    def __init__(self, path: Path, topics: Mapping[str, Topic], *, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self.path, self._topics, self._min_free_bytes = path, dict(topics), min_free_bytes
        for topic in topics.values():
            type_hash(topic.type)
        self.stopped: str | None = None
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(self._topics, 0)
        self._first_ns, self._last_ns = 0, 0
        self._file = self._made_file()
        self._writer: Any = Writer(self._file, chunk_size=CHUNK_BYTES, compression=CompressionType.NONE)
        self._writer.start(profile="ros2", library="mobile-vla")
        self._channels = self._registered()
        self._done = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"bag {path.name}", daemon=True)
        self._keeper.start()

    @property
    def count(self) -> int:
        """Messages recorded so far."""
        return sum(self._counts.values())

    def write(self, name: str, message: Any, stamp_ns: int) -> bool:
        """Record ``message`` of the topic ``name``, which came at ``stamp_ns`` in system time; False once ``stopped``.

        BagError for a topic that was not announced, and when the bag is closed; TransportError for a message that is
        not of the topic's type.
        """
        if name not in self._topics:
            raise BagError(f"{name} is not among the topics of the bag {self.path}: announce it when the bag is made")
        return self.write_bytes(name, serialise(self._topics[name].type, message), stamp_ns)

    def write_bytes(self, name: str, data: bytes, stamp_ns: int) -> bool:
        """As ``write``, for CDR that was made or received elsewhere."""
        with self._lock:
            if self.stopped is not None:
                return False
            if self._file.closed:
                raise BagError(f"the bag {self.path} is closed: nothing can be recorded in it any more")
            try:
                self._writer.add_message(self._channels[name], stamp_ns, data, stamp_ns)
            except OSError as error:
                self._stop(f"the bag {self.path} cannot be written ({error.strerror}): recording stopped")
                return False
            self._first_ns = min(self._first_ns or stamp_ns, stamp_ns)
            self._last_ns = max(self._last_ns, stamp_ns)
            self._counts[name] += 1
            return True

    def close(self) -> None:
        """Finish the bag, so that every tool opens it. Closed twice is closed."""
        self._done.set()
        self._keeper.join()
        with self._lock:
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _made_file(self) -> BufferedWriter:
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise BagError(f"{self.path} exists: choose another name, a bag is never overwritten") from None
        except OSError as error:
            raise BagError(f"the bag {self.path} cannot be made ({error.strerror}): choose another place") from error
        if self._too_full():
            self.path.rmdir()
            raise BagError(f"{self._full()}: make room, or record on another disk")
        return open(self.path / f"{self.path.name}.mcap", "xb")

    def _registered(self) -> dict[str, int]:
        schemas = {
            kind: self._writer.register_schema(kind, "ros2msg", TYPES.generate_msgdef(kind, ros_version=2)[0].encode())
            for kind in dict.fromkeys(topic.type for topic in self._topics.values())
        }
        return {
            name: self._writer.register_channel(
                name, "cdr", schemas[topic.type], {"offered_qos_profiles": _qos_profiles(topic.qos)}
            )
            for name, topic in self._topics.items()
        }

    def _keep(self) -> None:
        while not self._done.wait(CHUNK_S):
            with self._lock:
                if self.stopped is not None:
                    return
                try:
                    self._close_chunk()
                except OSError as error:
                    self._stop(f"the bag {self.path} cannot be written ({error.strerror}): recording stopped")
                    return
                if self._too_full():
                    self._stop(f"{self._full()}: recording stopped, and what was recorded is safe")
                    return
                number = os.dup(self._file.fileno())
            try:
                os.fsync(number)  # outside the lock: a slow disk delays nobody who writes
            finally:
                os.close(number)

    def _close_chunk(self) -> None:
        # mcap closes a chunk by its size alone; this is what it calls then
        self._writer._Writer__finalize_chunk()
        self._file.flush()

    def _stop(self, sentence: str) -> None:
        self.stopped = sentence
        _log.warning("%s", sentence)
        self._finish()

    def _finish(self) -> None:
        if self._file.closed:
            return
        metadata = self._metadata()
        try:
            inner = yaml.safe_dump(metadata["rosbag2_bagfile_information"], sort_keys=False)
            self._writer.add_metadata("rosbag2", {"serialized_metadata": inner})
            self._writer.finish()
            self._file.flush()
            os.fsync(self._file.fileno())
            part = self.path / "metadata.yaml.part"
            part.write_text(yaml.safe_dump(metadata, sort_keys=False), encoding="utf-8")
            os.replace(part, self.path / "metadata.yaml")
        except OSError as error:
            self.stopped = self.stopped or f"the bag {self.path} could not be finished ({error.strerror}): recover it"
            _log.warning("%s", self.stopped)
        finally:
            with contextlib.suppress(OSError):
                self._file.close()

    def _metadata(self) -> dict[str, Any]:
        def times() -> dict[str, Any]:  # made anew, as rosbag2's files have no YAML aliases
            return {
                "duration": {"nanoseconds": self._last_ns - self._first_ns},
                "starting_time": {"nanoseconds_since_epoch": self._first_ns},
                "message_count": self.count,
            }

        topics = [
            {
                "topic_metadata": {
                    "name": name,
                    "type": topic.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": _qos_profiles(topic.qos),
                    "type_description_hash": type_hash(topic.type),
                },
                "message_count": self._counts[name],
            }
            for name, topic in self._topics.items()
        ]
        file = f"{self.path.name}.mcap"
        return {
            "rosbag2_bagfile_information": {
                "version": _VERSION,
                "storage_identifier": "mcap",
                **times(),
                "topics_with_message_count": topics,
                "compression_format": "",
                "compression_mode": "",
                "relative_file_paths": [file],
                "files": [{"path": file, **times()}],
                "custom_data": None,
                "ros_distro": os.environ.get("ROS_DISTRO", "jazzy"),
            }
        }

    def _too_full(self) -> bool:
        return shutil.disk_usage(self.path.parent).free < self._min_free_bytes

    def _full(self) -> str:
        free = shutil.disk_usage(self.path.parent).free
        return f"less than {self._min_free_bytes / 1e9:.1f} GB are free where {self.path} is ({free / 1e9:.1f} GB)"


class BagReader:
    """Reads a bag of ours or of ``ros2 bag``: a folder, or one .mcap or .db3 file. BagError when it is none.

    ``topics``: type by name. Topics whose type we do not know, or know with other fields, are in ``unread`` and passed
    over. A bag that was never finished is read as far as it goes, and then ``finished`` is False.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise BagError(f"there is no bag at {path}")
        self.topics: dict[str, str] = {}
        self.unread: dict[str, str] = {}
        self._parts = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
        self._reader = self._opened()
        self.finished = self._reader is not None
        if not self.finished:
            for part in self._parts:
                for _ in self._salvaged(part):
                    pass
            if not self.topics and not self.unread:
                raise BagError(f"nothing can be read of {path}: it is no bag, or it ended before its first second")

    def __iter__(self) -> Iterator[Recorded]:
        """In the order of their stamps; of an unfinished bag in the order of their arrival. May be asked for again.

        BagError where a finished bag is damaged; TransportError for bytes that are no message of their type.
        """
        for raw in self.raw():
            yield replace(raw, message=deserialise(raw.type_name, raw.message))

    def raw(self) -> Iterator[Recorded]:
        """As ``__iter__``, with CDR bytes as messages."""
        if self._reader is None:
            for part in self._parts:
                yield from self._salvaged(part)
            return
        wanted = [connection for connection in self._reader.connections if connection.topic not in self.unread]
        if not wanted:  # rosbags reads none as all
            return
        try:
            for connection, stamp_ns, data in self._reader.messages(connections=wanted):
                yield Recorded(connection.topic, connection.msgtype, stamp_ns, data)
        except Exception as error:  # rosbags' readers raise what the damage makes of them
            raise BagError(f"the bag {self.path} is damaged: {error}") from error

    def close(self) -> None:
        """Let the files go."""
        if self._reader is not None and self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _opened(self) -> Reader | None:
        """The bag by its index; None for an MCAP that was not finished."""
        try:
            reader = Reader(self.path)
            reader.open()
        except Exception as error:
            if self._parts and self._parts[0].suffix == ".mcap":
                _log.info("%s was not finished or is damaged (%s): it is read as far as it goes", self.path, error)
                return None
            raise BagError(f"{self.path} is not a bag that can be read: {error}") from error
        for connection in reader.connections:
            is_text = connection.msgdef.format is MessageDefinitionFormat.MSG
            self._note(connection.topic, connection.msgtype, connection.msgdef.data if is_text else "")
        return reader

    def _note(self, topic: str, kind: str, definition: str) -> None:
        (self.topics if _same_fields(kind, definition) else self.unread)[topic] = kind

    def _salvaged(self, part: Path) -> Iterator[Recorded]:
        """What stands whole in one MCAP, front to back, its checksums verified; notes its topics."""
        schemas: dict[int, Schema] = {}
        channels: dict[int, tuple[str, str]] = {}
        with open(part, "rb") as file:
            records = StreamReader(file, validate_crcs=True, record_size_limit=_RECORD_LIMIT).records
            while True:
                try:
                    record = next(records, None)
                except Exception as error:  # mcap's errors have no common base: CRCs, lengths, decompressors
                    _log.info("%s ends early: %s", part, error)
                    return
                match record:
                    case None:
                        return
                    case Schema():
                        schemas[record.id] = record
                    case Channel() if record.schema_id in schemas:
                        schema = schemas[record.schema_id]
                        channels[record.id] = (record.topic, schema.name)
                        self._note(record.topic, schema.name, schema.data.decode(errors="replace"))
                    case Message() if record.channel_id in channels:
                        topic, kind = channels[record.channel_id]
                        if topic in self.topics:
                            yield Recorded(topic, kind, record.log_time, record.data)


def recover(path: Path, into: Path) -> int:
    """Write what stands whole in an unfinished bag as a new bag; tells how many messages that is.

    BagError when ``into`` exists, and for a bag that was finished but is damaged within.
    """
    with BagReader(path) as reader:
        topics = {
            name: Topic(name, kind, Qos.DEFAULT, None, None, "bag", "") for name, kind in sorted(reader.topics.items())
        }
        with BagWriter(into, topics) as writer:
            for recorded in reader.raw():
                writer.write_bytes(recorded.topic, recorded.message, recorded.stamp_ns)
            return writer.count


def _same_fields(kind: str, definition: str) -> bool:
    """We know the type, and the bag's own definition, where it has one, has the fields that ours has. Runs nothing."""
    if kind not in TYPES.fielddefs:
        return False
    if not definition:
        return True
    try:
        theirs = get_types_from_msg(definition, kind)
    except Exception:  # rosbags' parser raises what the text makes of it
        return False
    return all(name in TYPES.fielddefs and TYPES.fielddefs[name][1] == fields for name, (_, fields) in theirs.items())


def _qos_profiles(qos: Qos) -> str:
    """The YAML text of one offered profile, as rosbag2 writes it up to version 8; rmw's numbers, endless times."""
    profile = PROFILES[qos]
    deadline, lifespan, lease = ({"sec": 9223372036, "nsec": 854775807} for _ in range(3))
    return yaml.safe_dump(
        [
            {
                "history": 1,
                "depth": profile.depth,
                "reliability": 1,
                "durability": 1 if profile.latched else 2,
                "deadline": deadline,
                "lifespan": lifespan,
                "liveliness": 1,
                "liveliness_lease_duration": lease,
                "avoid_ros_namespace_conventions": False,
            }
        ],
        sort_keys=False,
        default_flow_style=False,
    )
