"""A hub on 127.0.0.1 that serves folders: repos/{datasets,models}/owner/name, a revision beside it as name@revision.

It answers what huggingface_hub and datasets ask for: search by name, repository info, tree, paths-info, refs, and file
contents with etags, ranges and, for large-file suffixes, the redirect to a storage address. `requests` holds every
request line.
Run by hand: python tests/hub_server.py FOLDER [PORT]
"""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import constants

LARGE_SUFFIXES = {".parquet", ".safetensors", ".bin", ".gz", ".zst", ".arrow"}
KINDS = ("models", "datasets")


class HubServer:
    """Serves `folder` while used as a context manager. `gated` names repositories that are refused."""

    def __init__(self, folder: Path, *, gated: tuple[str, ...] = (), port: int = 0) -> None:
        self.folder = folder
        self.gated = gated
        self.requests: list[str] = []
        self.sent_bytes = 0
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def file_requests(self) -> list[str]:
        """Requests that fetched the content of a data file."""
        return [
            line for line in self.requests if line.startswith("GET") and ("/resolve/" in line or "/storage/" in line)
        ]

    def be_found(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Be the hub of this process' hub library, which keeps what it fetches in `cache`, and count anew."""
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        self.requests.clear()
        self.sent_bytes = 0

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def repository(self, kind: str, repo_id: str, revision: str) -> Path | None:
        """Folder of a repository at a revision: a branch name, or a commit of one."""
        home = self.folder / kind / repo_id
        if not home.is_dir():
            return None
        slug = revision.replace("/", "--")
        branches = [home, *sorted(home.parent.glob(home.name + "@*"))]
        if revision == "main":
            return home
        for branch in branches:
            if branch.name == f"{home.name}@{slug}" or commit(branch) == revision:
                return branch
        return None


def files_of(branch: Path) -> dict[str, Path]:
    return {path.relative_to(branch).as_posix(): path for path in sorted(branch.rglob("*")) if path.is_file()}


def commit(branch: Path) -> str:
    digest = hashlib.sha1()
    for name, path in files_of(branch).items():
        digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


def _is_large(path: Path) -> bool:
    return path.suffix in LARGE_SUFFIXES


def _etag(path: Path) -> str:
    content = path.read_bytes()
    if _is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _large(path: Path) -> dict[str, Any]:
    return {"lfs": {"oid": _etag(path), "sha256": _etag(path), "size": path.stat().st_size, "pointerSize": 130}}


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.hub.requests.append(f"{self.command} {unquote(self.path)}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        steps = [unquote(step) for step in parts.path.strip("/").split("/")]
        query = parse_qs(parts.query)
        if steps[0] == "storage":
            path = self.hub.folder.joinpath(*steps[1:])
            branch = self.hub.folder.joinpath(*steps[1:4])
            # On one address the client follows the redirect itself and reads the commit from where it ends.
            self._content(path, {"X-Repo-Commit": commit(branch)})
        elif steps[0] == "api" and len(steps) == 2 and steps[1] in KINDS:
            self._json(self._search(steps[1], query.get("search", [""])[0], int(query.get("limit", ["1000"])[0])))
        elif steps[0] == "api" and len(steps) >= 4 and steps[1] in KINDS:
            self._api(steps[1], "/".join(steps[2:4]), steps[4:], query, body)
        else:
            kind = "datasets" if steps[0] == "datasets" else "models"
            rest = steps[1:] if steps[0] in KINDS else steps
            if len(rest) >= 5 and rest[2] in {"resolve", "raw"}:
                self._resolve(kind, "/".join(rest[:2]), rest[3], "/".join(rest[4:]))
            else:
                self._error(404, "EntryNotFound", "no such page")

    def _api(self, kind: str, repo_id: str, steps: list[str], query: dict[str, list[str]], body: bytes) -> None:
        action = steps[0] if steps else "revision"
        revision = steps[1] if len(steps) > 1 else "main"
        branch = self._branch(kind, repo_id, revision)
        if branch is None:
            return
        if action == "revision":
            self._json(_info(kind, repo_id, branch, gated=repo_id in self.hub.gated))
        elif action == "tree":
            self._json(_tree(branch, "/".join(steps[2:]), recursive=query.get("recursive", [""])[0].lower() == "true"))
        elif action == "paths-info":
            form = parse_qs(body.decode())
            wanted = form.get("paths") or json.loads(body or b"{}").get("paths", [])
            self._json([entry for entry in _tree(branch, "", recursive=True) if entry["path"] in wanted])
        elif action == "refs":
            head = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit(branch)}
            self._json({"branches": [head], "converts": [], "tags": []})
        else:
            self._error(404, "EntryNotFound", f"no {action}")

    def _search(self, kind: str, text: str, limit: int) -> list[dict[str, Any]]:
        homes = sorted(home for home in (self.hub.folder / kind).glob("*/*") if "@" not in home.name)
        named = {f"{home.parent.name}/{home.name}": home for home in homes}
        matches = [repo_id for repo_id in named if text.lower() in repo_id.lower()][:limit]
        return [_info(kind, repo_id, named[repo_id], gated=repo_id in self.hub.gated) for repo_id in matches]

    def _branch(self, kind: str, repo_id: str, revision: str) -> Path | None:
        if self.hub.repository(kind, repo_id, "main") is None:
            self._error(404, "RepoNotFound", "Repository not found")
            return None
        branch = self.hub.repository(kind, repo_id, revision)
        if branch is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return branch

    def _resolve(self, kind: str, repo_id: str, revision: str, name: str) -> None:
        branch = self._branch(kind, repo_id, revision)
        if branch is None:
            return
        path = files_of(branch).get(name)
        headers = {"X-Repo-Commit": commit(branch)}
        if repo_id in self.hub.gated:
            self._error(403, "GatedRepo", "Access is restricted")
        elif path is None:
            self._error(404, "EntryNotFound", "Entry not found", headers)
        elif _is_large(path):
            address = f"{self.hub.url}/storage/{path.relative_to(self.hub.folder).as_posix()}"
            size = str(path.stat().st_size)
            linked = {"X-Linked-Size": size, "X-Linked-Etag": f'"{_etag(path)}"', "Location": address}
            self._send(302, b"", {**headers, **linked})
        else:
            self._content(path, headers)

    def _content(self, path: Path, headers: dict[str, str]) -> None:
        if not path.is_file():
            self._error(404, "EntryNotFound", "Entry not found")
            return
        content = path.read_bytes()
        described = {**headers, "ETag": f'"{_etag(path)}"', "Accept-Ranges": "bytes"}
        span = self.headers.get("Range", "")
        if span.startswith("bytes="):
            first, _, last = span.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(content) - int(last))
            stop = min(int(last), len(content) - 1) if first and last else len(content) - 1
            described["Content-Range"] = f"bytes {start}-{stop}/{len(content)}"
            self._send(206, content[start : stop + 1], described)
        else:
            self._send(200, content, described)

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        described = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self._send(status, json.dumps({"error": message}).encode(), {**described, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.hub.sent_bytes += len(body)


def _info(kind: str, repo_id: str, branch: Path, *, gated: bool) -> dict[str, Any]:
    siblings = [
        {"rfilename": name, "size": path.stat().st_size, "blobId": _etag(path)[:40]}
        | (_large(path) if _is_large(path) else {})
        for name, path in files_of(branch).items()
    ]
    return {
        "_id": "0" * 24,
        "id": repo_id,
        ("modelId" if kind == "models" else "datasetId"): repo_id,
        "author": repo_id.partition("/")[0],
        "sha": commit(branch),
        "lastModified": "2024-01-01T00:00:00.000Z",
        "createdAt": "2024-01-01T00:00:00.000Z",
        "private": False,
        "disabled": False,
        "gated": "manual" if gated else False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "config": _config(branch),
        "siblings": siblings,
    }


def _config(branch: Path) -> dict[str, Any]:
    """The part of config.json that the hub itself reads."""
    file = branch / "config.json"
    known = json.loads(file.read_bytes()) if file.is_file() else {}
    return {key: known[key] for key in ("architectures", "model_type", "quantization_config") if key in known}


def _tree(branch: Path, inside: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{inside}/" if inside else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, path in files_of(branch).items():
        if not name.startswith(prefix):
            continue
        steps = name.removeprefix(prefix).split("/")
        for depth in range(1, len(steps)):
            folder = prefix + "/".join(steps[:depth])
            entries.setdefault(folder, {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0})
        file = {"type": "file", "path": name, "oid": _etag(path)[:40], "size": path.stat().st_size}
        entries[name] = file | (_large(path) if _is_large(path) else {})
    return [entry for name, entry in sorted(entries.items()) if recursive or "/" not in name.removeprefix(prefix)]


if __name__ == "__main__":
    with HubServer(Path(sys.argv[1]), port=int(sys.argv[2]) if len(sys.argv) > 2 else 0) as served:
        print(served.url, flush=True)
        threading.Event().wait()
