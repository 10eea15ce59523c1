"""What ``mobile-vla checkpoint`` prints: for people, and as plain values for ``--json``."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mobile_vla.checkpoint.atomic import readable
from mobile_vla.checkpoint.convert import Converted
from mobile_vla.checkpoint.find import Found
from mobile_vla.checkpoint.layout import DTYPE_BYTES
from mobile_vla.checkpoint.pull import Pulled
from mobile_vla.checkpoint.salvage import DOUBTFUL, REPORT, UNNAMED, Rescue, report
from mobile_vla.checkpoint.verify import Finding, State, Verdict

_SHOWN = 20
_TOLD = ("policy", "epoch", "step", "global_step", "saved_at", "weights_sha256")
_BAD = (State.DAMAGED, State.MISSING, State.DOUBTFUL)


def print_verdict(verdict: Verdict) -> None:
    """The judgement first, then what is wrong, tensor by tensor, then what cannot be known."""
    rate = f", {verdict.bytes_read / verdict.seconds / 1e9:.2f} GB/s" if verdict.bytes_read > 1e8 else ""
    print(f"{verdict.path}: {verdict.state} ({verdict.format})")
    print(f"{_counts(verdict.findings)}; {readable(verdict.bytes_read)} checked{rate}")
    if known := [f"{key} {verdict.metadata[key]}" for key in _TOLD if verdict.metadata.get(key) is not None]:
        print(f"  {', '.join(known)}")
    for problem in verdict.problems:
        print(f"  wrong: {problem.what}{' (costs no tensor)' if problem.harmless else ''}")
    _print_some([finding for finding in verdict.findings if finding.state in _BAD])
    for sentence in verdict.unknowable:
        print(f"  cannot be known: {sentence}")
    if verdict.state in (State.DAMAGED, State.DOUBTFUL) and verdict.findings:
        print(f"take what is left: mobile-vla checkpoint salvage {verdict.path} --out DIR")


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """For JSON."""
    return {
        "path": str(verdict.path),
        "format": verdict.format,
        "state": verdict.state,
        "problems": [
            {"what": each.what, "tensors": list(each.tensors), "harmless": each.harmless} for each in verdict.problems
        ],
        "unknowable": list(verdict.unknowable),
        "tensors": [finding_values(finding) for finding in verdict.findings],
        "bytes_read": verdict.bytes_read,
        "seconds": verdict.seconds,
        "metadata": dict(verdict.metadata),
    }


def finding_values(finding: Finding) -> dict[str, Any]:
    """For JSON."""
    tensor = finding.tensor
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "state": finding.state,
        "proof": finding.proof,
    }


def print_rescue(rescue: Rescue) -> None:
    """What was recovered, what was not, and what to do with it."""
    proven = [finding for finding in rescue.recovered if finding.state is State.WHOLE]
    size = sum(finding.tensor.size for finding in rescue.recovered)
    total = len(rescue.verdict.findings)
    print(f"recovered {len(rescue.recovered)} of {total} tensors, {readable(size)}: {len(proven)} proven by a checksum")
    if len(proven) < len(rescue.recovered):
        print(f"  {len(rescue.recovered) - len(proven)} unproven: this format stores no checksums for them")
    if rescue.doubtful:
        print(
            f"  {len(rescue.doubtful)} doubtful ones, with zeros as a lost block leaves them, are apart in {DOUBTFUL}"
        )
    if rescue.unnamed:
        print(f"  {len(rescue.unnamed)} whole ones without a name are in {UNNAMED}; --template OTHER may name them")
    if rescue.lost:
        print(f"  {len(rescue.lost)} lost:")
        _print_some(rescue.lost, most=5)
    for note in rescue.notes:
        print(f"  {note}")
    print(f"{rescue.out}: weights, and {REPORT} with the proof of each tensor")
    if rescue.missing:
        print("it is marked as incomplete: no drive takes it unless the missing tensors are named and allowed")
    print(f"train on from it: mobile-vla train RUN_DIR --init-from {rescue.out}")


def rescue_values(rescue: Rescue) -> dict[str, Any]:
    """For JSON: the report, and where it lies."""
    return {"out": str(rescue.out), **report(rescue)}


def print_converted(done: Converted) -> None:
    """What was written, and how much smaller it became."""
    share = 100.0 * (1.0 - done.bytes / max(1, done.source_bytes))
    change = f"{share:.1f} % smaller" if share > 0 else f"{-share:.1f} % larger"
    print(f"{done.path}: {done.tensors} tensors{f' of {done.key}' if done.key else ''}, {readable(done.bytes)}")
    print(f"the source has {readable(done.source_bytes)}: {change}")
    for name, size in sorted(done.dropped.items(), key=lambda item: -item[1])[:_SHOWN]:
        print(f"  left out: {name}, {readable(size)}")
    if not done.proven:
        print(
            "the source stores no checksums: whether its bytes are what was saved cannot be known; from here on it can"
        )


def print_imported(imported: object, out: Path) -> None:
    """What was taken over and what was not, and what to do with it."""
    print(imported)
    print(f"{out}: a policy of kind kosmos_lstm")
    print(f"train on from it: mobile-vla train RUN_DIR --init-from {out}")


def print_pulled(pulled: Pulled) -> None:
    """What was copied, how much of it now, and what the copy is worth."""
    again = ", going on where it was cut off" if pulled.resumed else ""
    sizes = f"{readable(pulled.bytes_total)}, {readable(pulled.bytes_sent)} sent{again}"
    print(f"{pulled.target}: {sizes}; equal to its source")
    if pulled.damage:
        print(pulled.damage)
    print_verdict(pulled.verdict)


def pulled_values(pulled: Pulled) -> dict[str, Any]:
    """For JSON."""
    return {
        "target": str(pulled.target),
        "bytes_total": pulled.bytes_total,
        "bytes_sent": pulled.bytes_sent,
        "resumed": pulled.resumed,
        "damage": pulled.damage,
        "verdict": verdict_values(pulled.verdict),
    }


@contextmanager
def shown_progress(name: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A line on stderr, where that is a terminal: how many bytes are done of how many, how fast, how long still."""
    console = Console(stderr=True)
    columns = (TextColumn(name), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_found(found: Sequence[Found]) -> None:
    """One line for each checkpoint, and below it what is wrong with it."""
    columns = [
        [
            str(each.path),
            f"{each.state}, incomplete" if each.salvaged else str(each.state),
            readable(each.size_bytes),
            f"{each.saved_at:%Y-%m-%d %H:%M}",
            str(each.format),
            each.model or "",
            f"step {each.step}" if each.step is not None else "",
            f"{each.metric.name} {each.metric.value:.4g}" if each.metric else "",
        ]
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    for each, row in zip(found, columns, strict=True):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        if each.damage:
            print(f"    {each.damage}")


def found_values(found: Found) -> dict[str, Any]:
    """For JSON."""
    return {
        "path": str(found.path),
        "format": found.format,
        "model": found.model,
        "bytes": found.size_bytes,
        "saved_at": found.saved_at.isoformat(),
        "step": found.step,
        "metric": vars_of(found.metric),
        "state": found.state,
        "damage": found.damage,
        "salvaged": found.salvaged,
    }


def vars_of(metric: Any) -> dict[str, Any] | None:
    """A metric as plain values."""
    return None if metric is None else {"name": metric.name, "value": metric.value, "better": metric.better}


def _counts(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.state for finding in findings)
    elements = sum(finding.tensor.size // DTYPE_BYTES[finding.tensor.dtype] for finding in findings)
    states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    return f"{len(findings)} tensors, {elements:,} numbers: {states}" if findings else "no tensors"


def _print_some(findings: Sequence[Finding], most: int = _SHOWN) -> None:
    for finding in findings[:most]:
        tensor = finding.tensor
        print(f"  {finding.state}: {tensor.name} {tensor.dtype} {list(tensor.shape)}: {finding.proof}")
    if len(findings) > most:
        print(f"  and {len(findings) - most} more; --json lists them all")
