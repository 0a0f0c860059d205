from longreach.core.progress import SILENT


def test_the_library_is_silent(capsys):
    SILENT.start("reading", 10)
    SILENT.advance(10)
    assert capsys.readouterr() == ("", "")
