"""Learning rate and decay are the originals' at every edge, and schedules read back as written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import RecipeError
from models.recipes import RECIPES
from models.training import schedules
from models.training.schedules import parsed, written

# (recipe, update from 1 or None for the first of the epoch, epoch, learning rate, decay): numbers
# of the originals' logs and programs
EDGES = [
    ("irv2-setting1", 1, 1, 0.045, 1e-4),
    ("irv2-setting1", 12_799, 1, 0.045, 1e-4),
    ("irv2-setting1", 12_800, 1, 0.045 * 0.96, 1e-4),
    ("irv2-setting1", 25_600, 2, 0.045 * 0.96**2, 1e-4),
    ("irv2-setting1", 1_801_710, 90, 1.48e-4, 1e-4),
    ("irv2-setting2", 1_801_710, 90, 2.58e-3, 1e-4),
    ("irv2-setting3", 1_801_710, 90, 1.08e-2, 1e-4),
    ("irv2-paper-steps", 80_075, 4, 0.045, 1e-4),
    ("irv2-paper-steps", 80_076, 4, 0.045 * 0.94, 1e-4),
    ("irv2-paper-steps", 6_005_700, 300, 4.34e-4, 1e-4),
    ("irv2-paper-epochs", 40_038, 2, 0.045 * 0.94, 1e-4),
    ("inception-v4", None, 1, 0.1, 2e-5),
    ("inception-v4", None, 76, (0.1 + 5e-5) / 2, 2e-5),
    (
        "inception-v4",
        None,
        150,
        5e-5 + (0.1 - 5e-5) * (1 + math.cos(math.pi * 149 / 150)) / 2,
        2e-5,
    ),
    ("inception-v4", None, 151, 0.1, 2e-5),
    ("resnet-v2-18", 150_120, 30, 0.1, 1e-4),
    ("resnet-v2-18", 150_121, 30, 0.01, 1e-4),
    ("resnet-v2-18", 300_241, 60, 1e-3, 1e-4),
    ("resnet-v2-18", 450_361, 90, 1e-4, 1e-4),
    ("resnet-v2-18", None, 98, 1e-4, 1e-4),
    ("resnet-v2-18", None, 99, 1e-3, 1e-4),
    # updates of a process that began after epoch 23: 92,575, 130,105 and 167,635 in the log
    ("resnet-v2-18-512batch", 23 * 2_503 + 92_574, 60, 0.1, 1e-4),
    ("resnet-v2-18-512batch", 23 * 2_503 + 92_575, 60, 0.01, 1e-4),
    ("resnet-v2-18-512batch", 23 * 2_503 + 130_105, 75, 1e-3, 1e-4),
    ("resnet-v2-18-512batch", 23 * 2_503 + 167_635, 90, 1e-4, 1e-4),
    # of processes that began after epochs 57 and 76: 7,507 and 35,029
    ("resnet-v2-34", 57 * 2_503 + 7_506, 60, 0.1, 1e-4),
    ("resnet-v2-34", 57 * 2_503 + 7_507, 60, 0.01, 1e-4),
    ("resnet-v2-34", None, 75, 0.01, 1e-4),
    ("resnet-v2-34", None, 76, 1e-3, 1e-4),
    ("resnet-v2-34", 76 * 2_503 + 35_028, 90, 1e-3, 1e-4),
    ("resnet-v2-34", 76 * 2_503 + 35_029, 90, 1e-4, 1e-4),
    ("resnet-v2-50", None, 83, 1e-3, 1e-4),
    ("resnet-v2-50", None, 84, 1e-3, 1e-4),
    ("resnet-v2-50", None, 96, 1e-4, 1e-4),
    ("resnet-v2-101", 160_140, 60, 0.1, 1e-4),
    ("resnet-v2-101", 160_141, 60, 0.01, 1e-4),
    ("resnet-v2-101", 240_211, 90, 1e-3, 1e-4),
    ("resnet-v2-101", 320_281, 120, 1e-4, 1e-4),
    ("resnet-v2-cifar-164", 85_800, 220, 0.1, 1e-4),
    ("resnet-v2-cifar-164", 85_801, 220, 0.01, 1e-4),
    ("resnet-v2-cifar-164", 101_401, 260, 1e-3, 1e-4),
    ("resnet-v2-cifar-164", 109_201, 280, 1e-4, 1e-4),
    ("fb-resnet-50", None, 30, 0.1, 1e-4),
    ("fb-resnet-50", None, 31, 0.01, 1e-4),
    ("fb-resnet-50", None, 61, 1e-3, 1e-4),
    ("fb-resnet-cifar-110", None, 80, 0.1, 1e-4),
    ("fb-resnet-cifar-110", None, 81, 0.01, 1e-4),
    ("fb-resnet-cifar-110", None, 121, 0.01, 1e-4),
    ("fb-resnet-cifar-110", None, 122, 1e-3, 1e-4),
    ("enet-v2", None, 18, 1e-2, 5e-4),
    ("enet-v2", None, 19, 5e-3, 5e-4),
    ("enet-v2", None, 29, 5e-3, 5e-4),
    ("enet-v2", None, 30, 1e-3, 0.0),
    ("enet-v2", None, 44, 5e-4, 0.0),
    ("enet-v2", None, 53, 1e-4, 0.0),
    ("enet-v3", None, 15, 5e-3, 5e-4),
    ("enet-v3", None, 16, 1e-3, 0.0),
    ("enet-v3", None, 31, 1e-4, 0.0),
    ("enet-v6", None, 1, 0.1, 5e-4),
    ("enet-v6", None, 3, 0.1 * (1 - 2 / 55) * (1 - 3 / 55), 5e-4),
    ("enet-v6", None, 30, 0.1 * math.prod(1 - j / 55 for j in range(2, 31)), 0.0),
    ("enet-v6", None, 55, 0.0, 0.0),
    ("enet-v6-linear", None, 11, 0.1 * (1 - 10 / 55), 5e-4),
    ("enet-v7", None, 2, 0.09, 1e-4),
    ("enet-v7", None, 10, 8.7e-4, 1e-4),
    ("enet-v7-exp", None, 10, 3.9e-2, 1e-4),
]


def digits(value: float) -> float:
    """Return the half of the last digit that a number of the notes was written with."""
    mantissa = f"{value:.10e}".partition("e")[0].rstrip("0")
    return 0.5 * 10.0 ** (math.floor(math.log10(value)) - len(mantissa) + 2) if value else 0.0


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge[0]}-{edge[2]}-{edge[1]}")
def test_edges(edge: tuple[str, int | None, int, float, float]) -> None:
    """The value changes where the original's did, and not an update before."""
    name, update, epoch, lr, decay = edge
    recipe = RECIPES[name]
    at = update or (epoch - 1) * recipe.steps(recipe.images) + 1
    place = recipe.place(at, recipe.images)
    assert place.epoch == epoch
    written_short = lr in (1.48e-4, 2.58e-3, 1.08e-2, 4.34e-4, 8.7e-4, 3.9e-2)
    bound = digits(lr) if written_short else 1e-12
    assert abs(recipe.lr_at(place) - lr) <= bound
    assert recipe.decay_at(place) == decay


def test_milestones_after_a_restart_count_from_it() -> None:
    """A restart's milestones lie its own updates away, and those before it count for nothing."""
    schedule = schedules.Milestones((2, 5), 0.1, ((3, 0.5),))
    place = schedules.Place(1, 1, 11, 10)
    at = {
        update: schedule.factor_at(place._replace(update=update, epoch=(update - 1) // 11 + 1))
        for update in (20, 21, 33, 34, 53, 54)
    }
    assert at == {20: 1, 21: 0.1, 33: 0.1, 34: 0.5, 53: 0.5, 54: 0.05}


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_written_is_read(name: str) -> None:
    """Every recipe's schedules are the texts that describe them."""
    recipe = RECIPES[name]
    for schedule in (recipe.schedule, recipe.decay_schedule):
        assert parsed(written(schedule)) == schedule


epochs = st.lists(st.integers(1, 99), min_size=1, unique=True).map(lambda one: tuple(sorted(one)))
factors = st.floats(1e-6, 1)


@given(at=epochs, factor=factors, restart=st.tuples(st.integers(1, 99), factors))
def test_any_schedule_reads_back(
    at: tuple[int, ...], factor: float, restart: tuple[int, float]
) -> None:
    """`parsed` is the inverse of `written`, whatever the numbers."""
    for schedule in (
        schedules.Epochs(at, factor),
        schedules.Milestones(at, factor, (restart,)),
        schedules.Rows(at, (factor, *[1.0 for _ in at])),
        schedules.Cosine(at[0], factor),
        schedules.Steps(at[0], factor),
    ):
        assert parsed(written(schedule)) == schedule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stairs", "no stairs; there are constant, steps"),
        ("", "no schedule; there are constant, steps"),
        ("exponential factor=nan", "expected finite numbers"),
        ("rows until=3 factors=1,1e999", "expected finite numbers"),
        ("milestones at=3 factor=0.1 restarts=2:inf", "expected finite numbers"),
        ("steps every=10", "expected steps every=... factor=..."),
        ("steps every=ten factor=0.1", "expected steps every=... factor=..."),
        ("steps every=0 factor=0.1", "a length below 1"),
        ("epochs at=60,30 factor=0.1", "epochs that do not rise"),
        ("rows until=3,5 factors=1,0.1", "2 factors for 2 ends, expected one more than ends"),
        ("constant at=3", "expected constant"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, message: str) -> None:
    """A text is refused by what it lacks, with the form it should have."""
    with pytest.raises(RecipeError, match=message):
        parsed(text)


def test_a_cosine_goes_down_to_nothing() -> None:
    """Its floor is 0 where none is given."""
    assert parsed("cosine period=5") == schedules.Cosine(5, 0.0)
