"""Instructions as numbers: by a pretrained tokenizer, or by one made from the grammar for networks without one."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mobile_vla.core import Colour, Goal, InstructionError, Kind, Mode, Side, Target
from mobile_vla.language import LANGUAGES, Grammar
from mobile_vla.policy.encoders.tower import Words

BEGIN, PAD, UNKNOWN, END = 0, 1, 2, 3
MARKS = ("<s>", "<pad>", "<unk>", "</s>", "<image>", "</image>")
"""First pieces of a tokenizer made here, by number."""
_PIECES = 600
_PHRASES = 20
_SEED = 5


def numbered(tokenizer: Tokenizer, texts: Sequence[str], most: int, marks: bool = False) -> Words:
    """Numbers (N, L) int64, zero after the end of each, and lengths (N,) int64.

    ``marks``: with what the tokenizer puts at the ends. InstructionError where a text has no words, or more than
    ``most`` pieces.
    """
    pieces = [tokenizer.encode(text, add_special_tokens=marks).ids for text in texts]
    for text, ids in zip(texts, pieces, strict=True):
        if not text.strip() or not ids:
            raise InstructionError('the instruction is empty: say where to go, e.g. "stop at the red cup"')
        if len(ids) > most:
            raise InstructionError(
                f"the instruction is {len(ids)} word pieces long, more than the {most} that the model reads: shorten it"
            )
    lengths = [len(ids) for ids in pieces]
    numbers = torch.zeros(len(texts), max(lengths), dtype=torch.int64)
    for row, ids in enumerate(pieces):
        numbers[row, : len(ids)] = torch.tensor(ids)
    return numbers, torch.tensor(lengths)


@cache
def made_from_grammar() -> str:
    """A tokenizers JSON: byte-pair pieces of the training phrasings in both languages, Hangul as jamo.

    The same each time. Never more than a letter falls to a typo: what no piece covers is spelt.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=MARKS[UNKNOWN]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.NFD()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=_PIECES, special_tokens=list(MARKS), show_progress=False)
    tokenizer.train_from_iterator(_phrases(Grammar.load()), trainer)
    return tokenizer.to_str()


def _phrases(grammar: Grammar) -> Iterator[str]:
    rng = np.random.default_rng(_SEED)
    targets = [Target(kind, colour) for kind, colour in product(Kind, (*Colour, None))]
    goals = [Goal(Mode.GO, target, side) for target in targets for side in (None, *Side)]
    goals += [Goal(mode) for mode in Mode if mode is not Mode.GO] * 10
    for goal, language, _ in product(goals, LANGUAGES, range(_PHRASES)):
        yield grammar.phrase(goal, rng, language, "train")
    yield "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-"
