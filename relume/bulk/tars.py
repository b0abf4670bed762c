"""Images within tar files, such as WebDataset's shards: each is one part, read from end to end."""

import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

from models.decoding import PREFIX, refuse_others
from models.errors import ImageError, ImageTooLarge
from relume.bulk.parts import failing
from relume.bulk.places import opened
from relume.images import MAX_BYTES, SUFFIXES, Image

ENDINGS = (".tar", ".tar.gz", ".tgz")
MAX_MEMBER = 1 << 40  # bytes; tarfile would look for the end of more for hours
MAX_HEADER = 1 << 20  # bytes of the headers that extend another one; names take some hundred
_EXTENDING = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
# tarfile takes numbers of extended headers as they are: ValueError for what is none.
_DAMAGED = (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error)


@dataclass(frozen=True)
class Members:
    """The images of a tar; of its members, those that are files and end like an image."""

    name: str
    size: int
    remote = False

    def images(self) -> Iterator[Image]:
        """Yield the images; where the tar is damaged, a last one that says so."""
        at, seen = 0, Counter[str]()
        try:
            with (
                opened(self.name) as file,
                tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as tar,
            ):
                for member in tar:
                    at = member.offset
                    _refuse_impossible(member)
                    if member.isfile() and member.name.lower().endswith(SUFFIXES):
                        yield self._image(tar, member, seen)
        except _DAMAGED as error:
            why = f"damaged behind the member at byte {at:,} ({error}): nothing more can be read"
            yield failing(self.name, ImageError(why))

    def _image(self, tar: tarfile.TarFile, member: tarfile.TarInfo, seen: Counter[str]) -> Image:
        seen[member.name] += 1
        again = f"#{seen[member.name]}" if seen[member.name] > 1 else ""
        name = f"{self.name}/{member.name}{again}"
        if member.size > MAX_BYTES:
            why = f"found {member.size:,} bytes, expected at most {MAX_BYTES:,} of an image"
            return failing(name, ImageTooLarge(why))
        content = tar.extractfile(member)
        try:
            data = content.read(PREFIX) if content else b""
            refuse_others(data, member.size)
            data += content.read() if content else b""
        except ImageError as error:
            return failing(name, error)
        except _DAMAGED as error:
            return failing(name, ImageError(f"the tar ends within it ({error})"))
        return Image(name, partial(bytes, data))


def _refuse_impossible(member: tarfile.TarInfo) -> None:
    """Raise ReadError for numbers with which tarfile would go on for ever."""
    if not 0 <= member.size <= MAX_MEMBER:
        raise tarfile.ReadError(f"a member of {member.size:,} bytes")
    end, pieces = 0, cast("list[tuple[int, int]]", member.sparse or [])
    for offset, length in pieces:
        if not end <= offset <= offset + length <= member.size:
            raise tarfile.ReadError("a sparse member's map is not in order")
        end = offset + length


class _Member(tarfile.TarInfo):
    """A header of a tar; a damaged one is an error, where tarfile takes it for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """Return the header in the bytes of a block."""
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the mark of the end
            raise tarfile.ReadError(str(error)) from error
        if member.type in _EXTENDING and member.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member
