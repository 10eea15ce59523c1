"""Hangul syllables as arithmetic (Unicode 3.12): 19 leading consonants x 21 vowels x 28 trailing ones (0 is none)."""

_FIRST = 0xAC00
_LAST = 0xD7A3
_RIEUL = 8  # the trailing consonant that takes 로 rather than 으로


def is_syllable(character: str) -> bool:
    """The character is one composed Hangul syllable."""
    return _FIRST <= ord(character) <= _LAST


def split_syllable(syllable: str) -> tuple[int, int, int]:
    """Indices of leading consonant, vowel and trailing consonant."""
    leading, rest = divmod(ord(syllable) - _FIRST, 21 * 28)
    return leading, *divmod(rest, 28)


def join_syllable(leading: int, vowel: int, trailing: int) -> str:
    """The syllable of these indices."""
    return chr(_FIRST + (leading * 21 + vowel) * 28 + trailing)


def particle(before: str, after_consonant: str, after_vowel: str) -> str:
    """Choose the form of a particle by the sound ``before`` ends with; 으로/로 also minds a final ㄹ."""
    last = before[-1:]
    trailing = split_syllable(last)[2] if last and is_syllable(last) else 0
    if trailing == 0 or (trailing == _RIEUL and after_consonant == "으로"):
        return after_vowel
    return after_consonant
