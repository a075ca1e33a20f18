"""`web`: the workbench in a browser of this machine, through textual-serve."""

import hmac
import logging
import re
import secrets
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
        typer.Option(
            help="Address to listen on. Anyone with the printed URL can use this machine with your permissions."
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve the workbench to a browser on this machine.

    Press Ctrl-C to stop.     Open the printed URL. Its random token is needed once and is then stored in a cookie.
    """
    from qlora_tui.errors import EnvironmentProblem, StorageError

    try:
        import textual_serve.server
    except ImportError as error:
        raise EnvironmentProblem(
            "the package textual-serve is not installed", hint="pip install 'qlora-tui[web]'"
        ) from error
    if host not in _LOOPBACK:
        narrate(
            f"warning: the connection to {host} is not encrypted; "
            "anyone who can read the traffic can use this machine as you"
        )
    command = shlex.join([sys.executable, "-m", "qlora_tui.ui"])
    try:
        _server(textual_serve.server.Server)(command, host=host, port=port, title="qlora-tui").serve()
    except OSError as error:
        raise StorageError(
            f"cannot listen on {host}, port {port}: {error.strerror}", hint="Choose another one with --port."
        ) from error


def _server(base: Any) -> Any:
    """The package's server, restricted to clients with the token and to its own page."""

    class Server(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.token = secrets.token_urlsafe(32)
            self.cookie = f"qlora-tui-{self.port}"

        def initialize_logging(self) -> None:
            """Do not log requests: the log lines would contain the token."""
            logging.basicConfig(level=logging.WARNING)

        @property
        def address(self) -> str:
            """The URL to open."""
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"http://{host}:{self.port}/?enter={self.token}"

        async def _make_app(self) -> Any:
            app = await super()._make_app()
            app.middlewares.append(_guard(self))
            return app

        async def handle_index(self, request: Any) -> Any:
            response = await super().handle_index(request)
            nonce = secrets.token_urlsafe(16)
            response.text = _page(response.text, self.public_url, request.host, nonce)
            response.headers.update(_headers(request.host, nonce))
            return response

        async def handle_websocket(self, request: Any) -> Any:
            from aiohttp import web as http

            if not http.WebSocketResponse().can_prepare(request).ok:
                raise http.HTTPUpgradeRequired(text="only WebSocket connections are accepted here")
            return await super().handle_websocket(request)

        async def on_startup(self, app: Any) -> None:
            narrate(f"the workbench is at {self.address}\nPress Ctrl-C to stop it; runs continue")

    return Server


_FOCUS = """
<script nonce="{nonce}">
  // Keys reach the terminal without a click, and again when the window is back in front.
  const focusTerminal = () => document.querySelector(".xterm-helper-textarea")?.focus();
  window.addEventListener("focus", focusTerminal);
  document.addEventListener("DOMContentLoaded", () => {{
    document.querySelectorAll("button").forEach((button) => button.addEventListener("click", refresh));
    new MutationObserver((_, observer) => {{
      focusTerminal();
      if (document.body.classList.contains("-first-byte")) observer.disconnect();
    }}).observe(document.body, {{childList: true, subtree: true, attributes: true, attributeFilter: ["class"]}});
  }});
</script>
</head>"""


def _page(text: str, public_url: str, host: str, nonce: str) -> str:
    """Return the package's page without external requests, with a content security policy for this host."""
    text = re.sub(r"<link\s[^>]*https://[^>]*>", "", text)
    text = text.replace("<script>", f'<script nonce="{nonce}">').replace(' onClick="refresh()"', "")
    site = public_url.partition("://")[2]
    text = text.replace(f"//{site}/", f"//{host}/")
    return text.replace("</head>", _FOCUS.format(nonce=nonce), 1)


def _headers(host: str, nonce: str) -> dict[str, str]:
    policy = (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
        f"img-src 'self' data:; font-src 'self' data:; connect-src 'self' ws://{host}; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return {"Content-Security-Policy": policy, "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}


def _guard(server: Any) -> "Callable[[Any, Any], Awaitable[Any]]":
    """Reject other sites and clients without the token: other users and pages can reach this port too."""
    from aiohttp import web as http

    check_site = _own_page_only(server.host, server.port)

    def known(text: str | None) -> bool:
        return text is not None and hmac.compare_digest(text.encode("utf-8", "replace"), server.token.encode())

    @http.middleware
    async def check(request: Any, handler: Any) -> Any:
        check_site(request)
        if request.path == "/" and known(request.query.get("enter")):
            response = http.HTTPSeeOther("/")
            response.set_cookie(server.cookie, server.token, httponly=True, samesite="Strict", path="/")
            raise response
        if not known(request.cookies.get(server.cookie)):
            raise http.HTTPForbidden(text="open the URL printed by `qlora-tui web`")
        response = await handler(request)
        if not response.prepared:
            response.headers.setdefault("X-Frame-Options", "DENY")
            response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    return check


def _own_page_only(host: str, port: int) -> "Callable[[Any], None]":
    """Refuses other sites: a page of theirs in the same browser could reach a server of this machine too."""
    from aiohttp import web as http

    names = {host, *(_LOOPBACK if host in _LOOPBACK else ())}
    allowed = {f"{'[' + name + ']' if ':' in name else name}:{port}" for name in names}

    def check(request: Any) -> None:
        origin = request.headers.get("Origin")
        site = origin.removeprefix("http://") if origin else None
        if host in _LOOPBACK and (request.host not in allowed or site not in (None, *allowed)):
            raise http.HTTPForbidden(text="only the page of this server is answered")
        if host not in _LOOPBACK and site not in (None, request.host):
            raise http.HTTPForbidden(text="only the page of this server is answered")

    return check
