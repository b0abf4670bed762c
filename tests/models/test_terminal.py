"""Tests of models/terminal.py."""

import argparse
import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import DataError, FormatError, ImageError
from models.files import writing
from models.terminal import Progress, at_least, meant, new_parser, reports_errors, size_of, step
from tests.oracles import ROOT


def failing(error: BaseException) -> int:
    @reports_errors
    def main() -> int:
        raise error

    return main()


@pytest.mark.parametrize("status", [0, 1, 3])
def test_the_status_of_main_passes_through(status: int) -> None:
    """What `main` returns is what the wrapped one returns."""
    assert reports_errors(lambda: status)() == status


def test_arguments_pass_through() -> None:
    """The wrapped `main` takes the arguments of the original, and keeps its name."""

    @reports_errors
    def main(first: int, *, second: int) -> int:
        return first - second

    assert main(5, second=3) == 2
    assert main.__name__ == "main"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ImageError("found no bytes"), "error: found no bytes (relume explain image-error)\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "irv2.t7"),
            "error: irv2.t7: No such file or directory\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
        (OSError("address in use"), "error: address in use\n"),
        (
            FormatError("a\x1b[2J\udcff.t7", "\x9b31mred\r", found="one\ntwo", expected="é"),
            "error: a\\x1b[2J\\udcff.t7: \\x9b31mred\\r: found one\\ntwo, expected é"
            " (relume explain format-error)\n",
        ),
        (OSError(errno.ENOENT, "No such file", "\x1b.t7"), "error: \\x1b.t7: No such file\n"),
    ],
    ids=[
        *("ours", "system's, of a file", "system's, of no file", "text alone"),
        *("hostile text", "hostile name"),
    ],
)
def test_an_expected_error_is_one_line_and_status_1(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our errors and the system's reach the user as one line on stderr."""
    assert failing(error) == 1
    assert capsys.readouterr() == ("", line)


def test_the_page_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that quotes another one ends with its own page; Python sees the message alone."""
    inner = ImageError("found no bytes")
    assert failing(DataError(f"train/ant/7.jpg: {inner}")) == 1
    line = "error: train/ant/7.jpg: found no bytes (relume explain data-error)\n"
    assert capsys.readouterr().err == line
    assert str(inner) == "found no bytes"


@pytest.mark.parametrize(
    ("word", "question"),
    [("convrt", "; did you mean convert?"), ("xyz", ""), ("", "")],
)
def test_a_word_that_is_like_a_known_one(word: str, question: str) -> None:
    """The nearest is asked about; where none is near, nothing is."""
    assert meant(word, ["convert", "inspect"]) == question


def test_a_package_that_is_not_installed_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that finds out late that it needs torch says so; a module of ours is a bug."""
    assert failing(ModuleNotFoundError("No module", name="torch.nn")) == 1
    assert "has no package torch.nn: `. .venv/bin/activate`" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError, match="No module"):
        failing(ModuleNotFoundError("No module", name="models.odd"))


def test_an_interrupt_is_one_line_and_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C shows no traceback, and gives the status that shells give it."""
    assert failing(KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_sigterm_unwinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Like Ctrl-C it leaves nothing half-written; afterwards the process is what it was."""

    @reports_errors
    def main() -> int:
        with writing() as files:
            files.new(tmp_path / "a").write_text("half")
            signal.raise_signal(signal.SIGTERM)
        return 0

    assert main() == 128 + signal.SIGTERM
    assert capsys.readouterr() == ("", "terminated\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_is_told_from_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    """Even where a library raises a KeyboardInterrupt of its own in place of what came."""

    @reports_errors
    def main() -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
        return 0

    assert main() == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "terminated\n"


def test_sigterm_is_left_to_who_took_it() -> None:
    """A program that has a handler of its own, such as a training run, keeps it."""
    taken: list[int] = []

    @reports_errors
    def main() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    previous = signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))
    try:
        assert main() == 0
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert taken == [signal.SIGTERM]


def test_a_bug_stays_a_traceback() -> None:
    """What nobody expects is not dressed up as a user's mistake."""
    with pytest.raises(ZeroDivisionError, match="bug"):
        failing(ZeroDivisionError("bug"))


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (999_999, "1,000.0 kB"),
        (1_000_000, "1.0 MB"),
        (2_345_678_901, "2,345.7 MB"),
    ],
)
def test_a_size_is_short(count: int, said: str) -> None:
    """Bytes as long as they can be counted, then steps of a thousand."""
    assert size_of(count) == said


def test_a_reader_that_went_away_is_no_error() -> None:
    """`relume ... | head` ends in silence with status 141, also while Python flushes at exit."""
    program = (
        "import sys\n"
        "from models.terminal import reports_errors\n"
        "@reports_errors\n"
        "def main():\n"
        "    for _ in range(100_000):\n"
        "        print('a line')\n"
        "    return 0\n"
        "sys.exit(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_step_says_what_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress goes to stderr, one line a step, with the seconds it took."""
    with step("reading irv2.t7"):
        pass
    assert capsys.readouterr() == ("", "  reading irv2.t7 ... 0.0 s\n")


def test_a_step_on_a_terminal_says_what_before_it_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who watches a terminal reads what is being done while it is done."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with step("reading irv2.t7"):
        assert capsys.readouterr().err == "  reading irv2.t7 ..."
    assert capsys.readouterr().err == " 0.0 s\n"


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_step_that_fails_claims_no_time(
    on_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error passes through, and begins on a line of its own."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    with pytest.raises(ImageError, match="damaged"), step("reading"):
        raise ImageError("damaged")
    assert capsys.readouterr().err == ("  reading ...\n" if on_terminal else "")


def test_progress_grows_and_is_gone_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal shows how much is done, how fast and how long yet, ten times a second at most."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(2_000_000, size_of) as progress:
        for _ in range(1000):
            progress.advance(2000)
    said = capsys.readouterr().err
    assert "[##############################] 2.0 MB of 2.0 MB, " in said
    assert "/s, 0 min left" in said
    assert said.count(" of 2.0 MB") < 100
    assert said.endswith("\r\033[K")


def test_progress_says_nothing_to_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A log has no bars in it."""
    with Progress(2) as progress:
        progress.advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("least", "text", "message"),
    [
        (1, "0", "'0' is not a whole number from 1"),
        (0, "-1", "'-1' is not a whole number from 0"),
        (0, "1.5", "'1.5' is not a whole number from 0"),
        (0.0, "nan", "'nan' is not a number from 0"),
        (0.0, "inf", "'inf' is not a number from 0"),
        (0.0, "", "'' is not a number from 0"),
    ],
)
def test_a_number_that_a_flag_does_not_take(least: float, text: str, message: str) -> None:
    """The message says what was given and what would do."""
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        at_least(least)(text)


def test_a_parser_wraps_what_it_says_and_not_its_examples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sentence is broken to the terminal's width, a line to type is not."""
    monkeypatch.setenv("COLUMNS", "40")
    example = "relume convert irv2.t7 --input torch-299 --name of-some-length"
    told = new_parser("A sentence that is longer than forty columns are.", example).format_help()
    assert "\nA sentence that is longer than forty\ncolumns are.\n" in told
    assert told.endswith(f"\nexamples:\n  {example}\n")


def test_a_number_that_a_flag_takes() -> None:
    """It is of the kind of the least one, which is among them."""
    assert [at_least(1)("1"), at_least(0)("7"), at_least(0.0)("0.5")] == [1, 7, 0.5]
    assert isinstance(at_least(0.0)("2"), float)
