"""Work for a client who may leave, and who does not wait forever."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from service.problems import Refusal

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed the connection: there is nobody to answer."""


async def answered(request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return what the work gives; it is cancelled when the client leaves, or after so long.

    Args:
        request: Its body has been read whole.
        work: What is done for it.
        seconds: The most that it may take.

    Raises:
        ClientGone: The client left.
        Refusal: It took too long.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientGone
        raise Refusal("timeout", f"there was no answer within {seconds:g} seconds")
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.wait({task, gone})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
