"""Has moto interpret state machines; left alone, it only remembers that they were started."""
import json
import os
import urllib.request

request = urllib.request.Request(
    os.environ["AWS_ENDPOINT_URL"] + "/moto-api/config",
    data=json.dumps({"stepfunctions": {"execute_state_machine": True}}).encode(),
    headers={"content-type": "application/json"},
)
# Its answer does not say what it has taken; that a step comes does.
urllib.request.urlopen(request).close()
