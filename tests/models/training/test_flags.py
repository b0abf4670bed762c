"""The flags of a run: numbers that cannot be are refused before anything begins."""

import pytest

from models.training.flags import asked_for


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("--devices", "0", "'0' is not a whole number from 1"),
        ("--log-every", "0", "'0' is not a whole number from 1"),
        ("--workers", "-1", "'-1' is not a whole number from 0"),
        ("--save-every", "nan", "'nan' is not a number from 0"),
        ("--memonger", "nan", "'nan' is not a number from 0"),
        ("--memonger", "-1", "'-1' is not a number from 0"),
    ],
)
def test_a_number_that_cannot_be_is_refused(
    flag: str, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names flag and value."""
    with pytest.raises(SystemExit, match="2"):
        asked_for([f"{flag}={text}"])
    assert f"argument {flag}: {message}" in capsys.readouterr().err


def test_numbers_from_the_least_on_are_taken() -> None:
    """So is `--memonger` without one, which is the least memory."""
    options = asked_for(["--log-every", "1", "--workers", "0", "--save-every", "0"]).options
    assert (options.log_every, options.workers, options.save_every) == (1, 0, 0.0)
    assert options.memonger is None
    assert asked_for(["--memonger"]).options.memonger == 0.0
