"""What commands show on standard error while they work."""

from thresher.cli.progress import progress_display
from thresher.progress import Progress


def test_a_note_is_shown_once(capsys):
    with progress_display(quiet=False) as show:
        for note in ("one", None, "one", "two", "one"):
            show(Progress(stage="embedding", done=1, total=2, note=note))
    assert capsys.readouterr().err.splitlines() == ["one", "two"]


def test_a_quiet_command_shows_nothing(capsys):
    with progress_display(quiet=True) as show:
        assert show is None
    assert capsys.readouterr().err == ""
