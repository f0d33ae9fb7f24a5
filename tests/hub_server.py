"""A server on loopback that answers as the API of the Hugging Face Hub does, for the tests of repositories."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["HubServer", "Repository"]

TOKEN = "hf_accepted"


@dataclass
class Repository:
    """A repository and the commits that its main branch had.

    Args:
        files: Content of each file of the main branch, by name.
        gated: Whether only requests with :data:`TOKEN` may read the files.
        private: Whether only requests with :data:`TOKEN` can see the repository.
        licence: Identifier of the licence.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    licence: str = "mit"
    earlier: dict[str, dict[str, bytes]] = field(default_factory=dict, init=False)
    """Files of earlier commits."""

    def move_main(self, files: dict[str, bytes]) -> None:
        """Replace the files of the main branch; the present commit remains available."""
        self.earlier[self.commit], self.files = self.files, files

    def get_files(self, revision: str) -> dict[str, bytes] | None:
        """Return the files of a branch or commit; None if it does not exist."""
        return self.files if revision in ("", "main", self.commit) else self.earlier.get(revision)

    @property
    def commit(self) -> str:
        """Hash of the present files."""
        content = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.files.items())
        return hashlib.sha1(repr(content).encode()).hexdigest()


def describe_large_file(data: bytes) -> dict[str, Any]:
    """Return what the Hub states of a file in large file storage."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}


class HubServer:
    """The server.

    Args:
        repositories: Repositories by name; tests may change them while the server is running.
    """

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.requests: list[str] = []
        self.limits: dict[str, int] = {}
        """Number of bytes after which the next download of a file breaks off, by file name."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, has_body=False)

            def do_GET(self) -> None:
                hub.answer(self, has_body=True)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the server; later requests are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler, *, has_body: bool) -> None:
        """Answer one request with the status codes and headers of the Hub."""
        path = unquote(urlsplit(handler.path).path)
        self.requests.append(f"{handler.command} {path}")
        status, headers, body = self._find(path, handler.headers.get("authorization") or "")
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if has_body:
            handler.wfile.write(body[: self.limits.pop(path.rpartition("/")[2], len(body))])

    def _find(self, path: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        is_api = path.startswith("/api/models/")
        name = path.removeprefix("/api/models" if is_api else "").strip("/")
        for marker in ("/revision/", "/resolve/", "/auth-check"):
            name = name.partition(marker)[0]
        repository = self.repositories.get(name)
        is_accepted = authorization == f"Bearer {TOKEN}"
        if authorization and not is_accepted:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b""
        if repository is None or (repository.private and not is_accepted):
            return (404, {"X-Error-Code": "RepoNotFound"}, b"") if authorization else (401, {}, b"")
        denied = (403 if authorization else 401, {"X-Error-Code": "GatedRepo"}, b"")
        if is_api and path.endswith("/auth-check"):
            return denied if repository.gated and not is_accepted else (200, {}, b"{}")
        if is_api:
            revision = path.partition("/revision/")[2]
            files = repository.get_files(revision)
            if files is None:
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            siblings = [
                {"rfilename": file, "size": len(data)}
                | ({"lfs": describe_large_file(data)} if file.endswith(".safetensors") else {})
                for file, data in files.items()
            ]
            gated = "manual" if repository.gated else False
            commit = revision if revision in repository.earlier else repository.commit
            info = {"id": name, "sha": commit, "private": repository.private, "gated": gated}
            info["tags"] = [f"license:{repository.licence}"]
            return 200, {"Content-Type": "application/json"}, json.dumps({**info, "siblings": siblings}).encode()
        if repository.gated and not is_accepted:
            return denied
        revision, _, file_name = path.partition("/resolve/")[2].partition("/")
        content = (repository.get_files(revision) or {}).get(file_name)
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        etag = hashlib.sha256(content).hexdigest()
        commit = revision if revision in repository.earlier else repository.commit
        return (
            200,
            {"ETag": f'"{etag}"', "X-Repo-Commit": commit},
            content,
        )
