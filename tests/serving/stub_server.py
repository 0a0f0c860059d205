"""A server that speaks what `longreach serve` speaks to its page, without a model. A token is a word.

What is asked decides what happens: `[say]words` is answered by these words, `[slow]` by many, slowly, `[hold]` after a while, `[break]` not
to the end, `[fault]` by an error in the stream; all else by `MARKDOWN`.
"""

import json
import re
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import longreach
from longreach.conversation.reply import Omitted, Receipt

PAGE = Path(longreach.__file__).parent / "serving" / "page"
CARD = Path(__file__).with_name("card.json")
TYPES = {"index.html": "text/html", "page.js": "text/javascript", "page.css": "text/css"}
WINDOW, TRAINED = 400, 200
MARKDOWN = "Three things — naïve, 文字 and 🙂.\n\n- one `a<b`\n- **two**\n\n```py\nprint('<b>')\n```\n\nThat is all."


class RefusedError(Exception):
    """Status, message and code of a refusal, and the field that it is about."""


class Stub(ThreadingHTTPServer):
    """Serves at `url`. `asked` are the chats that it was sent, `refuse` is how it takes the next one, `go` ends what is on hold."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files, self.asked, self.refuse, self.key = {}, [], None, None
        self.card = json.loads(CARD.read_text())
        self.go = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def model(self):
        profiles = [{"method": "", "window": TRAINED}, {"method": "self_extend:neighbours=64,group=4", "window": WINDOW}]
        own = {"window": WINDOW, "trained_window": TRAINED, "profiles": profiles, "method": profiles[1]["method"], "template": "chat"}
        return {"id": "stub-135m", "object": "model", "longreach": {**own, "card": self.card}}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version: ClassVar = "HTTP/1.1"

    def log_message(self, *args):
        """Write nothing to stderr."""

    def do_GET(self):
        name = self.path.lstrip("/") or "index.html"
        if name in TYPES:
            headers = {"Content-Type": f"{TYPES[name]}; charset=utf-8", "Content-Security-Policy": "default-src 'self'"}
            self.reply(200, (PAGE / name).read_bytes(), headers)
        else:
            self.answer(self.got)

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        with suppress(ConnectionError):  # the page has gone away, or stopped the answer
            self.answer({"/v1/chat/completions": self.chat, "/v1/files": self.file, "/tokenize": self.tokenize}[self.path])

    def do_DELETE(self):
        self.answer(lambda: {"id": self.server.files.pop(self.path.rpartition("/")[2])["id"], "deleted": True})

    def answer(self, act):
        try:
            if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
                raise RefusedError(401, "Incorrect API key provided.", "invalid_api_key")
            found = act()
        except RefusedError as error:
            status, message, code, *param = error.args
            told = {"error": {"message": message, "type": "invalid_request_error", "param": param[0] if param else None, "code": code}}
            self.reply(status, json.dumps(told).encode(), {"Retry-After": "3"} if status == 429 else {})
        else:
            if found is not None:
                self.reply(200, json.dumps(found).encode())

    def reply(self, status, data, headers=None):
        self.send_response_only(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def got(self):
        if self.path == "/v1/models":
            return {"object": "list", "data": [self.server.model()]}
        if self.path == "/v1/files":
            return {"object": "list", "data": [described(each) for each in self.server.files.values()]}
        found = self.server.files.get(self.path.rpartition("/")[2])
        if found is None:
            raise RefusedError(404, "No such file.", "not_found")
        return described(found)

    def file(self):
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        part = next(each for each in self.body.split(b"--" + boundary) if b'name="file"' in each)
        head, _, data = part.partition(b"\r\n\r\n")
        text, name = data.removesuffix(b"\r\n").decode(), re.search(rb'filename="([^"]*)"', head)[1].decode()
        found = {"id": f"file-{len(self.server.files)}", "filename": name, "text": text, "longreach": {"tokens": len(text.split())}}
        self.server.files[found["id"]] = found
        return described(found)

    def tokenize(self):
        words = json.loads(self.body)["prompt"].split()
        return {"count": len(words), "max_model_len": WINDOW, "tokens": list(range(len(words)))}

    def chat(self):
        asked = json.loads(self.body)
        self.server.asked.append(asked)
        texts, files = [], []
        for message in asked["messages"]:
            parts = message["content"] if isinstance(message["content"], list) else [{"type": "text", "text": message["content"] or ""}]
            texts += [part["text"] for part in parts if part["type"] == "text"]
            files += [self.server.files[part["file"]["file_id"]] for part in parts if part["type"] == "file"]
        if self.server.refuse:
            refused, self.server.refuse = self.server.refuse, None
            raise refused
        own, talk = asked["longreach"], sum(len(text.split()) for text in texts)
        prompt = talk + sum(each["longreach"]["tokens"] for each in files)
        read = ledger(own["read"], files) if files and own.get("read") and prompt > WINDOW else None
        if prompt > WINDOW and not read and not own.get("overflow"):
            said = f"This model's maximum context length is {WINDOW} tokens. However, you requested {prompt} tokens."
            raise RefusedError(400, f"{said} (longreach.overflow: whole_turns leaves out turns)", "context_length_exceeded")
        self.stream(asked, texts[-1], talk if read else prompt, read)

    def stream(self, asked, said, prompt, read):
        self.send_response_only(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for done in range(0, prompt, max(1, prompt // 3)):
            self.event({"choices": [], "longreach": {"progress": {"stage": "reading", "done": done, "total": prompt}}})
        if "[hold]" in said:
            self.server.go.wait(10)
        if "[fault]" in said:
            self.event({"error": {"message": "The model ran out of memory.", "code": "server_error"}})
            return
        words = written(said, asked.get("min_tokens", 1), asked.get("max_tokens"))
        for number, word in enumerate(words):
            self.event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            time.sleep(0.02 if "[slow]" in said else 0)
            if "[break]" in said and number == 3:
                return
        finish = "length" if len(words) == asked.get("max_tokens") else "stop"
        own = {"profile": "", "window": WINDOW, "reused": prompt // 2, "receipt": receipt(asked, prompt), "ledger": read}
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
        self.event({"choices": [], "usage": usage, "longreach": own})
        self.write(b"data: [DONE]\n\n")

    def event(self, chunk):
        self.write(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())

    def write(self, data):
        """In pieces that split characters, as a network may."""
        for begin in range(0, len(data), 41):
            self.wfile.write(data[begin : begin + 41])
            self.wfile.flush()


def described(file):
    return {name: file[name] for name in ("id", "filename", "longreach")}


def written(said, least, most):
    """The words of an answer, again and again where it has to be longer."""
    if "[slow]" in said:
        return [f" word{number}." for number in range(10_000)]
    words = re.findall(r"\s*\S+", said.partition("[say]")[2].strip() or MARKDOWN)
    return (words * -(-least // len(words)))[:most]


def receipt(asked, prompt):
    left_out = (Omitted(turn=1, role="user", tokens=300), Omitted(turn=1, role="assistant", tokens=25)) if prompt > WINDOW else ()
    return asdict(Receipt(policy=asked["longreach"].get("overflow", "refuse"), left_out=left_out, system_tokens=3))


def ledger(workflow, files):
    """As a reading workflow keeps it: of each document the first and the third quarter are read, and a place of the third is support."""
    spans = {"read": [], "unread": [], "support": []}
    for document, file in enumerate(files):
        quarter = len(file["text"]) // 4
        for kind, start, end in (
            ("read", 0, quarter), ("unread", quarter, 2 * quarter), ("read", 2 * quarter, 3 * quarter),
            ("unread", 3 * quarter, len(file["text"])), ("support", 2 * quarter + 50, 2 * quarter + 150),
        ):  # fmt: skip
            spans[kind].append({"document": document, "start": start, "end": end, "excerpt": file["text"][start : min(end, start + 160)]})
    calls = [
        {"number": 1, "role": "map", "read": 900, "written": 40, "cut": True},
        {"number": 2, "role": "answer", "read": 90, "written": 9},
    ]
    return {
        "workflow": workflow, "exact": True, "documents": [{"name": each["filename"], "characters": len(each["text"])} for each in files],
        **spans, "cost": {"calls": 2, "read": 990, "written": 49}, "replayed": 0, "cut": 1, "stopped": "", "calls": calls,
    }  # fmt: skip
