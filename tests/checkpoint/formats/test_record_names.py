from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from mobile_vla.checkpoint.formats.record_names import labels, same_but_a_byte, settle_names, writing_order
from mobile_vla.checkpoint.formats.torch_records import Record
from mobile_vla.checkpoint.formats.zip_parts import Descriptor, Header

ORDER = [f"m/data/{number}" for number in range(12)]


def record(name, at, size=64):
    """One that its local header alone names."""
    header = Header(at, 0, 0x808, 0, 0, 0, 0, 0, name.encode(), bytes(50 - len(name))) if name else None
    start = -(-(at + 80) // 64) * 64
    end = start + size + 16
    return Record(name, at, start, size, end, header, None, Descriptor(end - 16, end, at, size))


def in_a_row(names, size=64):
    records, at = [], 0
    for name in names:
        records.append(record(name, at, size))
        at = records[-1].end
    return records


def settled(records, sizes=None):
    return [each.name for each in settle_names(records, ORDER, sizes or {}, "m", 64)]


@given(first=st.integers(0, 6), count=st.integers(4, 6), place=st.integers(0, 5), wrong=st.sampled_from(ORDER))
def test_one_wrong_name_among_neighbours_is_not_believed(first, count, place, wrong):
    right = ORDER[first : first + count]
    assume(place < count and wrong != right[place])
    names = list(right)
    names[place] = wrong
    found = settled(in_a_row(names))
    assert found == [*right[:place], "", *right[place + 1 :]]


@given(first=st.integers(0, 6), count=st.integers(4, 6), place=st.integers(0, 5))
def test_a_damaged_name_is_made_up_for_by_neighbours(first, count, place):
    assume(place < count)
    names = ORDER[first : first + count]
    names[place] = "m/dat\x00/3"
    assert settled(in_a_row(names)) == ORDER[first : first + count]


@given(first=st.integers(0, 6), count=st.integers(3, 6), place=st.integers(0, 5))
def test_a_lost_name_is_made_up_for_by_neighbours(first, count, place):
    assume(0 < place < count)
    names = ORDER[first : first + count]
    names[place] = ""
    records = in_a_row(names)
    lost = records[place]
    records[place] = replace(lost, at=lost.start)
    assert settled(records) == ORDER[first : first + count]


def test_a_record_of_another_size_than_the_pickle_says_has_no_name():
    sizes = dict.fromkeys(ORDER, 64) | {"m/data/1": 60}
    assert settled(in_a_row(ORDER[:4]), sizes) == ["m/data/0", "", "m/data/2", "m/data/3"]


def test_two_that_differ_and_claim_one_name_have_none():
    first, second = record("m/data/3", 0), record("m/data/3", 5000)
    assert settled([first, second]) == ["", ""]
    same = replace(second, descriptor=replace(second.descriptor, crc=first.descriptor.crc))
    assert settled([first, same]) == ["m/data/3", ""]


def test_without_an_order_names_stay():
    records = in_a_row(["m/data/70", "m/data/5"])
    assert [each.name for each in settle_names(records, [], {}, "m", 64)] == ["m/data/70", "m/data/5"]


def test_the_order_of_writing_is_that_of_the_pickle_or_of_text():
    keys = [str(number) for number in range(11)]
    as_met = [f"m/data/{key}" for key in keys]
    assert writing_order(keys, "m", in_a_row(as_met)) == as_met
    assert writing_order(keys, "m", in_a_row(sorted(as_met))) == sorted(as_met)
    assert writing_order([], "m", in_a_row(as_met[3:])) == as_met
    assert writing_order([], "m", in_a_row(["m/data/94134723552272"])) == []


@given(first=st.binary(max_size=8), second=st.binary(max_size=8))
def test_names_are_the_same_but_for_a_byte(first, second):
    near = len(first) == len(second) and sum(a != b for a, b in zip(first, second, strict=True)) < 2
    assert same_but_a_byte(first, second) == near


def test_labels_tell_tensors_from_what_stands_beside_them():
    names = ["m/data.pkl", "", "m/byteorder", "", "m/data/1", "", "m/data/3", "", "m/version"]
    found = labels([record(name, 1000 * at) for at, name in enumerate(names)], "m")
    assert [label for name, label in zip(names, found, strict=True) if not name] == [
        "m/?",
        "m/data/?",
        "m/data/?",
        "m/data/?",
    ]
