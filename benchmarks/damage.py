"""Damaged checkpoints: is every damage found, is all that survives recovered, is nothing wrong called right?

Makes a few thousand damaged files from whole ones of every kind, verifies and salvages each, and compares what was said
and written with what is known: of the whole one (damage_pristine), of the damage (damage_corpus, damage_known) and of
what it leaves (damage_survivors). Exit code 1 when any mark is missed.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from damage_corpus import Case, corpus
from damage_pristine import Pristine, Truth
from damage_survivors import Due, checksum_survives, due, only_an_end_is_lost
from machine import describe
from mobile_vla.checkpoint.layout import DTYPE_BYTES, Tensor
from mobile_vla.checkpoint.salvage import Rescue, salvage
from mobile_vla.checkpoint.survey import survey
from mobile_vla.checkpoint.template import Template, template_of
from mobile_vla.checkpoint.verify import State, Verdict, verify
from mobile_vla.core import MobileVLAError

Verify = Callable[[Path], Verdict]
Salvage = Callable[[Path, Path, Template | None], Rescue]


@dataclass
class Score:
    """Of one case or the sum of many; all but ``seconds`` are counts.

    ``found``: verify says damaged or missing, or refuses the file. ``said``: nothing stored could tell, and it says so.
    ``surviving``: tensors of which something is due without a template, ``templated`` those that need one.
    ``proven``, ``unproven``, ``unnamed`` and ``by_template`` of them are recovered, ``lost`` are not.
    ``wrong_unproven``: tensors with wrong bytes or names that were written as unproven, where no checksum survives.
    ``wrongly_right``: anything wrong that was called whole.
    """

    files: int = 0
    found: int = 0
    said: int = 0
    missed: int = 0
    tensors: int = 0
    surviving: int = 0
    proven: int = 0
    unproven: int = 0
    unnamed: int = 0
    templated: int = 0
    by_template: int = 0
    lost: int = 0
    wrong_unproven: int = 0
    wrongly_right: int = 0
    touched: int = 0
    crashes: int = 0
    seconds: float = 0.0

    def add(self, other: "Score") -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def passed(self) -> bool:
        return not (self.missed or self.lost or self.wrongly_right or self.touched or self.crashes)


@dataclass
class Result:
    """The score of one case, and in sentences what was not as it should be."""

    case: Case
    score: Score = field(default_factory=Score)
    failures: list[str] = field(default_factory=list)

    def fail(self, mark: str, sentence: str, times: int = 1) -> None:
        setattr(self.score, mark, getattr(self.score, mark) + times)
        self.failures.append(f"{mark}: {sentence}")


def _salvage(path: Path, out: Path, template: Template | None) -> Rescue:
    return salvage(path, out, template=template)


def score_case(
    case: Case, template: Template, folder: Path, verify: Verify = verify, salvage: Salvage = _salvage
) -> Result:
    """Write the case into the empty ``folder``, verify it, salvage it with and without ``template``, and judge that."""
    began = time.perf_counter()
    result = Result(case, Score(files=1, tensors=len(case.pristine.tensors)))
    source = folder / "source"
    write_case(case, source)
    path = source if case.target == "." else source / case.target
    before = _snapshot(source)
    _judge_verify(result, path, verify)
    _judge_salvage(result, path, folder / "rescue", None, salvage)
    _judge_salvage(result, path, folder / "named", template, salvage)
    if _snapshot(source) != before:
        result.fail("touched", "verify or salvage changed the damaged checkpoint")
    result.score.seconds = time.perf_counter() - began
    return result


def write_case(case: Case, folder: Path) -> None:
    """The damaged checkpoint's files, in the new ``folder``."""
    folder.mkdir(parents=True)
    for file in case.files:
        (folder / file).write_bytes(case.content(file))


def template_for(pristine: Pristine, folder: Path) -> Template:
    """Of a whole checkpoint of the same architecture with other values, written into the new ``folder``."""
    folder.mkdir(parents=True)
    for file, data in pristine.sibling.items():
        (folder / file).write_bytes(data)
    return template_of(survey(folder if pristine.target == "." else folder / pristine.target))


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


# verify ---------------------------------------------------------------------------------------------------------------


def _judge_verify(result: Result, path: Path, verify: Verify) -> None:
    case, score = result.case, result.score
    try:
        verdict = verify(path)
    except MobileVLAError:
        score.found += 1
        return
    except Exception as error:  # whatever it is: the mark is that there is none
        result.fail("crashes", f"verify raised {error!r}")
        return
    foreign = _foreign_files(case)
    if verdict.state in (State.DAMAGED, State.MISSING):
        score.found += 1
    elif case.knowable:
        result.fail("missed", f"verify calls it {verdict.state}")
    elif verdict.state is State.WHOLE and not foreign:
        result.fail("missed", "verify calls it whole, although no checksum is stored")
    elif not verdict.unknowable:
        result.fail("missed", f"verify calls it {verdict.state} and does not say what it cannot know")
    else:
        score.said += 1
    truths = {truth.name: truth for truth in case.pristine.tensors}
    wrongs: dict[str, list[str]] = {}
    for finding in verdict.findings:
        tensor = finding.tensor
        if finding.state is not State.WHOLE or (tensor.run is not None and tensor.run.file.name in foreign):
            continue
        wrong = _differs(truths.get(tensor.name), tensor.dtype, tensor.shape, read(tensor))
        if wrong:
            wrongs.setdefault(f"verify calls whole what is not ({wrong})", []).append(tensor.name)
    _fail_all(result, "wrongly_right", wrongs)


def _foreign_files(case: Case) -> set[str]:
    """Sound files of another checkpoint that nothing stored can tell from the right ones."""
    if case.knowable or case.damage != "another checkpoint's shard":
        return set()
    return {file for file in case.files if case.content(file) == case.pristine.sibling[file]}


def read(tensor: Tensor) -> bytes:
    """The bytes of a tensor as its layout says, in the order of its elements."""
    if tensor.run is None:
        return b""
    width = DTYPE_BYTES[tensor.dtype]
    with tensor.run.file.open("rb") as file:
        file.seek(tensor.run.offset)
        data = file.read(tensor.run.size)[tensor.start :]
    if tensor.strides is None:
        return data[: tensor.size]
    elements = np.frombuffer(data[: len(data) // width * width], f"V{width}")
    strides = [stride * width for stride in tensor.strides]
    return b"" if 0 in tensor.shape else as_strided(elements, tensor.shape, strides).tobytes()


def _differs(truth: Truth | None, dtype: str, shape: tuple[int, ...], data: bytes) -> str:
    if truth is None:
        return "there was no tensor of this name"
    if (dtype, tuple(shape)) != (truth.dtype, truth.shape):
        return f"it was {truth.dtype} {truth.shape}, and is {dtype} {tuple(shape)}"
    return "" if data == truth.data else "its bytes are others"


# salvage --------------------------------------------------------------------------------------------------------------


def _judge_salvage(result: Result, path: Path, out: Path, template: Template | None, salvage: Salvage) -> None:
    case, score = result.case, result.score
    templated = template is not None
    named: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    states: dict[str, State] = {}
    blobs: set[bytes] = set()
    refusal = "not in what was written"
    try:
        rescue = salvage(path, out, template)
    except MobileVLAError as error:
        refusal = f"refused: {error}"
    except Exception as error:  # whatever it is: the mark is that there is none
        result.fail("crashes", f"salvage raised {error!r}")
        return
    else:
        states = {finding.tensor.name: finding.state for finding in (*rescue.recovered, *rescue.doubtful)}
        for file in ("doubtful.safetensors", "weights.safetensors"):
            named |= _read_safetensors(out / file)
        for file in ("training.safetensors", "training-partial.safetensors"):
            named |= {f"training.{name}": each for name, each in _read_safetensors(out / file).items()}
        blobs = {data for _, _, data in _read_safetensors(out / "unnamed.safetensors").values()}
    _judge_recovered(result, named, states, templated)
    if blobs - {
        case.pristine.files[file][region.start : region.end]
        for file, regions in case.pristine.regions.items()
        for region in regions
        if region.part == "data"
    }:
        result.fail("wrongly_right", "unnamed.safetensors holds as proven what never was one record")
    lost: dict[str, list[str]] = {}
    how = " with a template" if templated else ""
    for truth in case.pristine.tensors:
        asked = due(case, truth, templated)
        before = due(case, truth, False)
        if asked is Due.NOTHING or (templated and asked == before):
            continue
        score.surviving += not templated
        score.templated += templated
        right = truth.name in named and not _differs(truth, *named[truth.name])
        state = states.get(truth.name)
        record = case.pristine.files[truth.file][truth.start : truth.end]
        if right and (state is State.WHOLE or asked is not Due.PROVEN):
            score.by_template += templated
            score.proven += not templated and state is State.WHOLE
            score.unproven += not templated and state is not State.WHOLE
        elif asked is Due.BYTES and record in blobs:
            score.unnamed += 1
        else:
            what = f"right but only {state}" if right else refusal
            lost.setdefault(f"due{how} as {asked.name.lower()}, and {what}", []).append(truth.name)
    _fail_all(result, "lost", lost)


def _fail_all(result: Result, mark: str, names_by_reason: Mapping[str, list[str]]) -> None:
    for reason, names in names_by_reason.items():
        result.fail(mark, f"{reason}: {', '.join(names)}", len(names))


def _judge_recovered(
    result: Result,
    named: Mapping[str, tuple[str, tuple[int, ...], bytes]],
    states: Mapping[str, State],
    templated: bool,
) -> None:
    case = result.case
    truths = {truth.name: truth for truth in case.pristine.tensors}
    foreign = {truth.name for truth in case.pristine.tensors if truth.file in _foreign_files(case)}
    wrongs: dict[str, list[str]] = {}
    how = " with a template" if templated else ""
    for name, (dtype, shape, data) in named.items():
        truth = truths.get(name)
        wrong = _differs(truth, dtype, shape, data)
        if not wrong or name in foreign:
            continue
        if states.get(name) is State.WHOLE:
            wrongs.setdefault(f"salvage{how} writes as proven what is not ({wrong})", []).append(name)
        elif truth is not None and states.get(name) is State.UNPROVEN and checksum_survives(case, truth):
            told = f"salvage{how} writes as unproven what a checksum at hand disproves ({wrong})"
            wrongs.setdefault(told, []).append(name)
        elif truth is not None and states.get(name) is State.UNPROVEN and only_an_end_is_lost(case, truth):
            wrongs.setdefault(f"salvage{how} writes as unproven what it misplaced ({wrong})", []).append(name)
        elif states.get(name) is State.UNPROVEN:
            result.score.wrong_unproven += not templated
    _fail_all(result, "wrongly_right", wrongs)


def _read_safetensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    if not path.exists():
        return {}
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = (entry["dtype"], tuple(entry["shape"]), data[start + begin : start + end])
    return tensors


# all of it ------------------------------------------------------------------------------------------------------------


def score_corpus(seed: int = 0, workers: int = 2, only: str = "") -> Iterator[Result]:
    """Every case with ``only`` in its name, in ``workers`` processes."""
    chosen = (case for case in corpus(seed) if only in case.name)
    parts = []
    for _, group in groupby(chosen, key=lambda case: case.pristine.name):
        cases = list(group)
        parts += [cases[first : first + _AT_ONCE] for first in range(0, len(cases), _AT_ONCE)]
    with ProcessPoolExecutor(workers) as pool:
        for results in pool.map(score_cases, parts):
            yield from results


def score_cases(cases: Iterable[Case], verify: Verify = verify, salvage: Salvage = _salvage) -> list[Result]:
    """Cases of one pristine checkpoint, in a temporary folder."""
    results = []
    # each file that salvage writes waits for the disk, one in memory for nothing
    in_memory = _MEMORY_DISK if os.access(_MEMORY_DISK, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=in_memory) as temporary:
        template = None
        for case in cases:
            folder = Path(temporary)
            template = template or template_for(case.pristine, folder / "sibling")
            results.append(score_case(case, template, folder / "case", verify, salvage))
            shutil.rmtree(folder / "case")
    return results


_MEMORY_DISK = "/dev/shm"
_AT_ONCE = 50
"""Cases that one process takes at a time."""
_COLUMNS = {
    "files": "files",
    "found": "found",
    "said": "unknowable, said so",
    "missed": "missed",
    "tensors": "tensors",
    "surviving": "surviving",
    "proven": "proven",
    "unproven": "unproven",
    "unnamed": "unnamed",
    "templated": "need template",
    "by_template": "named by it",
    "lost": "lost",
    "wrong_unproven": "wrong, as unproven",
    "wrongly_right": "wrongly right",
    "seconds": "seconds",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the corpus (default 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this in their names")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print the first N failures in detail")
    parser.add_argument("--make", metavar="NAME", help="only write the damaged checkpoint of this name to --out")
    parser.add_argument("--out", type=Path, help="new folder for --make")
    options = parser.parse_args()
    if options.make:
        case = next((case for case in corpus(options.seed) if case.name == options.make), None)
        if case is None or options.out is None:
            parser.error("--make needs the name of a case, as --show prints it, and a new folder as --out")
        write_case(case, options.out)
        return
    if not options.json:
        describe()
    began = time.perf_counter()
    results = list(score_corpus(options.seed, options.workers, options.only))
    total = Score()
    tables: dict[str, dict[str, Score]] = {"checkpoint": {}, "damage": {}}
    for result in results:
        total.add(result.score)
        tables["checkpoint"].setdefault(result.case.pristine.name, Score()).add(result.score)
        tables["damage"].setdefault(result.case.damage, Score()).add(result.score)
    total.seconds = time.perf_counter() - began
    if options.json:
        rows = {f"by_{by}": {name: asdict(score) for name, score in table.items()} for by, table in tables.items()}
        print(json.dumps({"seed": options.seed, "passed": total.passed, "total": asdict(total), **rows}, indent=1))
    else:
        for by, table in tables.items():
            _print_table(by, {**table, "all": total})
        print(f"crashes {total.crashes}, damaged files changed {total.touched}")
    _print_failures(results, options.show, options.seed)
    sys.exit(not total.passed)


def _print_table(by: str, rows: Mapping[str, Score]) -> None:
    widths = [max(len(word) for word in title.split()) for title in _COLUMNS.values()]
    widths = [max(width, 7) for width in widths]
    titles = [title.split(" ", 1) if " " in title else ["", title] for title in _COLUMNS.values()]
    for line in (0, 1):
        print(f"{'by ' + by if line else '':28}", *(f"{t[line]:>{w}}" for t, w in zip(titles, widths, strict=True)))
    for name, score in rows.items():
        cells = [getattr(score, column) for column in _COLUMNS]
        text = [f"{cell:.1f}" if isinstance(cell, float) else f"{cell:,}" for cell in cells]
        print(f"{name:28}", *(f"{cell:>{width}}" for cell, width in zip(text, widths, strict=True)))
    print()


def _print_failures(results: Iterable[Result], most: int, seed: int) -> None:
    failed = [result for result in results if result.failures]
    met: Counter[tuple[str, str]] = Counter()
    order = {}
    for result in failed:
        kinds = (result.case.pristine.name, result.case.damage)
        order[result.case.name] = met[kinds]
        met[kinds] += 1
    # one of each kind before the second of any
    for result in sorted(failed, key=lambda result: order[result.case.name])[:most]:
        print(f"\n{result.case.name}", file=sys.stderr)
        for sentence in result.failures:
            print(f"  {sentence}", file=sys.stderr)
        print(f"  --seed {seed} --make {result.case.name!r} --out FOLDER writes it", file=sys.stderr)
    if failed:
        kinds = Counter(sentence.split(":")[0] for result in failed for sentence in result.failures)
        marks = ", ".join(f"{mark} {count}" for mark, count in kinds.items())
        print(f"\n{len(failed)} cases fail: {marks}; --show N prints the first N of them", file=sys.stderr)


if __name__ == "__main__":
    main()
