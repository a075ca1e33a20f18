"""`qlora-tui web`: on this machine only, answering its own page only."""

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
    app = await web._server(Server)("true", host="127.0.0.1", port=8000)._make_app()
    async with TestClient(TestServer(app)) as client:
        for path in ("/", "/ws") if status == 403 else ("/",):
            assert (await client.get(path, headers=headers)).status == status, path


def test_it_listens_on_this_machine_only_unless_told(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: list[str] = []
    monkeypatch.setattr(Server, "serve", lambda self: hosts.append(f"{self.host}:{self.port}"))
    assert "everybody" not in command("web").err
    assert "everybody who reaches 0.0.0.0" in command("web", "--host", "0.0.0.0", "--port", "80").err
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
