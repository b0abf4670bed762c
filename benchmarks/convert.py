"""What reading and converting cost, next to a plain `read()` of the same file.

    python benchmarks/convert.py irv2.t7 [-n 5] [--json]

Every figure is the median of n runs in processes of their own, reading and converting each taken
in turn, so that a slow minute of the machine hits all that is compared. Walking, copying and
writing the tensors are timed inside their processes (starting Python is none of these); the others
are whole commands. A copy is on the disk when it is done, as everything that relume writes.
Anonymous memory is what a
process holds besides files that it maps: RssAnon of /proc/self/status, before and after. Needs
Linux and GNU time.
"""

import argparse
import json
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
found = write_tensors(source, source, target)
print(json.dumps({"seconds": time.perf_counter() - start, "names": len(found.names)}))
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time reading and converting a .t7 file.")
    parser.add_argument("source", type=Path, help="an unpacked .t7 file")
    parser.add_argument("-n", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    source = given.source.resolve()
    with tempfile.TemporaryDirectory() as folder:
        rows = _measure(source, Path(folder), given.n)
    if given.json:
        print(json.dumps({"source": source.name, "bytes": source.stat().st_size, "rows": rows}))
    else:
        print(_table(source, rows, given.n))
    return 0


def _measure(source: Path, folder: Path, runs: int) -> dict[str, dict[str, float]]:
    relume = [sys.executable, "-m", "relume"]
    convert = [*relume, "convert", str(source), "-o", str(folder), "--force", "--json"]
    reading = {
        "read() of the file": [sys.executable, "-c", READ, str(source)],
        "walk to views": [sys.executable, "-c", WALK, str(source)],
        "relume inspect": [*relume, "inspect", str(source), "--json"],
        "relume inspect, a table": [*relume, "inspect", str(source)],
    }
    copies = {
        "copy of the file": [sys.executable, "-c", COPY, str(source), str(folder / "copy")],
        "tensors alone": [sys.executable, "-c", TENSORS, str(source), str(folder / "tensors")],
    }
    converting = {"convert, .pt only": [*convert, "--no-onnx"], "convert, .pt and .onnx": convert}
    return {
        name: row
        for jobs in (reading, copies, converting)
        for name, row in _in_turn(jobs, runs).items()
    }


def _in_turn(jobs: dict[str, list[str]], runs: int) -> dict[str, dict[str, float]]:
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
    for turn in range(runs + 1):
        for name, command in jobs.items():
            print(f"\r  run {turn} of {runs}: {name:24}", end="", file=sys.stderr, flush=True)
            found = _timed(command)
            if turn:  # the first fills the caches
                taken[name].append(found)
    print(file=sys.stderr)
    return {name: _median(found) for name, found in taken.items()}


def _timed(command: list[str]) -> dict[str, float]:
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
    found: dict[str, Any] = json.loads(printed) if printed.startswith("{") else {}
    return {
        "seconds": found.get("seconds", whole),
        "anonymous": found.get("anonymous", 0.0),
        "peak": int(errors.split()[-1]) / 1024,
    }


def _median(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def _table(source: Path, rows: dict[str, dict[str, float]], runs: int) -> str:
    plain = rows["read() of the file"]["seconds"]
    lines = [
        f"{source.name}, {source.stat().st_size:,} bytes, medians of {runs}",
        f"{'':26}{'seconds':>9}{'x read()':>10}{'peak MB':>10}{'of it new, anonymous':>22}",
    ]
    for name, row in rows.items():
        new = f"{row['anonymous']:.1f} MB" if row["anonymous"] else ""
        times = row["seconds"] / plain
        lines.append(f"{name:26}{row['seconds']:9.3f}{times:10.2f}{row['peak']:10.0f}{new:>22}")
    times = rows["tensors alone"]["seconds"] / rows["copy of the file"]["seconds"]
    lines.append(f"the tensors alone take {times:.2f} times as long as a copy of the file")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
