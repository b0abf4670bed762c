"""Looks for a `.params` or a symbol that ends in anything but a value or our error.

    python tests/fuzz/fuzz_mx.py FOLDER [libFuzzer options]

Guided by coverage, until it finds something or is stopped; see fuzz_t7.py for the options and for
what FOLDER keeps. An input that begins as JSON is read as a symbol, every other one as arrays.
"""

import json
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["converters.mx.params", "converters.mx.symbol"]):
    from converters.mx import params, symbol

from models.errors import FormatError  # noqa: E402  # after sys.path
from tests.fuzz.seeds import mxnet_seeds  # noqa: E402
from tests.memory import peak_kb  # noqa: E402

LIMITS = ["-timeout=2", "-rss_limit_mb=8192", "-max_len=8192"]
MAX_GROWTH = 50_000  # kB that one input may add to the process's peak
WORDS = [
    *("nodes", "heads", "attrs", "attr", "param", "op", "name", "inputs", "null", "subgraphs"),
    *("mxnet_version", "int", "arg:", "aux:"),
]


def read(data: bytes) -> None:
    """Read an input, and every number of it."""
    before = peak_kb()
    try:
        if data[:1] in b"{[":
            symbol.read_data(Path("fuzzed-symbol.json"), data)
        else:
            for array in params.read_data(Path("fuzzed.params"), data).arrays.values():
                if array is not None and array.size:
                    array.max()
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
    for number, seed in enumerate(mxnet_seeds()):
        (folder / "seeds" / f"{number:03}").write_bytes(seed)
    (folder / "words").write_text("".join(f"{json.dumps(word)}\n" for word in WORDS))
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
