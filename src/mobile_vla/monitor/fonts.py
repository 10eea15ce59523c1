"""Fonts for captions: the one matplotlib brings, and for Hangul one of the system where there is one."""

import re
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts

_HANGUL = re.compile("[ᄀ-ᇿ㄰-㆏가-힣]")
_HANGUL_FONTS = re.compile(
    r"nanum(square|gothic|barun)|noto(sans|serif)(cjk|.?kr)|malgun|applesdgothic|applegothic|batang|gulim|undotum|baekmuk"
)


@cache
def font_file(text: str) -> Path | None:
    """A font file that can draw ``text``; None when that needs Hangul and the system has no font for it."""
    if not _HANGUL.search(text):
        return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return _hangul_font()


@cache
def _hangul_font() -> Path | None:
    fonts = sorted(Path(path) for path in findSystemFonts())
    regular = sorted(fonts, key=lambda path: "bold" in path.stem.lower())
    return next((path for path in regular if _HANGUL_FONTS.search(path.stem.lower().replace("-", ""))), None)
