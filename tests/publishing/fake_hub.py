"""The Hub's API, as far as publishing a dataset asks for it, in this process and on the loopback interface."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TOKEN = "hf_of_the_tests"


@dataclass
class Hub:
    """What the Hub holds, and what was asked of it."""

    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Uploaded, by sha256; part of no commit until one names them."""
    commits: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    fail_uploads_after: int | None = None
    refuse_commits: bool = False
    address: str = ""

    def sha(self, dataset: str) -> str:
        content = json.dumps({path: hashlib.sha256(data).hexdigest() for path, data in self.datasets[dataset].items()})
        return hashlib.sha1(content.encode()).hexdigest()


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that answers until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        held = hub

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield hub
        server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    held: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status >= 400:
            self.send_header("X-Error-Message", str(content.get("error", "")))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        self.handle_one("GET")

    def do_POST(self) -> None:
        self.handle_one("POST")

    def do_PUT(self) -> None:
        self.handle_one("PUT")

    def handle_one(self, verb: str) -> None:
        hub, body = self.held, self.body()
        path = self.path.split("?", 1)[0]
        hub.asked.append(f"{verb} {path}")
        if path.startswith("/upload/"):
            self.upload(path.rsplit("/", 1)[-1], body)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid username or password."})
        elif path == "/api/whoami-v2":
            self.answer(200, {"name": "somebody", "type": "user", "orgs": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        else:
            self.of_dataset(path, body)

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if name in self.held.datasets:
            self.answer(409, {"error": "You already created this dataset repo", "url": f"{self.held.address}/{name}"})
            return
        self.held.datasets[name] = {".gitattributes": b"*.parquet filter=lfs\n"}
        self.held.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.answer(200, {"url": f"{self.held.address}/datasets/{name}"})

    def upload(self, oid: str, body: bytes) -> None:
        hub = self.held
        if hub.fail_uploads_after is not None and len(hub.uploads) >= hub.fail_uploads_after:
            self.answer(403, {"error": "the upload is cut off"})
            return
        assert hashlib.sha256(body).hexdigest() == oid
        hub.blobs[oid] = body
        hub.uploads.append(oid)
        self.answer(200, {})

    def of_dataset(self, path: str, body: bytes) -> None:
        parts = path.removeprefix("/api").removeprefix("/datasets/").split("/")
        name = f"{parts[0]}/{parts[1].removesuffix('.git')}"
        rest = parts[2:]
        if name not in self.held.datasets:
            self.answer(404, {"error": "Repository not found"})
            return
        files = self.held.datasets[name]
        match rest:
            case [] | ["revision", _]:
                self.answer(200, {"id": name, "sha": self.held.sha(name), "siblings": [], "private": True, "tags": []})
            case ["tree", *_]:
                self.answer(
                    200, [{"type": "file", "path": one, "size": len(data), "oid": "0"} for one, data in files.items()]
                )
            case ["preupload", _]:
                asked = json.loads(body)["files"]
                modes = [
                    {
                        "path": one["path"],
                        "uploadMode": "regular" if one["path"].endswith(".md") else "lfs",
                        "shouldIgnore": False,
                        "oid": _oid(files.get(one["path"]), one["path"]),
                    }
                    for one in asked
                ]
                self.answer(200, {"files": modes})
            case ["info", "lfs", "objects", "batch"]:
                self.answer(200, {"objects": [self.to_upload(one) for one in json.loads(body)["objects"]]})
            case ["commit", _]:
                self.commit(name, body)
            case _:
                self.answer(404, {"error": f"no such thing: {path}"})

    def to_upload(self, one: dict[str, Any]) -> dict[str, Any]:
        found = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] in self.held.blobs:
            return found
        return {**found, "actions": {"upload": {"href": f"{self.held.address}/upload/{one['oid']}"}}}

    def commit(self, name: str, body: bytes) -> None:
        hub = self.held
        if hub.refuse_commits:
            self.answer(403, {"error": "you may not write here"})
            return
        lines = [json.loads(line) for line in body.splitlines() if line]
        new = dict(hub.datasets[name])
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    if value.get("parentCommit") != hub.sha(name):
                        self.answer(412, {"error": "a commit has happened since"})
                        return
                case "file":
                    new[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    new[value["path"]] = hub.blobs[value["oid"]]
                case "deletedFile":
                    del new[value["path"]]
        hub.datasets[name] = new
        hub.commits.append(hub.sha(name))
        where = f"{hub.address}/datasets/{name}/commit/{hub.sha(name)}"
        self.answer(200, {"success": True, "commitOid": hub.sha(name), "commitUrl": where})


def _oid(data: bytes | None, path: str) -> str | None:
    """What the Hub tells a file by: git's hash, or of a large one its sha256."""
    if data is None:
        return None
    if path.endswith(".md"):
        return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    return hashlib.sha256(data).hexdigest()
