"""What reading and converting cost, next to a plain `read()` of the same file and to others.

    python benchmarks/convert.py irv2.t7 [-n 5] [--json]
    python benchmarks/convert.py resnet-152-0000.params --mxnet mxnet/bin/python

Every figure is the median of n runs in processes of their own, reading and converting each taken
in turn, so that a slow minute of the machine hits all that is compared. Readers, and writing the
tensors alone beside a copy, are timed inside their process (starting Python is not reading);
`relume` is timed as a whole command. A copy is on the disk once it is done, as all that relume
writes. Anonymous memory is what a process holds besides files that it maps: RssAnon of
/proc/self/status, before and after. Text is measured on a storage of random weights, made for it as
Torch7 writes it.

The others are MXNet itself, for .params files (`pip install mxnet==1.9.1 numpy==1.23.5` into an
environment of Python 3.8), and torchfile 0.1.0 and OpenCV, of the extras `bench` and `dev`; one
that is not installed, or does not take the file, is named as such. Needs Linux and GNU time.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

READ = """
import json, sys, time
from pathlib import Path
start = time.perf_counter()
data = Path(sys.argv[1]).read_bytes()
print(json.dumps({"seconds": time.perf_counter() - start}))
"""

WALK = """
import json, sys, time
from pathlib import Path
from converters.t7 import reader
from converters.t7.objects import Tensor, walk

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

path, before = Path(sys.argv[1]), anonymous()
start = time.perf_counter()
root = reader.read(path)
arrays = [one.array() for one in walk(root) if isinstance(one, Tensor)]
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "anonymous": anonymous() - before, "views": len(arrays)}))
"""

WALK_PARAMS = """
import json, sys, time
from pathlib import Path
from converters.mx import params

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

path, before = Path(sys.argv[1]), anonymous()
start = time.perf_counter()
arrays = params.read(path).arrays
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "anonymous": anonymous() - before, "views": len(arrays)}))
"""

COPY = """
import json, os, shutil, sys, time
start = time.perf_counter()
shutil.copyfile(sys.argv[1], sys.argv[2])
with open(sys.argv[2], "rb") as file:
    os.fsync(file.fileno())
print(json.dumps({"seconds": time.perf_counter() - start}))
"""

TENSORS = """
import json, sys, time
from pathlib import Path
from converters.bare import write_tensors
source, target = map(Path, sys.argv[1:])
start = time.perf_counter()
write_tensors(source, source, target)
print(json.dumps({"seconds": time.perf_counter() - start}))
"""

OTHER = """
import importlib.util, json, sys, time
package, call = sys.argv[2:4]
if importlib.util.find_spec(package) is None:
    sys.exit(print(json.dumps({"note": "not installed"})))
module = importlib.import_module(package)
start = time.perf_counter()
try:
    eval(call, {package: module, "path": sys.argv[1]})
except Exception as error:
    sys.exit(print(json.dumps({"note": f"refuses it: {type(error).__name__}"})))
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
MXNET = ["mxnet", "mxnet.nd.load(path)"]
TORCHFILE = ["torchfile", "torchfile.load(path)"]
OPENCV = ["cv2", "cv2.dnn.readNetFromTorch(path)"]
OPENCV_TEXT = ["cv2", "cv2.dnn.readTorchBlob(path, False)"]

TEXT_NUMBERS = 4_000_000  # 54 MB

COPIED, ALONE = "copy of the file", "tensors alone"

Rows = dict[str, dict[str, Any]]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time reading and converting a checkpoint.")
    parser.add_argument("source", type=Path, help="an unpacked .t7 or .params file")
    parser.add_argument("-n", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument(
        "--mxnet",
        default=sys.executable,
        metavar="PYTHON",
        help="a Python that has MXNet, for .params files (it needs 3.8; default: this one)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    source = given.source.resolve()
    if source.suffix == ".params":
        return _of_mxnet(source, given)
    with tempfile.TemporaryDirectory() as folder:
        rows = _measure(source, Path(folder), given.n)
        text = _write_text(Path(folder) / "text.t7")
        text_rows = _measure_text(text, given.n)
        sizes = [one.stat().st_size for one in (source, text)]
    if given.json:
        found = {"source": source.name, "bytes": sizes[0], "rows": rows}
        print(json.dumps({**found, "text": {"bytes": sizes[1], "rows": text_rows}}))
    else:
        print(_table(source.name, sizes[0], rows, given.n))
        times = rows[ALONE]["seconds"] / rows[COPIED]["seconds"]
        print(f"the tensors alone take {times:.2f} times as long as a copy of the file")
        print()
        print(_table(f"text of {TEXT_NUMBERS:,} floats", sizes[1], text_rows, given.n))
    return 0


def _of_mxnet(source: Path, given: argparse.Namespace) -> int:
    """Measure a .params file."""
    relume = [sys.executable, "-m", "relume"]
    reading = {
        "read() of the file": _inside(READ, source),
        "read to views": _inside(WALK_PARAMS, source),
        "MXNet nd.load": [given.mxnet, *_inside(OTHER, source, *MXNET)[1:]],
        "relume inspect": [*relume, "inspect", str(source), "--json"],
    }
    with tempfile.TemporaryDirectory() as folder:
        convert = [*relume, "convert", str(source), "-o", folder, "--force", "--json"]
        jobs = {"convert, .pt only": [*convert, "--no-onnx"], "convert, .pt and .onnx": convert}
        rows = {**_in_turn(reading, given.n), **_in_turn(jobs, given.n)}
    size = source.stat().st_size
    if given.json:
        print(json.dumps({"source": source.name, "bytes": size, "rows": rows}))
    else:
        print(_table(source.name, size, rows, given.n))
    return 0


def _measure(source: Path, folder: Path, runs: int) -> Rows:
    relume = [sys.executable, "-m", "relume"]
    convert = [*relume, "convert", str(source), "-o", str(folder), "--force", "--json"]
    reading = {
        "read() of the file": _inside(READ, source),
        "walk to views": _inside(WALK, source),
        "torchfile": _inside(OTHER, source, *TORCHFILE),
        "OpenCV readNetFromTorch": _inside(OTHER, source, *OPENCV),
        "relume inspect": [*relume, "inspect", str(source), "--json"],
    }
    writing = {
        COPIED: _inside(COPY, source, folder / "copy"),
        ALONE: _inside(TENSORS, source, folder / "tensors"),
    }
    converting = {"convert, .pt only": [*convert, "--no-onnx"], "convert, .pt and .onnx": convert}
    return {
        **_in_turn(reading, runs),
        **_in_turn(writing, runs),
        **_in_turn(converting, runs),
    }


def _measure_text(text: Path, runs: int) -> Rows:
    jobs = {
        "read() of the file": _inside(READ, text),
        "read to arrays": _inside(WALK, text),
        "torchfile": _inside(OTHER, text, *TORCHFILE),
        "OpenCV readTorchBlob": _inside(OTHER, text, *OPENCV_TEXT),
    }
    return _in_turn(jobs, runs)


def _inside(code: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def _write_text(path: Path) -> Path:
    """Write a tensor of random weights as Torch7 writes it in text."""
    weights = random.Random(0)
    count = TEXT_NUMBERS
    with path.open("w") as file:
        file.write(f"4\n1\n3\nV 1\n17\ntorch.FloatTensor\n1\n{count}\n1\n1\n")
        file.write(f"4\n2\n3\nV 1\n18\ntorch.FloatStorage\n{count}\n")
        file.write(" ".join(f"{weights.gauss(0, 0.05):.9g}" for _ in range(count)) + "\n")
    return path


def _in_turn(jobs: dict[str, list[str]], runs: int) -> Rows:
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for turn in range(runs + 1):
        for name, command in jobs.items():
            print(f"\r  run {turn} of {runs}: {name:24}", end="", file=sys.stderr, flush=True)
            found = _timed(command)
            if turn:  # the first fills the caches
                taken[name].append(found)
    print(file=sys.stderr)
    return {name: _median(found) for name, found in taken.items()}


def _timed(command: list[str]) -> dict[str, Any]:
    """Run a command; its own time if it prints one, else the whole process's; its peak memory."""
    start = time.perf_counter()
    process = subprocess.Popen(
        ["/usr/bin/env", "time", "-f", "%M", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    printed, errors = process.communicate()
    whole = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors}")
    found: dict[str, Any] = json.loads(printed)
    if "note" in found:
        return found
    return {
        "seconds": found.get("seconds", whole),
        "anonymous": found.get("anonymous", 0.0),
        "peak": int(errors.split()[-1]) / 1024,
    }


def _median(found: list[dict[str, Any]]) -> dict[str, Any]:
    if "note" in found[0]:
        return found[0]
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def _table(name: str, size: int, rows: Rows, runs: int) -> str:
    plain = rows["read() of the file"]["seconds"]
    lines = [
        f"{name}, {size:,} bytes, medians of {runs}",
        f"{'':26}{'seconds':>9}{'MB/s':>8}{'x read()':>10}{'peak MB':>9}{'new, anonymous':>16}",
    ]
    for name, row in rows.items():
        if "note" in row:
            lines.append(f"{name:26}{row['note']}")
            continue
        new = f"{row['anonymous']:.1f} MB" if row["anonymous"] else ""
        seconds = row["seconds"]
        speed, times = size / seconds / 1e6, seconds / plain
        lines.append(
            f"{name:26}{seconds:9.3f}{speed:8,.0f}{times:10.2f}{row['peak']:9.0f}{new:>16}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
