"""What an evaluation found, noted beside the checkpoint, so that the best of many can be told without driving again."""

import json
from pathlib import Path

from mobile_vla.checkpoint.about import EVALUATION
from mobile_vla.checkpoint.atomic import write_bytes
from mobile_vla.core import CheckpointError
from mobile_vla.evaluate.report import Report, Summary

SUITE = "routes"
"""What the note is about: the same scenes for every checkpoint."""


def note_beside(checkpoint: Path, report: Report, path: Path) -> str:
    """Write the policy's success in the suite into the folder ``checkpoint``; ``path`` is the report's.

    Returns in a sentence what was done; empty where the policy did not drive the suite.
    """
    results = report.of("policy", SUITE)
    if not results:
        return ""
    success = Summary.of(results).success
    values = {
        "weights_sha256": report.provenance.weights_sha256,
        "name": "success",
        "value": success.value,
        "better": "higher",
        "episodes": success.total,
        "suites": [SUITE],
        "report": str(path.resolve()),
    }
    try:
        write_bytes(checkpoint / EVALUATION, json.dumps(values, indent=1, ensure_ascii=False).encode() + b"\n")
    except CheckpointError as error:
        return f"the result is not noted beside the checkpoint: {error}"
    return f"the result is noted in {checkpoint / EVALUATION}"
