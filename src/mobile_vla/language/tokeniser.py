"""Text to character numbers, the form in which a policy reads an instruction.

The text is brought to NFKC, lower case and then NFD, so that a Hangul syllable falls into its conjoining jamo and the
alphabet stays near a hundred symbols for both languages. Runs of white space count as one space.
"""

import hashlib
import unicodedata
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core.errors import InstructionError

PADDING: Final = 0
UNKNOWN: Final = 1
MAX_LENGTH: Final = 128
"""Symbols of an encoded instruction; tests check that every phrase of the grammar fits with a margin."""

_JAMO = (
    "".join(map(chr, range(0x1100, 0x1113)))  # 19 leading consonants
    + "".join(map(chr, range(0x1161, 0x1176)))  # 21 vowels
    + "".join(map(chr, range(0x11A8, 0x11C3)))  # 27 trailing consonants
)
ALPHABET: Final = " abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-" + _JAMO
"""The symbol with number i stands at ALPHABET[i - 2]. Any change makes older checkpoints unusable."""

VOCABULARY_SIZE: Final = 2 + len(ALPHABET)
VOCABULARY_HASH: Final = hashlib.sha256(ALPHABET.encode()).hexdigest()[:16]
"""Kept in a checkpoint, so that a network never reads numbers of another alphabet."""

_NUMBER = {symbol: number for number, symbol in enumerate(ALPHABET, start=2)}
_PLAIN = str.maketrans({"’": "'", "‘": "'", "`": "'", "–": "-", "—": "-"})


def symbols(text: str) -> str:
    """The text as the network sees it: plain apostrophes, lower case, jamo, single spaces."""
    plain = unicodedata.normalize("NFKC", text.translate(_PLAIN)).lower()
    return unicodedata.normalize("NFD", " ".join(plain.split()))


def encode(text: str, length: int = MAX_LENGTH) -> NDArray[np.int64]:
    """Number the characters of an instruction: int64 (length,), padded with 0; what is not in the alphabet becomes 1.

    Raises InstructionError where the text has no characters or more than ``length`` of them (a Hangul syllable counts
    as two or three).
    """
    known = symbols(text)
    if not known:
        raise InstructionError('the instruction is empty: say where to go, e.g. "stop at the red cup"')
    if len(known) > length:
        raise InstructionError(
            f"the instruction is {len(known)} symbols long (a Hangul syllable counts as two or three), more than the "
            f"{length} that the model reads: shorten it"
        )
    encoded = np.full(length, PADDING, dtype=np.int64)
    encoded[: len(known)] = [_NUMBER.get(symbol, UNKNOWN) for symbol in known]
    return encoded
