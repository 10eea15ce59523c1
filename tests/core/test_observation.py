import numpy as np
import pytest

from mobile_vla.core import MAX_INSTRUCTION_CHARS, Frame, Instruction, InstructionError


@pytest.mark.parametrize("text", ["", " ", "\n\t", "　"])
def test_an_empty_instruction_is_refused_with_an_example(text):
    with pytest.raises(InstructionError, match="empty: say where to go"):
        Instruction(text)


def test_the_longest_instruction_is_taken_and_a_longer_one_refused():
    assert Instruction("가" * MAX_INSTRUCTION_CHARS).text
    with pytest.raises(InstructionError, match=f"has {MAX_INSTRUCTION_CHARS + 1} characters"):
        Instruction("가" * (MAX_INSTRUCTION_CHARS + 1))


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)],
    ids=["grey", "with alpha", "float"],
)
def test_only_rgb_bytes_are_a_frame(pixels):
    with pytest.raises(ValueError, match="RGB uint8"):
        Frame(pixels, 0, "monotonic", "front", 0)


def test_a_frame_keeps_where_and_when_it_was_taken():
    frame = Frame(np.zeros((2, 4, 3), np.uint8), 17, "monotonic", "front", 3)
    assert (frame.capture_ns, frame.clock, frame.camera, frame.sequence) == (17, "monotonic", "front", 3)
