"""The folder of a run: made before anything is checked, taken once nothing stands against it."""

from models.checkpoint import Checkpoint
from models.errors import ArtifactError
from models.files import writing
from models.recipes import Recipe
from models.training import snapshots
from models.training.flags import RECIPE_FILE, Options
from models.training.log import LINES, TABLE
from models.training.network import CONVERTED
from models.training.processes import Processes
from models.training.result import write_pt

LOGS = (LINES, TABLE)
LEFT = ("best.pt", "best.onnx", "last.pt", "last.onnx", "curve.png")  # what a run leaves
START = f"{CONVERTED}.pt"


def prepare_folder(options: Options, processes: Processes) -> None:
    """Make the run's folder; what an earlier run left in it stays until `take_folder`.

    Raises:
        ArtifactError: A run is in it already, and neither goes on nor is to be replaced.
        ResumeError: Not every process sees the same folder.
    """
    path = options.out / snapshots.NAME
    snapshots.check_shared(processes.share((options.resume, path.exists())))
    if path.exists() and not (options.resume or options.force):
        raise ArtifactError(
            f"{path}: a run is here already; --resume goes on with it, --force begins anew, "
            "-o chooses another folder"
        )
    if processes.leads:
        options.out.mkdir(parents=True, exist_ok=True)
        snapshots.sweep(options.out)


def take_folder(recipe: Recipe, options: Options, checkpoint: Checkpoint | None) -> None:
    """Replace an earlier run, now that nothing stands against this one, by its recipe and start.

    What it starts from stays, wherever it is.
    """
    start = options.init.resolve() if options.init is not None else None
    for name in (snapshots.NAME, *LOGS, *(LEFT if options.force else ())):
        if (path := options.out / name).resolve() != start:
            path.unlink(missing_ok=True)
    keep_start(options, checkpoint)
    with writing() as files:
        snapshots.save_recipe(files.new(options.out / RECIPE_FILE), recipe)


def keep_start(options: Options, checkpoint: Checkpoint | None) -> None:
    """Keep what a run starts from, whose graph a network of no known class needs to go on."""
    path = options.out / START
    if checkpoint is None:
        path.unlink(missing_ok=True)
    else:
        write_pt(path, checkpoint)
