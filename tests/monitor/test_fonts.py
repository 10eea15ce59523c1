from mobile_vla.monitor import fonts


def test_latin_text_always_has_a_font():
    assert fonts.font_file("pass the box, 20° left").is_file()


def test_hangul_has_a_font_of_the_system_or_none(monkeypatch):
    fonts.font_file.cache_clear()
    fonts._hangul_font.cache_clear()
    monkeypatch.setattr(
        fonts, "findSystemFonts", lambda: ["/f/NanumGothicBold.ttf", "/f/Sans.ttf", "/f/NanumGothic.ttf"]
    )
    assert str(fonts.font_file("컵")) == "/f/NanumGothic.ttf"
    fonts.font_file.cache_clear()
    fonts._hangul_font.cache_clear()
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: ["/f/Sans.ttf"])
    assert fonts.font_file("컵") is None
    fonts.font_file.cache_clear()
    fonts._hangul_font.cache_clear()
