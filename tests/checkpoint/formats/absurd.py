"""Pickles that run nothing but are malformed, absurd or made to exhaust memory, time or the stack."""

import struct

from .malicious import Raw, called, encode, first, kept, name, walked, whole

DAMAGED, UNSAFE = "damaged", "unsafe"
FLOAT_STORAGE = name("torch", "FloatStorage")
ORDERED = called(name("collections", "OrderedDict"))


def storage(kind: Raw = FLOAT_STORAGE, key: object = "0", location: object = "cpu", numel: object = 4) -> Raw:
    return Raw(encode(("storage", kind, key, location, numel)) + b"Q")


def tensor(
    store: object = None,
    offset: object = 0,
    shape: object = (4,),
    strides: object = (1,),
    grad: object = False,
    *more: object,
) -> Raw:
    function = name("torch._utils", "_rebuild_tensor_v2")
    return called(function, storage() if store is None else store, offset, shape, strides, grad, ORDERED, *more)


def text8(length: int) -> bytes:
    return struct.pack("<Q", length)


# Malformed: name, bytes, "damaged" or "unsafe", a part of the error
ABSURD: list[tuple[str, bytes, str, str]] = [
    ("nothing", b"", DAMAGED, "breaks off"),
    ("text", b"Entry not found", DAMAGED, "byte"),
    ("a page", b"<!DOCTYPE html><html>", DAMAGED, "opcode"),
    ("protocol alone", b"\x80\x02", DAMAGED, "breaks off"),
    ("protocol 99", whole(None, 99), DAMAGED, "protocol 99"),
    ("protocol twice", b"\x80\x02N0\x80\x02N.", DAMAGED, "protocol"),
    ("no value at the end", b"\x80\x02.", DAMAGED, "stack"),
    ("two values at the end", b"\x80\x02NN.", DAMAGED, "left over"),
    ("an open mark at the end", b"\x80\x02(N.", DAMAGED, "left over"),
    ("unknown opcode", b"\x80\x02\xff.", DAMAGED, "opcode"),
    ("POP of nothing", b"0.", DAMAGED, "stack"),
    ("POP_MARK of nothing", b"1.", DAMAGED, "mark"),
    ("TUPLE without a mark", b"NNt.", DAMAGED, "mark"),
    ("TUPLE3 of one", b"N\x87.", DAMAGED, "stack"),
    ("a value below a mark", b"N(\x85.", DAMAGED, "stack"),
    ("REDUCE of nothing", b"R.", DAMAGED, "stack"),
    ("BUILD of nothing", b"Nb.", DAMAGED, "stack"),
    ("BINPUT of nothing", b"q\x00N.", DAMAGED, "stack"),
    ("DUP of nothing", b"2.", DAMAGED, "stack"),
    ("APPENDS without a mark", b"]Ne.", DAMAGED, "mark"),
    ("a key without a value", b"}(Nu.", DAMAGED, "without a value"),
    ("a dictionary of three", b"(NNNd.", DAMAGED, "without a value"),
    ("GET of what was never kept", b"h\x07.", DAMAGED, "never kept"),
    ("GET of a word", b"gone\n.", DAMAGED, "number"),
    ("INT in words", b"Ione\n.", DAMAGED, "number"),
    ("FLOAT in words", b"Fone\n.", DAMAGED, "number"),
    ("STRING without quotes", b"Sword\n.", DAMAGED, "quotes"),
    ("STRING with an unknown escape", b"S'\\d'\n.", DAMAGED, "escape"),
    ("STRING with an octal beyond a byte", b"S'\\777'\n.", DAMAGED, "escape"),
    ("UNICODE with a broken escape", b"V\\u12\n.", DAMAGED, "escape"),
    ("broken UTF-8", b"X\x01\0\0\0\xff.", DAMAGED, "BINUNICODE"),
    ("a name that is no text", b"c\xff\nsystem\n.", DAMAGED, "no text"),
    ("a name without an end", b"cos", DAMAGED, "breaks off"),
    ("a line that has no end", b"V" + b"x" * 10_000, DAMAGED, "breaks off"),
    ("a text of 2**62 bytes", b"\x8d" + text8(2**62) + b"x.", DAMAGED, "BINUNICODE8"),
    ("a text of 2**64 - 1 bytes", b"\x8d" + text8(2**64 - 1) + b"x.", DAMAGED, "BINUNICODE8"),
    ("bytes of 2**62", b"\x8e" + text8(2**62) + b"x.", DAMAGED, "BINBYTES8"),
    ("a bytearray of 2**62", b"\x96" + text8(2**62) + b"x.", DAMAGED, "BYTEARRAY8"),
    ("bytes of 4 GiB", b"B\xff\xff\xff\xffx.", DAMAGED, "BINBYTES"),
    ("a string of -1 bytes", b"T\xff\xff\xff\xffx.", DAMAGED, "BINSTRING"),
    ("a number of -1 bytes", b"\x8b\xff\xff\xff\xff.", DAMAGED, "LONG4"),
    ("a number of 2 GiB", b"\x8b\xff\xff\xff\x7f\x01.", DAMAGED, "LONG4"),
    ("a frame of 2**63 bytes", b"\x80\x04\x95" + text8(2**63) + b"N.", DAMAGED, "frame"),
    ("a frame longer than the rest", b"\x80\x04\x95" + text8(3) + b"N.", DAMAGED, "frame"),
    # What would call, build or import
    ("EXT1", b"\x82\x01.", UNSAFE, "EXT1"),
    ("EXT2", b"\x83\x01\x00.", UNSAFE, "EXT2"),
    ("EXT4", b"\x84\x01\x00\x00\x00.", UNSAFE, "EXT4"),
    ("NEXT_BUFFER", b"\x80\x05\x97.", UNSAFE, "NEXT_BUFFER"),
    ("READONLY_BUFFER", b"\x80\x05N\x98.", UNSAFE, "READONLY_BUFFER"),
    ("PERSID", b"P0\n.", UNSAFE, "PERSID"),
    ("BINPERSID of a number", b"K\x00Q.", UNSAFE, "BINPERSID"),
    ("STACK_GLOBAL of numbers", b"K\x01K\x02\x93.", UNSAFE, "STACK_GLOBAL"),
    ("STACK_GLOBAL of records", whole(Raw(ORDERED.code + ORDERED.code + b"\x93"), 4), UNSAFE, "STACK_GLOBAL"),
    ("REDUCE of a text", whole(Raw(encode("os.system") + b")R")), UNSAFE, "REDUCE"),
    ("REDUCE of a record", whole(called(ORDERED)), UNSAFE, "REDUCE"),
    ("REDUCE with a list", whole(Raw(name("collections", "OrderedDict").code + b"]R")), UNSAFE, "OrderedDict"),
    ("REDUCE of a mere name", whole(called(name("torch", "float32"))), UNSAFE, "torch.float32"),
    ("REDUCE of a storage class", whole(called(FLOAT_STORAGE, 4)), UNSAFE, "torch.FloatStorage"),
    ("NEWOBJ of a dictionary", b"\x80\x02})\x81.", UNSAFE, "NEWOBJ"),
    ("NEWOBJ_EX without keywords", whole(Raw(name("argparse", "Namespace").code + b")]\x92"), 4), UNSAFE, "NEWOBJ_EX"),
    (
        "NEWOBJ_EX with keywords for ours",
        whole(Raw(name("collections", "OrderedDict").code + b")" + encode({"x": 1}) + b"\x92"), 4),
        UNSAFE,
        "with keywords",
    ),
    ("OBJ of nothing", b"(o.", UNSAFE, "OBJ"),
    ("BUILD of a list", b"]}b.", UNSAFE, "BUILD"),
    ("BUILD of a dictionary", b"}}b.", UNSAFE, "BUILD"),
    ("BUILD of a global", whole(Raw(name("argparse", "Namespace").code + b"}b")), UNSAFE, "BUILD"),
    ("BUILD of a tensor", whole(Raw(tensor().code + b"}b")), UNSAFE, "BUILD"),
    ("BUILD twice", whole(Raw(ORDERED.code + encode({"a": 1}) + b"b" + encode({"a": 1}) + b"b")), UNSAFE, "BUILD"),
    ("APPEND to a tuple", b")Na.", UNSAFE, "APPEND"),
    ("APPENDS to a set", b"\x8f(Ne.", UNSAFE, "APPENDS"),
    ("APPEND to a global", whole(Raw(name("argparse", "Namespace").code + b"Na")), UNSAFE, "APPEND"),
    ("SETITEM of a list", b"]K\x00Ns.", UNSAFE, "SETITEM"),
    ("SETITEMS of a tuple", b")(K\x00Nu.", UNSAFE, "SETITEMS"),
    ("ADDITEMS to a list", b"](N\x90.", UNSAFE, "ADDITEMS"),
    ("memo overwritten by BINPUT", b"Nq\x00K\x01q\x00\x86.", UNSAFE, "memo index 0"),
    ("memo overwritten by MEMOIZE", b"Nq\x01K\x01\x94\x86.", UNSAFE, "memo index 1"),
    ("memo overwritten by PUT", b"Nq\x05p5\n.", UNSAFE, "memo index 5"),
    ("memo overwritten by LONG_BINPUT", b"N\x94r\0\0\0\0.", UNSAFE, "memo index 0"),
    ("memo index 2**31", b"Nr\0\0\0\x80.", UNSAFE, "memo index 2147483648"),
    ("memo index -1", b"Np-1\n.", UNSAFE, "memo index -1"),
    ("memo index of 50 digits", b"Np" + b"9" * 50 + b"\n.", UNSAFE, "memo index 9999"),
    ("memo index of a million digits", b"Np" + b"9" * 10**6 + b"\n.", UNSAFE, "PUT"),
    (
        "two entries of one name",
        whole(Raw(b"}(" + encode("w") + b"N" + encode("w") + b"Nu")),
        UNSAFE,
        "two entries named 'w'",
    ),
    (
        "two entries by SETITEM",
        whole(Raw(b"}" + encode("w") + b"Ns" + encode("w") + b"Ns")),
        UNSAFE,
        "two entries named 'w'",
    ),
    ("a key that is a list", b"}]Ns.", UNSAFE, "keys"),
    ("a key that is a dictionary", b"(}Nd.", UNSAFE, "keys"),
    ("a key that holds a list", b"}]\x85Ns.", UNSAFE, "keys"),
    ("a set of lists", b"\x8f(]\x90.", UNSAFE, "keys"),
    ("a frozenset of bytearrays", b"(\x96" + text8(1) + b"x\x91.", UNSAFE, "keys"),
    ("a set of a set by call", whole(called(name("builtins", "set"), [Raw(b"\x8f")])), UNSAFE, "keys"),
    ("a set of a text", whole(called(name("builtins", "set"), "abc")), UNSAFE, "builtins.set"),
    ("bytes by another codec", whole(called(name("_codecs", "encode"), "abc", "rot13")), UNSAFE, "_codecs.encode"),
    ("bytes beyond Latin-1", whole(called(name("_codecs", "encode"), "\u20ac", "latin1")), UNSAFE, "_codecs.encode"),
    ("a bytearray of 2**40", whole(called(name("builtins", "bytearray"), 2**40)), UNSAFE, "builtins.bytearray"),
    ("bytes of 2**40 by call", whole(called(name("builtins", "bytes"), 2**40)), UNSAFE, "builtins.bytes"),
    ("a complex of texts", whole(called(name("builtins", "complex"), "1", "2")), UNSAFE, "builtins.complex"),
    ("a complex too large", whole(called(name("builtins", "complex"), 10**400, 0)), UNSAFE, "builtins.complex"),
    ("an OrderedDict of a number", whole(called(name("collections", "OrderedDict"), 1)), UNSAFE, "OrderedDict"),
    (
        "an OrderedDict of triples",
        whole(called(name("collections", "OrderedDict"), [[1, 2, 3]])),
        UNSAFE,
        "OrderedDict",
    ),
    (
        "an OrderedDict of one key twice",
        whole(called(name("collections", "OrderedDict"), [[1, 2], [1, 3]])),
        UNSAFE,
        "two entries",
    ),
    ("a defaultdict of a record", whole(called(name("collections", "defaultdict"), ORDERED)), UNSAFE, "defaultdict"),
    ("a deque of a number", whole(called(name("collections", "deque"), 2**40)), UNSAFE, "deque"),
    (
        "a constructor of a text",
        whole(called(name("copyreg", "_reconstructor"), "a", "b", None)),
        UNSAFE,
        "_reconstructor",
    ),
    ("an object of a text", whole(called(name("copyreg", "__newobj__"), "a")), UNSAFE, "__newobj__"),
    # What would exhaust memory, time or the stack
    ("a global with an endless name", b"c" + b"o" * 10**6 + b"\nx\n.", UNSAFE, "GLOBAL"),
    ("STACK_GLOBAL with an endless name", whole(walked("o" * 10**6, "x"), 4), UNSAFE, "STACK_GLOBAL"),
    ("LONG of a million digits", b"L" + b"9" * 10**6 + b"L\n.", UNSAFE, "LONG"),
    ("INT of a million digits", b"I" + b"9" * 10**6 + b"\n.", UNSAFE, "INT"),
    ("FLOAT of a million digits", b"F" + b"9" * 10**6 + b"\n.", UNSAFE, "FLOAT"),
    ("LONG4 of a megabyte", b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b".", UNSAFE, "LONG4"),
    ("a million lists in one another", b"]" * 10**6 + b"a" * (10**6 - 1) + b".", UNSAFE, "nesting"),
    ("a million tuples in one another", b")" + b"\x85" * 10**6 + b".", UNSAFE, "nesting"),
    ("a million dictionaries in one another", b"}" + b"U\x00}" * 10**6 + b"s" * 10**6 + b".", UNSAFE, "nesting"),
    ("a million tuples as a key", b"})" + b"\x85" * 10**6 + b"Ns.", UNSAFE, "keys"),
    ("a frozenset in a frozenset, deep", b"(" * 400 + b"N" + b"\x91" * 400 + b".", UNSAFE, "keys"),
    ("a million marks", b"(" * 10**6 + b"N.", UNSAFE, "nesting"),
    ("opcodes of nothing", b"N0" * 3_000_000 + b"N.", UNSAFE, "opcodes"),
    ("five million sets", b"\x8f" * 5_000_000 + b".", UNSAFE, "memory"),
    ("doubled tuples as a key", b"})" + b"2\x86" * 30 + b"Ns.", UNSAFE, "memory"),
    ("doubled tuples as a member", b"\x8f()" + b"2\x86" * 60 + b"\x90.", UNSAFE, "keys"),
    (
        "a list copied a hundred thousand times",
        whole(
            Raw(
                first(Raw(b"](" + b"N" * 10_000 + b"e"), name("collections", "deque"))
                + b"]("
                + (b"h\x01h\x00\x85R" * 100_000)
                + b"e"
            )
        ),
        UNSAFE,
        "memory",
    ),
    (
        "a text copied a hundred thousand times",
        whole(
            Raw(
                first(Raw(encode("x" * 100_000)), name("_codecs", "encode"), Raw(encode("latin1")))
                + b"]("
                + (b"h\x01h\x00h\x02\x86R" * 100_000)
                + b"e"
            )
        ),
        UNSAFE,
        "memory",
    ),
    (
        "numbers that all hash alike",
        b"\x80\x02}(" + b"".join(encode(k * (2**61 - 1)) + b"N" for k in range(1, 11_000)) + b"u.",
        UNSAFE,
        "keys",
    ),
]

# Sound pickles that describe tensors which cannot be
ABSURD_TENSORS: list[tuple[str, bytes, str, str]] = [
    ("beyond its storage", whole(tensor(shape=(5,))), UNSAFE, "_rebuild_tensor_v2"),
    ("beyond its storage by the offset", whole(tensor(offset=1)), UNSAFE, "_rebuild_tensor_v2"),
    ("beyond its storage by a stride", whole(tensor(shape=(2,), strides=(4,))), UNSAFE, "_rebuild_tensor_v2"),
    ("a negative offset", whole(tensor(offset=-1)), UNSAFE, "_rebuild_tensor_v2"),
    ("a negative size", whole(tensor(shape=(-4,))), UNSAFE, "_rebuild_tensor_v2"),
    ("two negative sizes", whole(tensor(shape=(-2, -2), strides=(2, 1))), UNSAFE, "_rebuild_tensor_v2"),
    ("a negative stride", whole(tensor(offset=3, strides=(-1,))), UNSAFE, "_rebuild_tensor_v2"),
    ("a size that is true", whole(tensor(shape=(True,))), UNSAFE, "_rebuild_tensor_v2"),
    ("a size that is a text", whole(tensor(shape="4")), UNSAFE, "_rebuild_tensor_v2"),
    ("a size of texts", whole(tensor(shape=("4",))), UNSAFE, "_rebuild_tensor_v2"),
    ("more strides than sizes", whole(tensor(strides=(1, 1))), UNSAFE, "_rebuild_tensor_v2"),
    ("65 dimensions", whole(tensor(shape=(1,) * 65, strides=(1,) * 65)), UNSAFE, "_rebuild_tensor_v2"),
    ("2**128 elements", whole(tensor(shape=(2**62, 2**62, 16), strides=(0, 0, 0))), UNSAFE, "_rebuild_tensor_v2"),
    ("a size beyond 64 bits", whole(tensor(shape=(2**70,), strides=(0,))), UNSAFE, "_rebuild_tensor_v2"),
    ("2**40 times one element", whole({"w": tensor(shape=(2**40,), strides=(0,))}), UNSAFE, "(w)"),
    (
        "a thousand large views",
        whole({f"w{i}": tensor(shape=(2**24,), strides=(0,)) for i in range(1000)}),
        UNSAFE,
        "(w",
    ),
    ("grad that is a text", whole(tensor(None, 0, (4,), (1,), "yes")), UNSAFE, "_rebuild_tensor_v2"),
    ("no storage", whole(tensor("0")), UNSAFE, "_rebuild_tensor_v2"),
    ("a tensor for a storage", whole(tensor(tensor())), UNSAFE, "_rebuild_tensor_v2"),
    ("metadata that is a text", whole(tensor(None, 0, (4,), (1,), False, "conj")), UNSAFE, "_rebuild_tensor_v2"),
    ("too many arguments", whole(tensor(None, 0, (4,), (1,), False, None, 1)), UNSAFE, "_rebuild_tensor_v2"),
    ("no arguments", whole(called(name("torch._utils", "_rebuild_tensor_v2"))), UNSAFE, "_rebuild_tensor_v2"),
    (
        "a parameter of nothing",
        whole(called(name("torch._utils", "_rebuild_parameter"), 1, True, ORDERED)),
        UNSAFE,
        "_rebuild_parameter",
    ),
    ("a bare parameter of nothing", whole(called(name("torch.nn.parameter", "Parameter"), 1)), UNSAFE, "Parameter"),
    ("a storage 2**62 long", whole(tensor(storage(numel=2**62))), UNSAFE, "BINPERSID"),
    ("a storage of -4", whole(tensor(storage(numel=-4))), UNSAFE, "BINPERSID"),
    ("a storage of true", whole(tensor(storage(numel=True))), UNSAFE, "BINPERSID"),
    ("a storage of a dtype", whole(tensor(storage(name("torch", "float32")))), UNSAFE, "torch.float32"),
    (
        "a storage of a function",
        whole(tensor(storage(name("torch._utils", "_rebuild_tensor")))),
        UNSAFE,
        "_rebuild_tensor",
    ),
    ("a key that climbs", whole(tensor(storage(key="../../etc/passwd"))), UNSAFE, "storage key"),
    ("a key that is absolute", whole(tensor(storage(key="/etc/passwd"))), UNSAFE, "storage key"),
    ("a key with a backslash", whole(tensor(storage(key="..\\x"))), UNSAFE, "storage key"),
    ("a key that is empty", whole(tensor(storage(key=""))), UNSAFE, "storage key"),
    ("a key with a line end", whole(tensor(storage(key="0\n"))), UNSAFE, "storage key"),
    ("a key that is endless", whole(tensor(storage(key="0" * 10**6))), UNSAFE, "storage key"),
    ("a key that is a number", whole(tensor(storage(key=0))), UNSAFE, "BINPERSID"),
    ("a location that is endless", whole(tensor(storage(location="x" * 10**6))), UNSAFE, "location"),
    ("a location with an escape code", whole(tensor(storage(location="\x1b[2J"))), UNSAFE, "location"),
    ("a persistent id that is a text", whole(Raw(encode("storage") + b"Q")), UNSAFE, "BINPERSID"),
    ("a persistent id that is empty", whole(Raw(b")Q")), UNSAFE, "BINPERSID"),
    ("a persistent id in text", b"P('storage',)\n.", UNSAFE, "PERSID"),
    (
        "a persistent id of another kind",
        whole(Raw(encode(("file", FLOAT_STORAGE, "/etc/passwd", "cpu", 4)) + b"Q")),
        UNSAFE,
        "BINPERSID",
    ),
    ("a module that is a text", whole(Raw(encode(("module", "os", "", "")) + b"Q")), UNSAFE, "BINPERSID"),
    (
        "a view beyond its storage",
        whole(Raw(encode(("storage", FLOAT_STORAGE, "0", "cpu", 4, ("1", 2, 3))) + b"Q")),
        UNSAFE,
        "storage key",
    ),
    (
        "one storage of two dtypes",
        whole([tensor(), tensor(storage(name("torch", "IntStorage")))]),
        UNSAFE,
        "storage key '0'",
    ),
    ("one storage of two sizes", whole([tensor(), tensor(storage(numel=8))]), UNSAFE, "storage key '0'"),
    (
        "another dtype than the storage's",
        whole(
            called(
                name("torch._utils", "_rebuild_tensor_v3"),
                storage(),
                0,
                (2,),
                (1,),
                False,
                ORDERED,
                name("torch", "uint16"),
            )
        ),
        UNSAFE,
        "_rebuild_tensor_v3",
    ),
    (
        "a dtype that is none",
        whole(
            called(
                name("torch._utils", "_rebuild_tensor_v3"),
                storage(),
                0,
                (2,),
                (1,),
                False,
                ORDERED,
                name("torch", "Size"),
            )
        ),
        UNSAFE,
        "_rebuild_tensor_v3",
    ),
    (
        "rebuilt by OrderedDict",
        whole(
            called(
                name("torch._tensor", "_rebuild_from_type_v2"),
                name("collections", "OrderedDict"),
                name("torch", "Tensor"),
                (),
                {},
            )
        ),
        UNSAFE,
        "collections.OrderedDict",
    ),
    (
        "rebuilt by itself",
        whole(
            called(
                name("torch._tensor", "_rebuild_from_type_v2"),
                name("torch._tensor", "_rebuild_from_type_v2"),
                name("torch", "Tensor"),
                (),
                {},
            )
        ),
        UNSAFE,
        "_rebuild_from_type_v2",
    ),
    ("a size of too many", whole(called(name("torch", "Size"), (1,) * 65)), UNSAFE, "torch.Size"),
    ("a device of a list", whole(called(name("torch", "device"), [])), UNSAFE, "torch.device"),
    ("a name with an escape code", whole({"\x1b[2Jw": tensor()}), UNSAFE, "x1b"),
    ("a name with a line end", whole({"w\nx": tensor()}), UNSAFE, "w"),
    (
        "a name that is half a character",
        whole(Raw(b"}X\x03\0\0\0\xed\xa0\x80" + tensor().code + b"s")),
        UNSAFE,
        "ud800",
    ),
    ("a name that is endless", whole({"w" * 10**6: tensor()}), UNSAFE, "www"),
    ("doubled lists", whole(Raw(b"](" + tensor().code + b"e" + b"q\x00" + b"2\x86" * 60)), UNSAFE, "billion laughs"),
    (
        "a long list in a long list",
        whole(Raw(first(Raw(b"](" + b"]" * 5000 + b"e")) + b"](" + kept(0).code * 5000 + b"e")),
        UNSAFE,
        "billion laughs",
    ),
    ("three hundred lists in one another", b"\x80\x02" + b"]" * 300 + b"a" * 299 + b".", UNSAFE, "nesting"),
]
