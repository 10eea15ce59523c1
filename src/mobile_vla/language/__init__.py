"""Instructions: the grammar that makes them (English and Korean), the parser that understands them, the tokeniser."""

from mobile_vla.language.grammar import Grammar
from mobile_vla.language.parse import parse
from mobile_vla.language.tokeniser import (
    ALPHABET,
    MAX_LENGTH,
    PADDING,
    UNKNOWN,
    VOCABULARY_HASH,
    VOCABULARY_SIZE,
    encode,
)
from mobile_vla.language.vocabulary import LANGUAGES, SPLITS, Language, Split

__all__ = [
    "ALPHABET",
    "LANGUAGES",
    "MAX_LENGTH",
    "PADDING",
    "SPLITS",
    "UNKNOWN",
    "VOCABULARY_HASH",
    "VOCABULARY_SIZE",
    "Grammar",
    "Language",
    "Split",
    "encode",
    "parse",
]
