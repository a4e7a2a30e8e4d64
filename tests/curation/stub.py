"""A server on 127.0.0.1 that speaks as much of the chat API as the tests need, well or badly, and keeps what it was sent."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server does with one request: wait, then send a status, headers and a body, or less of it than the headers say."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0


Behave = Callable[[int, dict[str, Any]], Answer]
"""From the number of a request, counted from 0, and its body to what happens."""


class Stub:
    """Runs in a thread until it is stopped."""

    def __init__(self, behave: Behave) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with stub._lock:
                    number = len(stub.bodies)
                    stub.bodies.append(body)
                    stub.headers.append(dict(self.headers))
                answer = behave(number, json.loads(body))
                stub._over.wait(answer.wait_s)
                try:
                    self.send_response(answer.status)
                    for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer.body)
                except OSError:
                    self.close_connection = True  # the client did not wait

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    def stop(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def said(text: str, tokens: tuple[int, int] = (100, 20)) -> Answer:
    """A chat completion with this content."""
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    body = {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}
    return Answer(body=json.dumps(body).encode())


def talk(*exchanges: Sequence[str]) -> Answer:
    """A chat completion with these questions and answers."""
    turns = [{"question": question, "answer": answer} for question, answer in exchanges]
    return said(json.dumps({"turns": turns}))


def facts_of(request: dict[str, Any]) -> str:
    """The facts that a request is about: its last message."""
    return request["messages"][-1]["content"]


def well(number: int, request: dict[str, Any]) -> Answer:
    """A true reply of its own for each picture and kind."""
    del number
    first, kind = facts_of(request).splitlines()[0], request["messages"][0]["content"][-300:]
    return talk(("What can be seen?", f"{first} That is all there is to say {abs(hash_of(kind))}."))


def hash_of(text: str) -> int:
    """The same number for the same text in every process."""
    return sum(ord(letter) * place for place, letter in enumerate(text, start=1)) % 9973
