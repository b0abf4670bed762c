"""The artifacts that are served, kept up with their files while the service runs."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from models.errors import ArtifactError, LegacyModelError
from models.terminal import described
from service.pipeline import Observer
from service.problems import Refusal
from service.served import Served, give_back_memory
from service.settings import Settings, artifacts, conversion

LOG = logging.getLogger("relume")


class Stamp(NamedTuple):
    """What tells a file's versions apart without reading it."""

    inode: int
    size: int
    modified_ns: int


class Catalog:
    """Every artifact of a folder, or one file: loaded, checked, and replaced when it changes.

    A file that changed is loaded, checked and warmed up beside the old one; then requests go to the
    new one, and the old one ends when those inside it are answered. A file that cannot be served is
    said so once, and the old one goes on. Use it as `async with Catalog(...) as catalog`.
    """

    def __init__(
        self,
        settings: Settings,
        decoders: ThreadPoolExecutor,
        observe: Callable[[Served], Observer],
    ) -> None:
        self._settings = settings
        self._decoders = decoders
        self._observe = observe
        self._served: dict[Path, Served] = {}
        self._is_folder = settings.source.is_dir()
        self._seen: dict[Path, Stamp | None] = {}  # None: could not be looked at
        self._told: set[Path] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Load what there is.

        Raises:
            LegacyModelError: Nothing could be loaded; it is the first file's error.
        """
        failed = await self._update(artifacts(self._settings.source), logging.DEBUG)
        if not self._served:
            raise failed[0]
        for error in failed:
            LOG.error("not served: %s", error)
        if self._settings.default_model and not self._named(self._settings.default_model):
            raise ArtifactError(
                f"CLASSIFY_DEFAULT_MODEL: found {self._settings.default_model!r}, expected one of "
                f"{', '.join(served.name for served in self.served)}"
            )
        if self._settings.reload_s:
            self._watch = asyncio.create_task(self._watching())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Answer whoever is inside, then end."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        going = list(self._served.values())
        self._served = {}
        await asyncio.gather(*(served.pipeline.close() for served in going), *self._closing)

    @property
    def served(self) -> list[Served]:
        """What is served, by name, the newest version of each first."""
        return sorted(self._served.values(), key=lambda one: (one.name, -one.modified, one.version))

    def find(self, wanted: str = "") -> Served:
        """Return the model of a name, or of `name@version`; without one, the only or default model.

        Raises:
            Refusal: There is none, or several and none was named.
        """
        self.require()
        wanted = wanted or self._settings.default_model
        if wanted:
            if found := self._named(wanted):
                return found[0]
            raise Refusal("model-not-found", f"no model {wanted!r}: {self._names()}")
        if len({served.name for served in self.served}) > 1:
            raise Refusal("model-required", f"?model=NAME is needed: {self._names()}")
        return self.served[0]

    def require(self) -> None:
        """Refuse when there is nothing to ask.

        Raises:
            Refusal: No model is ready.
        """
        if not self._served:
            raise Refusal("not-ready", "no model is ready: ask again in a moment")

    def _names(self) -> str:
        names = dict.fromkeys(served.name for served in self.served)
        return f"there are {', '.join(names)}" if len(names) > 1 else f"there is {', '.join(names)}"

    def _named(self, wanted: str) -> list[Served]:
        name, at, version = wanted.partition("@")
        named = [served for served in self.served if served.name == name]
        return [one for one in named if version in (one.version, one.sha256)] if at else named

    async def _watching(self) -> None:
        while True:
            await asyncio.sleep(self._settings.reload_s)
            try:
                await self._look()
            except Exception:  # the next look is made all the same
                LOG.exception("failed on looking for models")

    async def _look(self) -> None:
        """Take up what has changed; while the folder is away, nothing has."""
        files = await asyncio.to_thread(_found, self._settings.source, self._is_folder)
        if files is not None:
            for error in await self._update(files, logging.INFO):
                LOG.error("not served: %s", error)

    async def _update(self, files: list[Path], level: int) -> list[LegacyModelError]:
        """Load what is new or has changed, and let go of what is gone; return what failed."""
        failed = []
        await asyncio.to_thread(self._tell_of_checkpoints)
        for path in files:
            stamp = await asyncio.to_thread(_stamp, path)
            if path in self._seen and self._seen[path] == stamp:
                continue
            self._seen[path] = stamp
            try:
                served = await asyncio.to_thread(_loaded, path, stamp, self._settings)
            except LegacyModelError as error:
                failed.append(error)
            else:
                LOG.log(level, "serving %s@%s: %s", served.name, served.version, served.checked)
                self._switch(path, served)
        for path in set(self._seen) - set(files):
            del self._seen[path]
            self._switch(path, None)
        return failed

    def _switch(self, path: Path, new: Served | None) -> None:
        if new is not None:
            new.open(self._settings.queue, self._decoders, self._observe(new))
        old = self._served.pop(path, None)
        if new is not None:
            self._served[path] = new
        if old is not None:
            LOG.info("no longer serving %s@%s", old.name, old.version)
            task = asyncio.create_task(_end(old))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _tell_of_checkpoints(self) -> None:
        """Name files that have to be converted first, each once."""
        folder = self._settings.source
        there = {file for file in folder.iterdir()} if folder.is_dir() else set()
        for file in sorted(there - self._told):
            cure = conversion(file)
            if cure is not None and not _converted(file).exists():
                LOG.warning("%s: the service runs .onnx: %s", file, cure)
        self._told = there


async def _end(served: Served) -> None:
    """Let a model answer whom it let in, then let go of it and of its memory."""
    await served.pipeline.close()
    del served
    await asyncio.to_thread(give_back_memory)


def _found(source: Path, is_folder: bool) -> list[Path] | None:
    """Return the artifacts there are; None while their folder is away."""
    if is_folder and not source.is_dir():
        return None
    try:
        return artifacts(source)
    except ArtifactError:  # the folder is empty
        return []
    except OSError:
        return None


def _loaded(path: Path, stamp: Stamp | None, settings: Settings) -> Served:
    """Return what an artifact makes of images.

    Raises:
        LegacyModelError: It cannot be served, whatever keeps it from that: no other may suffer. Or
            it is not the file of that stamp any more.
    """
    try:
        served = Served(path, settings)
        if _stamp(path) != stamp:  # its digest may be another's
            raise ArtifactError(f"{path}: was changed while it was read: rename a whole file to it")
        return served
    except OSError as error:
        raise ArtifactError(described(error)) from error
    except (MemoryError, RecursionError) as error:
        raise ArtifactError(f"{path}: cannot be loaded: {str(error) or 'out of memory'}") from error


def _converted(file: Path) -> Path:
    """Return where the .onnx of a checkpoint would be."""
    stem = file.name.split(".t7")[0].split(".params")[0].removesuffix(".pt")
    return file.with_name(f"{stem.removesuffix('.safetensors')}.onnx")


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
