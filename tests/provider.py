"""A model provider for tests, on loopback: OpenAI's and Azure OpenAI's chat, completion and
embedding.

    python3 provider.py KEY

It prints its address, then a line of JSON for each request. It answers with what it was asked,
streamed if that is wanted; where JSON is wanted with the last JSON object of what it was asked, or
one of the names there; where five tokens are the most with a number; where it may call a function
with a call of the first one. A model or a deployment that is called `busy-N` is turned away with
429 the first N times. Any other key than KEY is refused.
"""

import http.server
import json
import re
import sys
import threading

KEY = sys.argv[1]
turned_away, lock = {}, threading.Lock()


def text_of(content):
    """A message's content is a text, or a list of parts."""
    return content if isinstance(content, str) else " ".join(part.get("text", part["type"]) for part in content)


def reply(body, asked):
    """The answer of a model."""
    texts = [text_of(message.get("content") or "") for message in body.get("messages", [])]
    if (body.get("response_format") or {}).get("type") == "json_object" or "json" in "".join(texts).lower():
        text = "\n".join(texts)
        if found := last_object(text):
            return found
        if "response_format" in body:
            return json.dumps({name: "echo" for name in re.findall(r'"(\w+)":', text)} or {"echo": asked})
    return "3" if body.get("max_tokens") in (1, 2, 3, 4, 5) else f"echo: {asked}"


def last_object(text):
    """The last JSON object in a text, as it stands there."""
    start = text.rfind("{")
    while start >= 0:
        try:
            value, length = json.JSONDecoder().raw_decode(text[start:])
            if value:
                return text[start : start + length]
        except ValueError:
            pass
        start = text.rfind("{", 0, start)
    return None


def call(function):
    """A call of a function, with a value for each argument that it requires."""
    about = function.get("parameters") or {}
    values = {name: sample(about["properties"][name]) for name in about.get("required", [])}
    return {"name": function["name"], "arguments": json.dumps(values)}


def sample(about):
    return about["enum"][0] if "enum" in about else {"integer": 3, "number": 0.5, "boolean": True}.get(about.get("type"), "echo")


def message(body, text):
    """A message of the model: a call of a function if it may, or a text."""
    is_asked = body["messages"][-1]["role"] == "user"
    if is_asked and body.get("tools") and body.get("tool_choice") != "none":
        calls = [{"id": "call-1", "type": "function", "function": call(body["tools"][0]["function"])}]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    if is_asked and body.get("functions") and body.get("function_call") != "none":
        return {"role": "assistant", "content": None, "function_call": call(body["functions"][0])}
    return {"role": "assistant", "content": text}


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
            text = reply(body, text_of(body["messages"][-1]["content"]))
            self.complete(body, model, "chat.completion", text, lambda text: {"message": message(body, text)})
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
            return self.answer(200, {**head, "choices": [{"index": at, "finish_reason": "stop", **choice(text)} for at in range(body.get("n") or 1)], "usage": usage})
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
