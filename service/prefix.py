"""What is asked for, wherever the service is mounted: under a path of Ray Serve's, or of a proxy.

Source: the ASGI specification's `root_path`: the prefix is a part of `path`, too.
"""

from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send


def path_of(scope: Scope) -> str:
    """Return the path behind the prefix; it is empty where the prefix itself is asked for."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    behind = path.removeprefix(prefix)
    return behind if not behind or behind.startswith("/") else path


class Prefix:
    """Sends who asks for the prefix alone to the page: links from there would miss it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, unless it lacks the slash behind a prefix."""
        if scope["type"] != "http" or not scope["path"] or path_of(scope):
            await self._app(scope, receive, send)
            return
        # Relative, because a Host header is whatever the client says.
        location = f"./{quote(scope['path'].rpartition('/')[2])}/".encode()
        headers = [(b"location", location), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 307, "headers": headers})
        await send({"type": "http.response.body"})
