"""Passwords in addresses are used, and never shown."""

import re

_USER_PART = re.compile(r"(?<=://)[^/\s'\"@]*(?:@[^/\s'\"@]*)*@")
_PARAMETER = re.compile(
    r"(?i)\b((?:user-?(?:id|name)?|(?:user-)?pw|pass(?:word|wd)?|token|key|secret|auth)=)[^&\s'\"!]+"
)


def without_secrets(text: str) -> str:
    """``text`` with names and passwords in URLs (``//user:password@host``) and in ``password=...`` left out."""
    return _PARAMETER.sub(r"\1***", _USER_PART.sub("***@", text))
