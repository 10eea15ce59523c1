"""Slips of the fingers, as people make them: used to train and to test, never to change what a phrase means."""

from collections.abc import Collection

import numpy as np

from mobile_vla.language.hangul import is_syllable, join_syllable, split_syllable

_TRIES = 8
_SHORTEST = 3  # letters; a slip in a shorter English word leaves nothing to recognise it by

KEYBOARD_NEIGHBOURS = {
    "q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij", "i": "uok", "o": "ipl",
    "p": "ol", "a": "qsz", "s": "awdx", "d": "sefc", "f": "drgv", "g": "fthb", "h": "gyjn", "j": "hukm", "k": "jil",
    "l": "kop", "z": "axs", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip

# Shift forgotten or held: ㄱㄲ ㄷㄸ ㅂㅃ ㅅㅆ ㅈㅉ, as indices of leading consonants.
_SHIFTED = {0: 1, 1: 0, 3: 4, 4: 3, 7: 8, 8: 7, 9: 10, 10: 9, 12: 13, 13: 12}
# Vowels that lie side by side on the two-set keyboard or sound alike: ㅏㅓ ㅐㅔ ㅗㅓ ㅡㅜ ㅚㅙ ㅕㅑ.
_VOWEL_SLIPS = {0: 4, 4: 0, 1: 5, 5: 1, 8: 4, 18: 13, 13: 18, 11: 10, 10: 11, 6: 2, 2: 6}
# Trailing consonants: ㄴㅁ ㄴㅇ and none.
_TRAILING_SLIPS = {4: 16, 16: 4, 21: 4, 8: 0, 1: 0, 17: 0}


def slip_letters(word: str, known: Collection[str], rng: np.random.Generator) -> str:
    """One letter of an English word dropped, doubled, swapped with the next or replaced by a neighbour on the keyboard.

    The result is never another ``known`` word; a word too short for a recognisable slip comes back unchanged.
    """
    letters = [at for at, letter in enumerate(word) if letter.lower() in KEYBOARD_NEIGHBOURS]
    if len(letters) < _SHORTEST:
        return word
    for _ in range(_TRIES):
        at = letters[int(rng.random() * len(letters))]
        match int(rng.random() * 4):
            case 0:
                slipped = word[:at] + word[at + 1 :]
            case 1:
                slipped = word[: at + 1] + word[at:]
            case 2 if at + 1 in letters:
                slipped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            case _:
                near = KEYBOARD_NEIGHBOURS[word[at].lower()]
                slipped = word[:at] + near[int(rng.random() * len(near))] + word[at + 1 :]
        if slipped != word and slipped.lower().strip(".,;:!?") not in known:
            return slipped
    return word


def slip_jamo(word: str, known: Collection[str], rng: np.random.Generator) -> str:
    """One jamo of a Korean word changed to a neighbour or dropped; never another ``known`` word."""
    places = [at for at, character in enumerate(word) if is_syllable(character)]
    if len(places) < 2:  # one syllable with a slip in it is another word
        return word
    for _ in range(_TRIES):
        at = places[int(rng.random() * len(places))]
        leading, vowel, trailing = split_syllable(word[at])
        match int(rng.random() * 3):
            case 0:
                leading = _SHIFTED.get(leading, leading)
            case 1:
                vowel = _VOWEL_SLIPS.get(vowel, vowel)
            case _:
                trailing = _TRAILING_SLIPS.get(trailing, trailing)
        slipped = word[:at] + join_syllable(leading, vowel, trailing) + word[at + 1 :]
        if slipped != word and slipped.strip(".,;:!?") not in known:
            return slipped
    return word
