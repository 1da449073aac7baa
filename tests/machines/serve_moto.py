"""Serves moto (nobody's here) on a free port of loopback, and prints the address.

What is added to it:

* `POST /test/call` with {"service", "call", "with"}: any call of boto3, answered as JSON, with a
  body of bytes in base64; this is the test's own hand.
* `POST /test/fault` with {"action", "in", "times", "code", "message"}: the next `times` calls of
  this action whose body has all texts `in` are answered with this error; without a code they are
  held until `POST /test/release`.
* It ends when its standard input does.
* `GET /test/calls`: what the state machines have called, in order: [{"action", "body"}].

What is mended in it. Only the first is by a sentence of AWS's documentation that was read; the
others are how an interpreter has to behave for the machine to be judged at all, and were not
confirmed elsewhere:

* Parameters and results of an integration are in PascalCase, "even if the native service API is in
  camelCase" (Step Functions, *Integrating services*). moto has the code for that, and does not call
  it.
* An execution can be started while another one of the same machine is at work. moto fails to copy
  the machine then.
* The cause of SendTaskFailure is what is caught. moto loses it.
* A path that may match many things gives a list, also of one or none; one that names a single thing
  gives that. moto makes a list of `$[0].body`, and raises where two wildcards match nothing.
"""

import base64
import copy
import functools
import io
import json
import logging
import os
import re
import socket
import sys
import threading
import urllib.parse

import boto3
import botocore.session
from werkzeug.serving import make_server

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(128)
port = listener.getsockname()[1]
os.environ["MOTO_PORT"] = str(port)

from moto.stepfunctions.parser.asl.utils import json_path  # noqa: E402


def extract_json(path, data):
    found = [match.value for match in json_path.parse(path).find(data)]
    if re.search(r"\[\*\]|\.\.|\[\?|\[\d*:\d*\]", path):
        return found
    if not found:
        raise json_path.NoSuchJsonPathError(json_path=path, data=data)
    return found[0]


# Before anything else takes them from there. A client is good for many calls, and takes long to
# make.
json_path.extract_json = extract_json

from moto.stepfunctions.parser.asl.utils import boto_client  # noqa: E402

make_client = functools.lru_cache(boto_client.boto_client_for)
boto_client.boto_client_for = lambda region, service, state_credentials=None: make_client(region, service)

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: E402
from moto.core.responses import EmptyResult  # noqa: E402
from moto.stepfunctions import models as machines, responses  # noqa: E402
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (  # noqa: E402
    state_task_service as services,
)

logging.disable(logging.ERROR)
shapes = botocore.session.get_session()


def shape(task, which):
    model = shapes.get_service_model(task._get_boto_service_name())
    name = task.resource.api_action
    return getattr(model.operation_model(name[0].upper() + name[1:]), which)


def request(self, parameters, boto_service_name=None, service_action_name=None):
    self._to_boto_request(parameters, shape(self, "input_shape"))


def response(self, response, boto_service_name=None, service_action_name=None):
    if response and shape(self, "output_shape"):
        self._from_boto_response(response, shape(self, "output_shape"))


services.StateTaskService._normalise_parameters = request
services.StateTaskService._normalise_response = response



def snapshot(self, memo):
    """The part of its machine that an execution keeps: without the other executions, which
    hold threads and cannot be copied."""
    kept = copy.copy(self)
    kept.executions = []
    return kept


machines.StateMachine.__deepcopy__ = snapshot


def send_task_failure(self):
    token, error, cause = map(self._get_param, ["taskToken", "error", "cause"])
    self.stepfunction_backend.send_task_failure(token, error=error, cause=cause)
    return EmptyResult()


responses.StepFunctionResponse.send_task_failure = send_task_failure

calls, faults, lock, released = [], [], threading.Lock(), threading.Event()


def action_of(environ, body):
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return target.split(".")[-1]
    return urllib.parse.parse_qs(body).get("Action", [""])[0]


def readable(environ, body):
    if environ.get("HTTP_X_AMZ_TARGET"):
        return json.loads(body or "{}")
    return {name: values[0] for name, values in urllib.parse.parse_qs(body).items()}


def fault_for(action, body):
    with lock:
        for fault in faults:
            if fault["action"] == action and all(word in body for word in fault["in"]) and fault["times"] > 0:
                fault["times"] -= 1
                return fault
    return None


def refuse(environ, start_response, fault):
    if environ.get("HTTP_X_AMZ_TARGET"):
        start_response("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", "r")])
        return [json.dumps({"__type": fault["code"], "message": fault["message"]}).encode()]
    start_response("500 Internal Server Error", [("Content-Type", "text/xml")])
    text = "<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>r</RequestID></Response>"
    return [text.format(fault["code"], fault["message"]).encode()]


def answer(start_response, value):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(value, default=str).encode()]


@functools.lru_cache
def client_of(service):
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def hand(wanted):
    client = client_of(wanted["service"])
    given = wanted.get("with", {})
    if "Body" in given:
        given["Body"] = base64.b64decode(given["Body"])
    try:
        done = getattr(client, wanted["call"])(**given)
        done.pop("ResponseMetadata", None)
        return done
    except Exception as error:  # The test reads it.
        return {"refused": f"{type(error).__name__}: {error}"}


class Watched:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        text = body.decode(errors="replace")
        path = environ.get("PATH_INFO", "")
        if path == "/test/calls":
            with lock:
                return answer(start_response, list(calls))
        if path == "/test/call":
            return answer(start_response, hand(json.loads(text)))
        if path == "/test/release":
            released.set()
            return answer(start_response, {})
        if path == "/test/fault":
            with lock:
                faults.append(json.loads(text))
            return answer(start_response, {})
        # The state machines' own clients sign with this key.
        if re.search(r"Credential=ak/", environ.get("HTTP_AUTHORIZATION", "")):
            action = action_of(environ, text)
            with lock:
                calls.append({"action": action, "body": readable(environ, text)})
            fault = fault_for(action, text)
            if fault:
                if "code" in fault:
                    return refuse(environ, start_response, fault)
                released.wait(60)
        return self.app(environ, start_response)


def end_with_the_test():
    while sys.stdin.read(1):
        pass
    os._exit(0)


threading.Thread(target=end_with_the_test, daemon=True).start()
server = make_server(
    "127.0.0.1", port, Watched(DomainDispatcherApplication(create_backend_app)), threaded=True, fd=listener.detach()
)
print(f"http://127.0.0.1:{port}", flush=True)
server.serve_forever()
