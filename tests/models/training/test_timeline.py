"""A run's timeline has every edge of its recipe, before anything starts."""

import pytest

from models.recipes import RECIPES, changed
from models.training.display import Bar, clock
from models.training.timeline import explained, settings, stretches


@pytest.mark.parametrize("name", [one for one in RECIPES if "-11k" not in one])
def test_stretches_cover_the_run(name: str) -> None:
    """They follow each other without a gap, and each has one rate from end to end."""
    recipe = RECIPES[name]
    found = list(stretches(recipe, recipe.images))
    assert found[0].first == 1
    assert found[-1].last == recipe.epochs * recipe.steps(recipe.images)
    for one, other in zip(found, found[1:], strict=False):
        assert other.first == one.last + 1
    for one in found:
        rates = [recipe.lr_at(recipe.place(at, recipe.images)) for at in (one.first, one.last)]
        assert rates == [one.lr[0]] * 2


def test_edges_are_told() -> None:
    """Falls, levels, momentum dropped and BatchNorm's momentum stand at their updates."""
    said = explained(RECIPES["resnet-v2-200"], RECIPES["resnet-v2-200"].images, 60)
    assert "a snapshot every 60 s" in said
    row = next(line for line in said.splitlines() if "momentum dropped" in line)
    assert "475,476-" in row
    assert "augmentation level 1" in row
    assert "BatchNorm momentum 0.003" in said


def test_many_falls_are_told_in_one_row() -> None:
    """A schedule that falls 140 times is told by its ends."""
    said = explained(RECIPES["irv2-setting1"], 1_281_167, 300)
    assert "0.045 to 0.000148" in said
    assert "changed 140 times" in said


def test_settings_are_flags() -> None:
    """Every setting is shown as its flag takes it."""
    recipe = changed(RECIPES["enet-v2"], {"lr": "0.5"})
    pairs = (line.split(None, 1) for line in settings(recipe).splitlines())
    lines = dict(pair for pair in pairs if len(pair) == 2)
    assert lines["lr"] == "0.5"
    assert lines["schedule"] == "rows until=18,29,43,52 factors=1.0,0.5,0.1,0.05,0.01"
    assert lines["source"].startswith("e-lab/ENet-training")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "0:05"), (65, "1:05"), (3_723, "1:02:03"), (200_000, "2 d 07:33"), (59.6, "1:00")],
)
def test_times_are_read_by_people(seconds: float, text: str) -> None:
    """Minutes, hours and days."""
    assert clock(seconds) == text


def test_a_bar_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where stderr is a terminal it shows the place, speed, time left and the wait for data."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = Bar("epoch 1/2", 100, 50, shown=True)
    now[0] = 10.0
    bar.advance(60, 320, 2.5)
    bar.clear()
    said = capsys.readouterr().err
    assert "epoch 1/2 [##############          ] 60/100  32 images/s  0:40 left  data 25%" in said
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    lines = Bar("epoch 1/2", 100, 50, shown=True)
    for now[0] in (20.0, 60.0, 80.0):
        lines.advance(60, 320, 2.5)
    lines.clear()
    said = capsys.readouterr().err
    assert said.startswith("epoch 1/2 [")
    assert said.count("\n") == 1
    quiet = Bar("epoch 1/2", 100, 50, shown=False)
    quiet.advance(60, 320, 2.5)
    assert quiet.images == 320
    assert capsys.readouterr().err == ""
