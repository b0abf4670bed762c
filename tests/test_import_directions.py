"""Who may import whom: the walls of the house."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oracles import ROOT

ROOMS = ("converters", "models", "service", "relume")
FORBIDDEN = {
    "models": {"converters", "service", "relume"},
    "converters": {"service", "relume"},
    "service": {"converters", "relume"},
    "relume": set(),
}
AUGMENT = (
    *("__init__", "colour", "crops", "draws", "evaluation", "lornatang", "mxnet_family"),
    *("picture", "torch_family", "view"),
)
DATA = (
    *("__init__", "archives", "folders", "lists", "matlab", "order", "packed", "records"),
    *("samples", "small_images"),
)
PLAIN = {
    *(f"models/augment/{name}.py" for name in AUGMENT),
    *(f"models/data/{name}.py" for name in DATA),
    "models/cores.py",
    "models/decoding.py",
    "models/engines.py",
    "models/errors.py",
    "models/files.py",
    "models/fingerprint.py",
    "models/folding.py",
    "models/geometry.py",
    "models/graph.py",
    "models/image_network.py",
    "models/labels/__init__.py",
    "models/postprocess.py",
    "models/openvino_engine.py",
    "models/preprocess.py",
    "models/presets.py",
    "models/recipes/__init__.py",
    "models/recipes/lornatang.py",
    "models/recipes/mxnet.py",
    "models/recipes/recipe.py",
    "models/recipes/torch7.py",
    "models/report.py",
    "models/self_test.py",
    "models/session.py",
    "models/spec.py",
    "models/terminal.py",
    "models/torch7_scale.py",
    "models/training/__init__.py",
    "models/training/curves.py",
    "models/training/display.py",
    "models/training/schedules.py",
    "models/training/timeline.py",
}
TORCH_FREE = {
    f"converters/{name}.py"
    for name in (
        "bare",
        "difference",
        "export",
        "lowering",
        "packing",
        "sources",
        "summary",
        "tree",
        "triton",
    )
}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, functions included, absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def module_file(name: str) -> str | None:
    """Return the file of one of our modules, None for what is not a module of ours."""
    stem = name.replace(".", "/")
    for file in (f"{stem}.py", f"{stem}/__init__.py"):
        if (ROOT / file).exists():
            return file
    return None


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_rooms_are_entered_in_one_direction(path: Path) -> None:
    """`models` knows nobody, `converters` and `service` know `models`, `relume` knows all."""
    room = path.relative_to(ROOT).parts[0]
    tops = {name.partition(".")[0] for name in imported(path)}
    assert not tops & FORBIDDEN[room]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_the_plain_half_imports_no_torch(path: Path) -> None:
    """The plain half of models, and the service, import neither torch nor the torch half."""
    name = relative(path)
    room = name.partition("/")[0]
    if name in PLAIN or room == "service":
        ours = {file for module in imported(path) if (file := module_file(module))}
        outside = {file for file in ours if file.startswith("models/")} - PLAIN
        assert outside <= {"models/__init__.py"}
    if (
        name in PLAIN | TORCH_FREE
        or room == "service"
        or name.startswith(("converters/t7/", "converters/mx/"))
    ):
        assert "torch" not in {module.partition(".")[0] for module in imported(path)}


def test_readers_need_nothing_but_numpy() -> None:
    """A reader imports the standard library, numpy and our errors."""
    allowed = set(sys.stdlib_module_names) | {"numpy"}
    torch7 = ("reader", "records", "binary", "text", "decimals", "objects")
    others = ("converters.mx.params", "converters.mx.symbol", "models.data.records")
    names = (*(f"converters.t7.{one}" for one in torch7), *others, "converters.signatures")
    for name in names:
        for module in imported(ROOT / f"{name.replace('.', '/')}.py"):
            top = module.partition(".")[0]
            assert top in allowed or module.startswith(("models.errors", *names)), module


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_runtimes_are_imported_where_they_are_needed(path: Path) -> None:
    """Each in one function, where its telemetry is turned off first; neither has to be there."""
    tops = {module.partition(".")[0] for module in imported(path)}
    assert not {"onnxruntime", "openvino"} & tops


def test_no_converter_shadows_a_package() -> None:
    """Run as a script, a file's folder leads sys.path: no sibling may look like a package."""
    names = {path.stem for path in (ROOT / "converters").iterdir()} - {"__init__", "__pycache__"}
    known = set(sys.stdlib_module_names) | {"torch", "mxnet", "onnx", "numpy", "models", "service"}
    assert not names & known


@pytest.mark.parametrize(
    "module",
    [
        "service.app",
        "converters.bare",
        "converters.export",
        "converters.triton",
        "converters.summary",
        "converters.tree",
        "models.augment",
        "models.data",
        "relume.__main__",
    ],
)
def test_torch_is_not_loaded(module: str) -> None:
    """Serving and inspecting leave torch on the disk."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
