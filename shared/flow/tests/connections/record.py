"""Records what promptflow makes of connections' documents.

python3 -m venv v && v/bin/pip install promptflow==1.18.5 && v/bin/python record.py >
promptflow.json
"""

import json
import pathlib
import sys
import tempfile

DOCUMENTS = {
    "azure_open_ai": "name: c\ntype: azure_open_ai\napi_key: k-1\napi_base: https://a.example\n",
    "azure_open_ai with all keys": "$schema: https://s.example\nname: c\ntype: azure_open_ai\napi_key: k\napi_base: b\napi_type: azure\n"
    'api_version: "2023-07-01-preview"\nauth_mode: key\nresource_id: r\n',
    "azure_open_ai without a key": "name: c\ntype: azure_open_ai\nauth_mode: meid_token\napi_base: https://a.example\n",
    "azure_open_ai with a key that it does not use": "name: c\ntype: azure_open_ai\nauth_mode: meid_token\napi_key: k\napi_base: b\n",
    "open_ai": "$schema: https://s.example\nname: c\ntype: open_ai\napi_key: k-1\norganization: ''\n",
    "open_ai with base_url": "name: c\ntype: open_ai\napi_key: k-1\nbase_url: http://b\n",
    "open_ai with an unknown key": "name: c\ntype: open_ai\napi_key: k\nbase_ulr: x\n",
    "serverless": "name: c\ntype: serverless\napi_key: k-1\napi_base: https://s\n",
    "serp": "name: c\ntype: serp\napi_key: k-1\n",
    "qdrant": "name: c\ntype: qdrant\napi_key: k-1\napi_base: b\n",
    "weaviate": "name: c\ntype: weaviate\napi_key: k-1\napi_base: b\n",
    "cognitive_search": "name: c\ntype: cognitive_search\napi_key: k-1\napi_base: b\n",
    "azure_ai_services": "name: c\ntype: azure_ai_services\napi_key: k-1\nendpoint: b\n",
    "azure_content_safety": "name: c\ntype: azure_content_safety\napi_key: k-1\nendpoint: b\n",
    "form_recognizer": "name: c\ntype: form_recognizer\napi_key: k-1\nendpoint: b\n",
    "custom": "name: c\ntype: custom\nconfigs:\n  a: x\nsecrets:\n  s: k\n",
    "custom without configs": "name: c\ntype: custom\nsecrets:\n  s: k\n",
    "custom strong type": "name: c\ntype: custom\ncustom_type: MyConnection\nmodule: recorded_package\npackage: p\npackage_version: 0.0.1\n"
    "configs:\n  api_base: x\nsecrets:\n  api_key: k\n",
    "bad: no api_base": "name: c\ntype: azure_open_ai\napi_key: k\n",
    "bad: no endpoint": "name: c\ntype: form_recognizer\napi_key: k\n",
    "bad: a number for text": "name: c\ntype: open_ai\napi_key: k\norganization: 1\n",
    "bad: a number for a secret": "name: c\ntype: open_ai\napi_key: 123\n",
    "bad: nothing for text": "name: c\ntype: open_ai\napi_key: k\norganization:\n",
    "bad: no secrets": "name: c\ntype: custom\nconfigs:\n  a: x\n",
    "bad: a number in configs": "name: c\ntype: custom\nconfigs:\n  a: 1\nsecrets:\n  s: k\n",
    "bad: no package of a strong type": "name: c\ntype: custom\ncustom_type: MyConnection\nmodule: recorded_package\nsecrets:\n  api_key: k\n",
    "bad: no type": "name: c\napi_key: k\n",
    "bad: no such type": "name: c\ntype: open_aii\napi_key: k\n",
    "bad: the type of a class": "name: c\ntype: OpenAI\napi_key: k\n",
    "bad: no such auth_mode": "name: c\ntype: azure_open_ai\napi_key: k\nauth_mode: token\napi_base: b\n",
}

PACKAGE = """
from promptflow.core._connection import CustomStrongTypeConnection
from promptflow.contracts.types import Secret
class MyConnection(CustomStrongTypeConnection):
    api_key: Secret
    api_base: str
"""


def main():
    from promptflow._sdk._load_functions import load_connection

    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "recorded_package.py").write_text(PACKAGE)
    sys.path.insert(0, str(folder))
    recorded = []
    for name, text in DOCUMENTS.items():
        (folder / "connection.yml").write_text(text)
        entry = {"name": name, "document": text}
        try:
            connection = load_connection(source=folder / "connection.yml")
            entry["executor"] = connection._to_execution_connection_dict()
            # As the command line gets it back, with its secrets scrubbed.
            connection.secrets = {key: "******" for key in connection.secrets}
            entry["shown"] = connection._to_dict()
        except Exception as error:
            entry["refused"] = type(error).__name__
        recorded.append(entry)
    json.dump(recorded, sys.stdout, indent=1)
    print()


main()
