"""Looks for a `.t7` that ends in anything but a value or our error, guided by coverage.

    python tests/fuzz/fuzz_t7.py FOLDER [libFuzzer options]

Runs until it finds something or is stopped; `-max_total_time=3600` ends it after an hour, `-runs=N`
after N inputs. FOLDER keeps the inputs that reached new code, so that a later run goes on from
there, and what was found, `crash-*` or `timeout-*`, of which a test is to be made. Needs atheris,
which is in the extra `dev`.
"""

import json
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["converters.t7"]):
    from converters.t7 import reader
    from converters.t7.objects import (
        STORAGE_CLASSES,
        TENSOR_CLASSES,
        Storage,
        Tensor,
        walk,
    )

from models.errors import FormatError  # noqa: E402  # after sys.path
from tests.fuzz.seeds import seeds  # noqa: E402
from tests.memory import peak_kb  # noqa: E402

# Seconds for an input; the fuzzer itself grows by a GB in some hours.
LIMITS = ["-timeout=2", "-rss_limit_mb=8192", "-max_len=4096"]
MAX_GROWTH = 50_000  # kB that one input may add to the process's peak


def read(data: bytes) -> None:
    """Read an input, and every number of it."""
    before = peak_kb()
    try:
        for found in walk(reader.read_data(Path("fuzzed.t7"), data)):
            if isinstance(found, (Storage, Tensor)):
                found.array().max(initial=0)
    except FormatError:
        pass
    if peak_kb() - before > MAX_GROWTH:
        raise MemoryError(f"an input of {len(data):,} bytes took more than {MAX_GROWTH:,} kB")


def main() -> None:
    """Prepare the folder and fuzz."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    for name in ("corpus", "seeds"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (folder / "seeds" / f"{number:03}.t7").write_bytes(seed)
    words = [*STORAGE_CLASSES, *TENSOR_CLASSES, "V 1", "nn.GPU", "nn.DataParallelTable"]
    (folder / "words").write_text("".join(f"{json.dumps(word)}\n" for word in words))
    atheris.Setup(
        [
            sys.argv[0],
            f"-dict={folder / 'words'}",
            f"-artifact_prefix={folder}/",
            *LIMITS,
            *sys.argv[2:],
            str(folder / "corpus"),
            str(folder / "seeds"),
        ],
        read,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
