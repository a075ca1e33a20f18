"""A judge on 127.0.0.1 that behaves like an OpenAI-compatible endpoint and fails on request.

It prefers the longer answer, or the first one if both have the same length, so its verdicts are predictable.
`failures` is a list of what the next requests get in place of an answer: a status code, "malformed" (JSON that ends
early), "truncated" (fewer bytes than announced), "html" (a proxy's page), "no choices", "no text", "absurd usage",
"hang" (the reply trickles in for ever), "drop" (the connection is closed). `answered` holds the idempotency keys of
the requests that got a verdict, `requests` all of them. `hold_after` makes it keep requests waiting from then on.
Run by hand: python tests/judge_server.py [PORT]
"""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-a-secret-that-nobody-may-see"
_TEXTS = re.compile(r"<<<ANSWER ([12]) (\w+)>>>\n(.*?)\n<<<END OF ANSWER \1 \2>>>", re.DOTALL)


class JudgeServer:
    """Serves while used as a context manager."""

    def __init__(self, *, key: str | None = None, port: int = 0) -> None:
        self.key = key
        self.failures: list[int | str] = []
        self.retry_after: str | None = "0"
        self.hold_after: int | None = None
        self.requests: list[str] = []
        self.answered: list[str] = []
        self.prompts: list[str] = []
        self.most_at_once = 0
        self._at_once = 0
        self._mutex = threading.Lock()
        self._released = threading.Event()
        handler = type("Handler", (_Handler,), {"judge": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "JudgeServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def begin(self, request_id: str) -> int | str | None:
        """Count a request; the failure it is to get, if any. Waits when requests are held."""
        with self._mutex:
            self.requests.append(request_id)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            failure = self.failures.pop(0) if self.failures else None
            held = failure is None and self.hold_after is not None and len(self.answered) >= self.hold_after
            if failure is None and not held:
                self.answered.append(request_id)
        if held:
            self._released.wait()
            return "drop"
        return failure

    def release(self) -> None:
        """Close the connections of the requests that are held."""
        self._released.set()

    def end(self) -> None:
        with self._mutex:
            self._at_once -= 1

    def hang(self) -> None:
        self._released.wait(0.05)


class _Handler(BaseHTTPRequestHandler):
    judge: JudgeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        failure = self.judge.begin(self.headers.get("Idempotency-Key", ""))
        try:
            self._answer(body, failure)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.judge.end()

    def _answer(self, body: dict[str, Any], failure: int | str | None) -> None:
        said = self.headers.get("Authorization", "")
        if self.judge.key is not None and said != f"Bearer {self.judge.key}":
            self._send(401, {"error": {"message": f"Incorrect API key provided: {said}"}})
        elif failure == "drop":
            self.close_connection = True
        elif failure == "hang":
            self._trickle()
        elif failure == "malformed":
            self._send_bytes(200, b'{"choices": [')
        elif failure == "truncated":
            self._send_truncated(b'{"choices": [{"message": {"content": "One is longer."}}]}')
        elif failure == "html":
            self._send_bytes(200, b"<html><title>Log in to the network</title></html>")
        elif failure == "no choices":
            self._send(200, {"error": {"message": "upstream is busy"}})
        elif failure == "no text":
            self._send(200, {"choices": [{"message": {"content": None}}]})
        elif failure == "absurd usage":
            usage = {"prompt_tokens": -5, "completion_tokens": 10**30}
            content = verdict(body["messages"][-1]["content"])
            self._send(200, {"choices": [{"message": {"content": content}}], "usage": usage})
        elif isinstance(failure, int):
            self._send(failure, {"error": {"message": f"status {failure} for key {said}"}})
        else:
            prompt = body["messages"][-1]["content"]
            self.judge.prompts.append(prompt)
            usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 7}
            self._send(200, {"choices": [{"message": {"content": verdict(prompt)}}], "usage": usage})

    def _trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        for _ in range(400):
            self.wfile.write(b" ")
            self.wfile.flush()
            self.judge.hang()

    def _send_truncated(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + 100))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def _send(self, status: int, content: dict[str, Any]) -> None:
        self._send_bytes(status, json.dumps(content).encode())

    def _send_bytes(self, status: int, content: bytes) -> None:
        self.send_response(status)
        if status == 429 and self.judge.retry_after is not None:
            self.send_header("Retry-After", self.judge.retry_after)
        if 300 <= status < 400:
            self.send_header("Location", f"{self.judge.url}/chat/completions")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def verdict(prompt: str) -> str:
    """The longer answer is better. Scores are the lengths in words, ten at most."""
    texts = {number: text for number, _, text in _TEXTS.findall(prompt)}
    first, second = (0 if texts[number] == "(empty)" else len(texts[number].split()) for number in ("1", "2"))
    if "two numbers" in prompt:
        return f"{min(10, first)} {min(10, second)}\nOne is longer than the other."
    return f"One is longer than the other.\n{1 if first >= second else 2}"


if __name__ == "__main__":
    with JudgeServer(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as served:
        print(served.url, flush=True)
        threading.Event().wait()
