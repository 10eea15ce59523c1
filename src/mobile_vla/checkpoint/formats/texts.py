"""Text that lies where a checkpoint should: pointers of Git LFS, saved web pages, error answers, indices of shards."""

import json
import re
from collections.abc import Iterator
from typing import Any

from mobile_vla.checkpoint.layout import Format

Judgement = tuple[Format | None, str, str]
"""The format that it can be read as, what it is, and what to do."""

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_AGAIN = "fetch the file again"
_LONGEST_ANSWER = 1 << 16
"""Bytes; what a server says of an error is shorter."""


def text_of(data: bytes) -> str | None:
    """``data``, the start or the end of a file, as text; None where it is none."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
        return text if "\ufffd" not in text[:-1] and "".join(text.split()).isprintable() else None
    if _CONTROL.search(data):
        return None
    # up to 3 bytes at each end belong to a letter that the edge has cut
    text = re.sub(rb"^[\x80-\xbf]{1,3}|[\xc0-\xff][\x80-\xbf]{0,2}$", b"", data).decode(errors="replace")
    # pages in older encodings are mostly ASCII
    return text if text.count("\ufffd") * 4 <= len(text) else None


def judge(text: str, size: int) -> Judgement:
    """What a file of ``size`` bytes that begins with ``text`` is."""
    text = text.lstrip("\ufeff \t\r\n")
    return _pointer(text) or _page(text) or _json(text, size) or _answer(text, size) or _other(text)


def printable(text: str, longest: int = 100) -> str:
    """``text`` from a file, safe to show: one line, no control characters, not long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * longest])
    line = " ".join(line.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _pointer(text: str) -> Judgement | None:
    if re.match(r"version https?://\S*(git-lfs|hawser|git-media)\S*\s", text):
        size = re.search(r"^size (\d{1,18})\s*$", text, re.MULTILINE)
        oid = re.search(r"^oid sha256:([0-9a-f]{64})\s*$", text, re.MULTILINE)
        stands_for = f"a file of {int(size[1]):,} bytes" if size else "a file whose size it has lost"
        hashed = f" (sha256 {oid[1]})" if oid else ""
        return None, f"a Git LFS pointer that stands for {stands_for}{hashed}", "fetch the file itself: git lfs pull"
    if re.match(r"(\.\./)*(\.git)?/annex/objects/", text):
        return None, "a git-annex pointer", "fetch the file itself: git annex get FILE"
    if re.match(r"outs:\s*\n- (md5|etag|path|size)", text):
        return None, "a DVC pointer", "fetch the file itself: dvc pull"
    return None


def _page(text: str) -> Judgement | None:
    if not re.match(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|script|body)\b", text, re.I | re.S):
        return None
    title = re.search(r"<title[^>]*>(.{1,400}?)</title", text, re.I | re.S)
    named = f' titled "{printable(title[1])}"' if title else ""
    return (
        None,
        f"a saved web page{named}",
        f"a server sent it in place of the file (a log-in, a limit, a warning): {_AGAIN} with the site's own tool",
    )


def _json(text: str, size: int) -> Judgement | None:
    if not text.startswith(("{", "[")):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    # an index is often longer than the start that is looked at, and may be damaged
    if '"weight_map"' in text[:4096]:
        format = Format.SAFETENSORS_SHARDS if '.safetensors"' in text else Format.TORCH_SHARDS
        return format, "the index of a checkpoint in shards", ""
    if isinstance(values, dict) and size <= _LONGEST_ANSWER and (said := next(_complaints(values), None)):
        return None, f'an error answer of a server: "{printable(said)}"', _AGAIN
    return None, "a JSON file", "name the file that holds the weights"


def _complaints(values: dict[str, Any]) -> Iterator[str]:
    for key in ("error", "errors", "message", "detail", "Message", "error_description"):
        if (value := values.get(key)) and len(values) <= 8:
            yield str(value)


def _answer(text: str, size: int) -> Judgement | None:
    if text.startswith(("HTTP/1", "HTTP/2")):
        return None, f'the answer of a server with its head: "{printable(text.splitlines()[0])}"', _AGAIN
    if size > _LONGEST_ANSWER:
        return None
    if re.match(r"<\?xml|<Error>", text):
        said = re.search(r"<(Message|Code)>(.{1,400}?)</", text, re.S)
        if said:
            return None, f'an error answer of a server: "{printable(said[2])}"', _AGAIN
        return None, "an XML file", "name the file that holds the weights"
    if len(text) <= 1000 and _REFUSALS.search(text):
        return None, f'an error answer of a server: "{printable(text)}"', _AGAIN
    return None


_REFUSALS = re.compile(
    r"access (is )?denied|access to .* is restricted|not found|forbidden|unauthori[sz]ed|permission denied|"
    r"invalid (user|credential|token)|too many requests|rate limit|quota|expired|please log ?in|no such (key|file)|"
    r"bad gateway|gateway time-?out|service unavailable|internal server error|moved permanently|redirecting",
    re.IGNORECASE,
)


def _other(text: str) -> Judgement:
    return None, f'a text file that begins "{printable(text, 60)}"', "name the file that holds the weights"
