import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.checkpoint.formats.texts import judge, printable, text_of


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"]), min_size=1), st.integers(0, 3))
def test_text_is_text_wherever_its_start_and_end_are_cut(text, cut):
    data = (text * 20).encode()
    seen = text_of(data[cut : len(data) - cut])
    assert seen is not None
    assert text in seen or len(data) - 2 * cut < 4 * len(text.encode())


@given(st.binary(), st.sampled_from([b"\0", b"\x01", b"\x0e", b"\x7f"]), st.binary())
def test_control_characters_are_no_text(before, control, after):
    data = before + control + after
    assert data.startswith((b"\xff\xfe", b"\xfe\xff")) or text_of(data) is None


def test_pages_in_old_encodings_are_text():
    assert text_of("<html><title>Überprüfung</title><p>Die Datei</p>".encode("latin-1")) is not None
    assert text_of(bytes(range(128, 256)) * 2) is None


@given(st.text())
def test_what_is_shown_is_one_short_line(text):
    assert printable(text).isprintable()
    assert len(printable(text)) <= 100
    assert printable(printable(text)) == printable(text)


@given(st.sampled_from(["", "{", "<html>", "<?xml", "version https://git-lfs.github.com/spec/v1\n"]), st.text())
def test_any_text_is_judged(start, text):
    format, what, advice = judge(start + text, 10)
    assert what.isprintable()
    assert advice or format is not None


@pytest.mark.parametrize("size", ["", "size", "size 12x", "size -5", "size " + "9" * 30])
def test_a_pointer_that_lost_its_size_is_a_pointer_still(size):
    _, what, _ = judge(f"version https://git-lfs.github.com/spec/v1\noid sha256:00\n{size}\n", 90)
    assert what == "a Git LFS pointer that stands for a file whose size it has lost"


def test_a_long_json_file_is_no_answer_of_a_server():
    assert "error answer" in judge('{"error": "no"}', 15)[1]
    assert "JSON file" in judge('{"error": "no"}', 1 << 20)[1]
