"""`qlora-tui web`: on this machine only, answering its own page only."""

import re
import sys

import pytest
from aiohttp.test_utils import TestClient, TestServer
from command_line import Cli, command
from textual_serve.server import Server

from qlora_tui.cli import web

__all__ = ["command"]
OWN = "127.0.0.1:8000"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": OWN}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": OWN, "Origin": "https://evil.example"}, 403),
        ({"Host": OWN, "Origin": "http://127.0.0.1:9999"}, 403),
        ({"Host": "evil.example:8000"}, 403),
    ],
)
async def test_another_site_is_refused(headers: dict[str, str], status: int) -> None:
    """A page of another site can send requests to this machine, under its own name or one that resolves to us."""
    server = web._server(Server)("true", host="127.0.0.1", port=8000)
    headers = {**headers, "Cookie": f"{server.cookie}={server.token}"}
    async with TestClient(TestServer(await server._make_app())) as client:
        for path in ("/", "/ws") if status == 403 else ("/",):
            assert (await client.get(path, headers=headers)).status == status, path


async def test_only_clients_with_the_token_are_answered() -> None:
    """Page, WebSocket, static files and downloads: another user of this machine reaches the port too."""
    server = web._server(Server)("true", host="127.0.0.1", port=8000)
    async with TestClient(TestServer(await server._make_app())) as client:
        cookies = [f"{server.cookie}=wrong", f"{server.cookie}=\udcff", "other=1"]
        wrong = [{"Host": OWN}, *({"Host": OWN, "Cookie": cookie} for cookie in cookies)]
        for path in ("/", "/ws", "/static/js/textual.js", "/download/1", "/?enter=wrong", "/ws?enter=" + server.token):
            for headers in wrong:
                assert (await client.get(path, headers=headers)).status == 403, path
        entered = await client.get(f"/?enter={server.token}", headers={"Host": OWN}, allow_redirects=False)
        assert (entered.status, entered.headers["Location"]) == (303, "/")
        cookie = entered.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        own = {"Host": OWN, "Cookie": cookie.partition(";")[0]}
        assert (await client.get("/static/js/textual.js", headers=own)).status == 200
        async with client.ws_connect("/ws", headers=own):
            pass
    assert server.token != web._server(Server)("true", host="127.0.0.1", port=8000).token


async def test_the_printed_url_opens_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    """The token is not redacted from the printed URL."""
    server = web._server(Server)("true", host="127.0.0.1", port=8000)
    async with TestClient(TestServer(await server._make_app())) as client:
        said = capsys.readouterr().err
        assert server.address in said
        query = server.address.partition(":8000")[2]
        assert (await client.get(query, headers={"Host": OWN}, allow_redirects=False)).status == 303


@pytest.mark.parametrize("headers", [{}, {"Upgrade": "websocket"}, {"Upgrade": "h2c", "Connection": "Upgrade"}])
async def test_plain_request_to_the_websocket_is_refused(
    headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    server = web._server(Server)("true", host="127.0.0.1", port=8000)
    async with TestClient(TestServer(await server._make_app())) as client:
        own = {"Host": OWN, "Cookie": f"{server.cookie}={server.token}"}
        response = await client.get("/ws", headers=own | headers)
        assert (response.status, "WebSocket" in await response.text()) == (426, True)
    assert caplog.records == []


@pytest.mark.parametrize("host", [OWN, "localhost:8000"])
async def test_page_loads_no_external_resources_and_cannot_be_framed(host: str) -> None:
    server = web._server(Server)("true", host="127.0.0.1", port=8000)
    async with TestClient(TestServer(await server._make_app())) as client:
        headers = {"Host": host, "Cookie": f"{server.cookie}={server.token}"}
        response = await client.get("/", headers=headers)
        text, policy = await response.text(), response.headers["Content-Security-Policy"]
        static = await client.get("/static/css/xterm.css", headers=headers)
    assert "https://" not in text and "onClick" not in text
    assert f'data-session-websocket-url="ws://{host}/ws"' in text
    assert {url for url in re.findall(r"//[\w.:]+/", text) if host not in url} <= {"//www.w3.org/"}
    assert "xterm-helper-textarea" in text, "the terminal has the focus without a click"
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert nonce and text.count("<script>") == 0 and text.count(nonce) == 2
    for said in ("default-src 'none'", "frame-ancestors 'none'", f"ws://{host}"):
        assert said in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    assert response.headers["X-Frame-Options"] == static.headers["X-Frame-Options"] == "DENY"


def test_listens_only_on_this_machine_by_default(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: list[str] = []
    monkeypatch.setattr(Server, "serve", lambda self: hosts.append(f"{self.host}:{self.port}"))
    assert "not encrypted" not in command("web").err
    assert "the connection to 0.0.0.0 is not encrypted" in command("web", "--host", "0.0.0.0", "--port", "80").err
    assert hosts == ["127.0.0.1:8000", "0.0.0.0:80"]


def test_without_the_package_it_says_how_to_get_it(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual_serve.server", None)
    result = command("web")
    assert result.code == 12
    assert "qlora-tui[web]" in result.err


def test_a_taken_port_is_said(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(self: Server) -> None:
        raise OSError(98, "address already in use")

    monkeypatch.setattr(Server, "serve", taken)
    result = command("web")
    assert result.code == 11
    assert "--port" in result.err and "already in use" in result.err
