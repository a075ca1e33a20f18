"""`web`: the workbench in a browser of this machine, through textual-serve."""

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def register(app: typer.Typer) -> None:
    app.command()(web)


def web(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Whoever reaches it can do what you can, so it stays on this machine."),
    ] = "127.0.0.1",
) -> None:
    """Serve the workbench to a browser, on this machine only unless --host says otherwise. Ctrl-C ends it."""
    from qlora_tui.errors import EnvironmentProblem, StorageError

    try:
        import textual_serve.server
    except ImportError as error:
        raise EnvironmentProblem(
            "the package textual-serve is not installed", hint="pip install 'qlora-tui[web]'"
        ) from error
    if host not in _LOOPBACK:
        narrate(f"warning: everybody who reaches {host} can use this machine as you; there is no password")
    command = shlex.join([sys.executable, "-m", "qlora_tui.ui"])
    try:
        _server(textual_serve.server.Server)(command, host=host, port=port, title="qlora-tui").serve()
    except OSError as error:
        raise StorageError(
            f"cannot listen on {host}, port {port}: {error.strerror}", hint="Choose another one with --port."
        ) from error


def _server(base: Any) -> Any:
    """The package's server, which answers nobody but its own page and says one line of its own."""

    class Server(base):  # type: ignore[misc]
        async def _make_app(self) -> Any:
            app = await super()._make_app()
            app.middlewares.append(_own_page_only(self.host, self.port))
            return app

        async def on_startup(self, app: Any) -> None:
            narrate(f"the workbench is at {self.public_url}; Ctrl-C ends it, and runs go on")

    return Server


def _own_page_only(host: str, port: int) -> "Callable[[Any, Any], Awaitable[Any]]":
    """Refuses other sites: a page of theirs in the same browser could reach a server of this machine too."""
    from aiohttp import web as http

    names = {host, *(_LOOPBACK if host in _LOOPBACK else ())}
    allowed = {f"{'[' + name + ']' if ':' in name else name}:{port}" for name in names}

    @http.middleware
    async def check(request: Any, handler: Any) -> Any:
        origin = request.headers.get("Origin")
        site = origin.removeprefix("http://") if origin else None
        if host in _LOOPBACK and (request.host not in allowed or site not in (None, *allowed)):
            raise http.HTTPForbidden(text="only the page of this server is answered")
        if host not in _LOOPBACK and site not in (None, request.host):
            raise http.HTTPForbidden(text="only the page of this server is answered")
        return await handler(request)

    return check
