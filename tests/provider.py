"""A model provider for tests, on loopback: OpenAI's and Azure OpenAI's chat, completion and embedding.

    python3 provider.py KEY

It prints its address, then a line of JSON for each request. It answers with what it was asked, streamed if that is wanted. A model or a
deployment that is called `busy-N` is turned away with 429 the first N times. Any other key than KEY is refused.
"""

import http.server
import json
import sys
import threading

KEY = sys.argv[1]
turned_away, lock = {}, threading.Lock()


def text_of(content):
    """A message's content is a text, or a list of parts."""
    return content if isinstance(content, str) else " ".join(part.get("text", part["type"]) for part in content)


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        parts = self.path.partition("?")[0].strip("/").split("/")
        model = parts[parts.index("deployments") + 1] if "deployments" in parts else body.get("model", "")
        key = self.headers.get("api-key") or (self.headers.get("authorization") or "").removeprefix("Bearer ")
        is_azure = "deployments" in parts
        print(json.dumps({"path": self.path, "model": model, "is_azure": is_azure, "has_key": key == KEY}), flush=True)
        if key != KEY:
            return self.answer(401, {"error": {"message": "Access denied.", "code": "401"}})
        if model.startswith("busy-") and self.turn_away(model):
            return self.answer(429, {"error": {"message": "Too many requests.", "code": "429"}}, {"retry-after-ms": "20"})
        kind = "/".join(parts[-2:]) if parts[-2:] == ["chat", "completions"] else parts[-1]
        if kind == "chat/completions":
            asked = text_of(body["messages"][-1]["content"])
            self.complete(body, model, "chat.completion", f"echo: {asked}", lambda text: {"message": {"role": "assistant", "content": text}})
        elif kind == "completions":
            self.complete(body, model, "text_completion", f"echo: {body['prompt']}", lambda text: {"text": text})
        elif kind == "embeddings":
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            data = [{"object": "embedding", "index": at, "embedding": [float(len(text)), 0.5]} for at, text in enumerate(texts)]
            self.answer(200, {"object": "list", "model": model, "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}})
        else:
            self.answer(404, {"error": {"message": f"There is no {self.path}.", "code": "404"}})

    def turn_away(self, model):
        with lock:
            turned_away[model] = turned_away.get(model, 0) + 1
            return turned_away[model] <= int(model.removeprefix("busy-"))

    def complete(self, body, model, kind, text, choice):
        head = {"id": "c-1", "object": kind, "created": 1, "model": model}
        if not body.get("stream"):
            usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
            return self.answer(200, {**head, "choices": [{"index": 0, "finish_reason": "stop", **choice(text)}], "usage": usage})
        if kind == "chat.completion":
            head["object"] = "chat.completion.chunk"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for piece in text.split(" "):
            part = {"delta": {"role": "assistant", "content": piece + " "}} if "chat" in kind else {"text": piece + " "}
            self.wfile.write(f"data: {json.dumps({**head, 'choices': [{'index': 0, 'finish_reason': None, **part}]})}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def answer(self, status, value, headers=()):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-type": "application/json", "content-length": str(len(data)), **dict(headers)}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
