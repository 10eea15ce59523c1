"""An interpreter for foreign pickles that builds plain data and nothing else.

Nothing from the file is imported, called or looked up by name: a global is a string that a table of ours knows or not.
Opcodes and their binary arguments come from the standard library's ``pickletools``. Its readers of text arguments are
not used: they undo backslash escapes that a real unpickler leaves alone, so that ``ev\\x61l`` would read as ``eval``.
"""

import re
from codecs import escape_decode, raw_unicode_escape_decode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pickletools import opcodes as OPCODES
from typing import Any

from mobile_vla.checkpoint.formats.inert import HARMLESS, PLAIN, Budget, Global, Opaque, RefusedError, children
from mobile_vla.core.errors import CheckpointError, DamagedCheckpointError, UnsafeCheckpointError

Constructor = Callable[[tuple[object, ...]], object]
Table = Mapping[str, Constructor | None]
"""Globals that a caller allows, "module.name": what makes a value of inert arguments, or None for a mere name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may ask for. The defaults fit one of 100,000 tensors.

    ``depth`` counts containers within containers, ``built_bytes`` roughly what containers, copies and keys cost, and
    ``odd_keys`` the dictionary keys and set members that are no text.
    """

    pickle_bytes: int = 256 << 20
    opcodes: int = 5_000_000
    depth: int = 500
    memo: int = 5_000_000
    integer_digits: int = 1000
    built_bytes: int = 256 << 20
    odd_keys: int = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Pickled:
    """The value of one pickle, how many bytes it took, and the names of the classes that stayed inert records.

    A value may be nested deeply, hold itself, or hold one list a billion times: walk it with a loop and a limit.
    """

    value: object
    consumed_bytes: int
    opaque_globals_met: tuple[str, ...]


DEFAULT_LIMITS = Limits()


def interpret(
    data: bytes,
    source: Path,
    table: Table,
    persistent: Callable[[object], object] | None = None,
    opaque: Collection[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Pickled:
    """Read the pickle at the start of ``data``; bytes after its STOP are left alone. ``source`` stands in errors.

    ``table`` comes first; then plain values and well-known harmless classes; then ``opaque``: names ("my_net.Config")
    or all below a module ("my_net.*") that may stand in the file as inert records. ``persistent`` turns a persistent
    id into a value. Constructors and ``persistent`` raise ``RefusedError`` for arguments that make no sense; what they
    return must be immutable and small, or an ``Opaque``.

    Raises UnsafeCheckpointError for anything else that would import, call or build, and for what exceeds ``limits``;
    DamagedCheckpointError for a pickle that is cut or malformed; CheckpointError for a pattern of another form.
    """
    for pattern in opaque:
        if not _PATTERN.fullmatch(pattern):
            raise CheckpointError(f"{pattern!r} names no class: write 'module.Class', or 'module.*' for all below it")
    machine = _Machine(data, table, persistent, tuple(opaque), limits)
    try:
        value = machine.run()
    except RefusedError as refusal:
        culprit = refusal.culprit or machine.opcode
        reason = f"at byte {machine.position} its pickle {refusal.reason.removeprefix('it ')}; nothing of it was run"
        raise UnsafeCheckpointError(source, culprit, reason) from None
    except _MalformedError as error:
        raise DamagedCheckpointError(source, f"its pickle {error}, at byte {machine.position}") from None
    return Pickled(value, machine.stream.tell(), tuple(dict.fromkeys(each.full for each in machine.met)))


class _MalformedError(Exception):
    pass


_PATTERN = re.compile(r"\w+(\.\w+)*\.(\w+|\*)")
_OPAQUE_ADVICE = "to read the rest of the file, name it as opaque: it then stays an inert record"
_NAME_BYTES = 512
_NUMBER_BYTES = 64
_CONTAINER_BYTES, _SET_BYTES = 64, 216
_DECIMAL = re.compile(rb"[+-]?[0-9]+")
_FLOAT = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf|nan|-nan")
# Escapes that Python knows; its decoder warns of others, or takes them for something else
_ESCAPE = re.compile(rb"""\\(?:[\\'"abfnrtv]|x[0-9A-Fa-f]{2}|[0-3][0-7]{2}|[0-7]{1,2}(?![0-7]))""")
_PYTHON_2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _Machine:
    """The stack, the marks on it, the memo, and one method for each opcode that is more than a value."""

    def __init__(
        self,
        data: bytes,
        table: Table,
        persistent: Callable[[object], object] | None,
        opaque: tuple[str, ...],
        limits: Limits,
    ) -> None:
        self.clipped = len(data) > limits.pickle_bytes
        self.stream = BytesIO(data[: limits.pickle_bytes] if self.clipped else data)
        self.size = min(len(data), limits.pickle_bytes)
        self.table, self.persistent, self.opaque, self.limits = table, persistent, opaque, limits
        self.budget = Budget(limits.built_bytes, limits.odd_keys)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, object] = {}
        self.met: dict[Global, None] = {}
        self.opcode, self.position = "PROTO", 0

    def run(self) -> object:
        read, tell = self.stream.read, self.stream.tell
        for _ in range(self.limits.opcodes):
            self.position = tell()
            code = read(1)
            step = _STEPS.get(code)
            if step is None:
                raise self._cut() if code == b"" else _MalformedError(f"has an unknown opcode {code!r}")
            self.opcode, reader, act = step
            if reader is None:
                act(self)
            else:
                try:
                    argument = reader(self.stream)
                except ValueError as error:
                    raise self._cut(f"breaks off or is no pickle ({self.opcode}: {str(error)[:100]})") from None
                act(self, argument)
            if code == b".":
                return self._result()
        raise RefusedError(f"it has more than {self.limits.opcodes} opcodes", "too many opcodes")

    def _result(self) -> object:
        value = self.pop()
        if self.stack or self.below:
            raise _MalformedError("ends with values left over")
        level, seen = [value], {id(value)}
        for _ in range(self.limits.depth + 1):
            deeper = []
            for each in level:
                for child in children(each):
                    if isinstance(child, _CONTAINERS) and id(child) not in seen:
                        seen.add(id(child))
                        deeper.append(child)
            if not deeper:
                return value
            level = deeper
        raise RefusedError(f"it nests containers more than {self.limits.depth} deep", "nesting")

    def _cut(self, what: str = "breaks off before its end") -> Exception:
        if self.clipped:
            return RefusedError(f"it is longer than {self.limits.pickle_bytes} bytes", "size")
        return _MalformedError(what)

    # --- the stack

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_new(self, container: object) -> None:
        self.budget.spend(_SET_BYTES if isinstance(container, set | frozenset) else _CONTAINER_BYTES)
        self.stack.append(container)

    def pop(self) -> Any:
        if not self.stack:
            raise _MalformedError(f"takes more from its stack than is there ({self.opcode})")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise _MalformedError(f"takes more from its stack than is there ({self.opcode})")
        return self.stack[-1]

    def take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise _MalformedError(f"takes more from its stack than is there ({self.opcode})")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def mark(self) -> None:
        if len(self.below) == self.limits.depth:
            raise RefusedError(f"it sets more than {self.limits.depth} marks", "nesting")
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.below:
            raise _MalformedError(f"goes back to a mark that is not there ({self.opcode})")
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def pop_value_or_mark(self) -> None:
        """POP: protocol 0 also takes a bare mark away with it."""
        if self.stack or not self.below:
            self.pop()
        else:
            self.pop_mark()

    # --- text arguments

    def line(self, longest: int) -> bytes:
        line = self.stream.readline(longest + 1)
        if line.endswith(b"\n"):
            return line[:-1]
        if len(line) > longest and longest < self.size:
            raise RefusedError(f"it has a line of more than {longest} bytes after {self.opcode}")
        raise self._cut()

    def name_line(self) -> str:
        try:
            return self.line(_NAME_BYTES).decode("utf-8")
        except UnicodeDecodeError:
            raise _MalformedError("has a name that is no text") from None

    def decimal(self, line: bytes) -> int:
        if not _DECIMAL.fullmatch(line):
            raise _MalformedError(f"has {line[:40]!r} where {self.opcode} needs a number")
        if len(line.lstrip(b"+-")) > self.limits.integer_digits:
            raise RefusedError(f"it has a number of more than {self.limits.integer_digits} digits")
        return int(line)

    def int_line(self) -> None:
        line = self.line(self.limits.integer_digits + 2)
        self.push(line == b"01" if line in (b"00", b"01") else self.decimal(line))

    def long_line(self) -> None:
        self.push(self.decimal(self.line(self.limits.integer_digits + 2).removesuffix(b"L")))

    def float_line(self) -> None:
        line = self.line(_NAME_BYTES)
        if not _FLOAT.fullmatch(line):
            raise _MalformedError(f"has {line[:40]!r} where {self.opcode} needs a number")
        self.push(float(line))

    def string_line(self) -> None:
        line = self.line(self.size)
        quoted = len(line) >= 2 and line[0] == line[-1] and line[:1] in (b"'", b'"')
        if not quoted or b"\\" in _ESCAPE.sub(b"", line[1:-1]):
            raise _MalformedError("has a text without quotes or with an unknown escape")
        self.push(escape_decode(line[1:-1])[0].decode("latin-1"))

    def unicode_line(self) -> None:
        try:
            self.push(raw_unicode_escape_decode(self.line(self.size))[0])
        except UnicodeDecodeError:
            raise _MalformedError("has a text with a broken escape") from None

    def push_long(self, value: int) -> None:
        if value.bit_length() > self.limits.integer_digits * 3.33:
            raise RefusedError(f"it has a number of more than {self.limits.integer_digits} digits")
        self.push(value)

    # --- the memo

    def put(self, index: int) -> None:
        if not 0 <= index < self.limits.memo:
            raise RefusedError(f"it remembers a value under the number {index}", f"memo index {index}")
        if index in self.memo:
            raise RefusedError(
                "it remembers two values under one number, as no honest writer does", f"memo index {index}"
            )
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise _MalformedError(f"recalls a value that it never kept (memo index {index})")
        self.push(self.memo[index])

    # --- containers

    def append(self) -> None:
        value = self.pop()
        self.growing_list().append(value)

    def appends(self) -> None:
        values = self.pop_mark()
        self.growing_list().extend(values)

    def growing_list(self) -> list[object]:
        target = self.top()
        if type(target) is list:
            return target
        if isinstance(target, Opaque):
            return target.items
        raise RefusedError(f"it appends to a {type(target).__name__}")

    def set_items(self, entries: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Opaque):
            target = target.pairs
        elif type(target) is not dict:
            raise RefusedError(f"it sets entries of a {type(target).__name__}")
        self.fill(target, entries)

    def fill(self, target: dict[object, object], entries: list[Any]) -> dict[object, object]:
        if len(entries) % 2:
            raise _MalformedError("has a dictionary key without a value")
        for key, value in zip(entries[::2], entries[1::2], strict=True):
            self.budget.put(target, key, value)
        return target

    def add_items(self) -> None:
        members = self.members()
        target = self.top()
        if type(target) is not set:
            raise RefusedError(f"it adds members to a {type(target).__name__}")
        target.update(members)

    def members(self) -> list[Any]:
        members = self.pop_mark()
        for member in members:
            self.budget.check_key(member)
        return members

    # --- globals, and what would be calls

    def global_line(self) -> None:
        module = self.name_line()
        self.push_global(module, self.name_line())

    def stack_global(self) -> None:
        module, name = self.take(2)
        if type(module) is not str or type(name) is not str:
            raise RefusedError("it names a global by something that is no text")
        self.push_global(module, name)

    def push_global(self, module: str, name: str) -> None:
        if len(module) + len(name) > _NAME_BYTES:
            raise RefusedError("it asks for a global with an endless name")
        found = Global(_PYTHON_2_MODULES.get(module, module), name)
        full = found.full
        # A dot in the name means a walk along attributes: no name of ours needs one, a user may still allow it
        ours = "." not in name
        if not (ours and (full in self.table or full in PLAIN)):
            if not full.isprintable():
                raise RefusedError("it asks for a global whose name is no printable text", ascii(full))
            if not ((ours and full in HARMLESS) or any(_fits(full, pattern) for pattern in self.opaque)):
                raise RefusedError(f"it asks for {full}, which no tensor needs ({_OPAQUE_ADVICE})", full)
            self.met[found] = None
        self.push(found)

    def call(self, made: object, args: object) -> None:
        if not isinstance(made, Global):
            raise RefusedError(f"it calls a {type(made).__name__}")
        if type(args) is not tuple:
            raise RefusedError(f"it calls {made.full} with something other than a tuple", made.full)
        self.budget.spend_on(args)
        full = made.full
        try:
            if made in self.met:
                self.push_new(Opaque(full, args))
            elif full in self.table:
                constructor = self.table[full]
                if constructor is None:
                    raise RefusedError(f"it calls {full}, which is a mere name here")
                self.push(constructor(args))
            else:
                self.push(PLAIN[full](args, self.budget))
        except RefusedError as refusal:
            raise RefusedError(refusal.reason, refusal.culprit or full) from None

    def reduce(self) -> None:
        self.call(*self.take(2))

    def newobj_ex(self) -> None:
        made, args, keywords = self.take(3)
        if type(keywords) is not dict or type(args) is not tuple:
            raise RefusedError("it makes an object with something other than arguments")
        if keywords and isinstance(made, Global) and made not in self.met:
            raise RefusedError(f"it calls {made.full} with keywords", made.full)
        self.budget.spend_on(args)
        self.call(made, (*args, keywords) if keywords else args)

    def inst(self) -> None:
        self.global_line()
        made = self.pop()
        self.call(made, tuple(self.pop_mark()))

    def obj(self) -> None:
        made, *args = self.pop_mark() or [None]
        self.call(made, tuple(args))

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if not isinstance(target, Opaque):
            raise RefusedError(f"it sets the inner state of a {type(target).__name__}")
        if target.state is not None:
            raise RefusedError("it sets the inner state of one object twice")
        target.state = state

    def persid(self) -> None:
        self.persist(self.name_line())

    def persist(self, key: object) -> None:
        if self.persistent is None:
            raise RefusedError("it refers to something outside itself")
        self.push(self.persistent(key))

    def refuse(self, argument: object = None) -> None:
        raise RefusedError("it uses an opcode that no checkpoint needs")

    # --- framing

    def proto(self, version: int) -> None:
        if version > 5 or self.position != 0:
            raise _MalformedError(f"claims protocol {version} where none is")

    def frame(self, size: int) -> None:
        if size > self.size - self.stream.tell():
            raise self._cut(f"claims a frame of {size} bytes, more than are left")

    def nothing(self) -> None:
        pass


_CONTAINERS = (list, tuple, dict, set, frozenset, Opaque)


def _fits(full: str, pattern: str) -> bool:
    return full.startswith(pattern[:-1]) if pattern.endswith(".*") else full == pattern


_ACTS: dict[str, Callable[..., object]] = {
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "BINFLOAT": _Machine.push,
    "BINSTRING": _Machine.push,
    "SHORT_BINSTRING": _Machine.push,
    "BINUNICODE": _Machine.push,
    "SHORT_BINUNICODE": _Machine.push,
    "BINUNICODE8": _Machine.push,
    "BINBYTES": _Machine.push,
    "SHORT_BINBYTES": _Machine.push,
    "BINBYTES8": _Machine.push,
    "BYTEARRAY8": _Machine.push,
    "NONE": lambda machine: machine.push(None),
    "NEWTRUE": lambda machine: machine.push(True),
    "NEWFALSE": lambda machine: machine.push(False),
    "LONG1": _Machine.push_long,
    "LONG4": _Machine.push_long,
    "EMPTY_LIST": lambda machine: machine.push_new([]),
    "EMPTY_TUPLE": lambda machine: machine.push(()),
    "EMPTY_DICT": lambda machine: machine.push_new({}),
    "EMPTY_SET": lambda machine: machine.push_new(set()),
    "LIST": lambda machine: machine.push_new(machine.pop_mark()),
    "TUPLE": lambda machine: machine.push_new(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine: machine.push_new(tuple(machine.take(1))),
    "TUPLE2": lambda machine: machine.push_new(tuple(machine.take(2))),
    "TUPLE3": lambda machine: machine.push_new(tuple(machine.take(3))),
    "DICT": lambda machine: machine.push_new(machine.fill({}, machine.pop_mark())),
    "FROZENSET": lambda machine: machine.push_new(frozenset(machine.members())),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": lambda machine: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine: machine.set_items(machine.pop_mark()),
    "ADDITEMS": _Machine.add_items,
    "POP": _Machine.pop_value_or_mark,
    "DUP": lambda machine: machine.push(machine.top()),
    "MARK": _Machine.mark,
    "POP_MARK": _Machine.pop_mark,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine: machine.put(len(machine.memo)),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.newobj_ex,
    "OBJ": _Machine.obj,
    "BUILD": _Machine.build,
    "BINPERSID": lambda machine: machine.persist(machine.pop()),
    "PROTO": _Machine.proto,
    "FRAME": _Machine.frame,
    "STOP": _Machine.nothing,
}
_TEXT_ACTS: dict[str, Callable[..., object]] = {
    "INT": _Machine.int_line,
    "LONG": _Machine.long_line,
    "FLOAT": _Machine.float_line,
    "STRING": _Machine.string_line,
    "UNICODE": _Machine.unicode_line,
    "GET": lambda machine: machine.get(machine.decimal(machine.line(_NUMBER_BYTES))),
    "PUT": lambda machine: machine.put(machine.decimal(machine.line(_NUMBER_BYTES))),
    "GLOBAL": _Machine.global_line,
    "INST": _Machine.inst,
    "PERSID": _Machine.persid,
}
# Whatever a later Python adds to its opcodes is refused until it is named above
_STEPS: Mapping[bytes, tuple[str, Callable[[Any], Any] | None, Callable[..., object]]] = {
    opcode.code.encode("latin-1"): (
        opcode.name,
        opcode.arg.reader if opcode.arg and opcode.name not in _TEXT_ACTS else None,
        (_ACTS | _TEXT_ACTS).get(opcode.name, _Machine.refuse),
    )
    for opcode in OPCODES
}
