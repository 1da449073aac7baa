"""The connections of one run, in the memory of its process alone.

The supervisor sends them as a file in memory, which process 1 of the sandbox hands on without
reading it.
"""

import json
import os
import re

from .wrong import first_line


def take(message, descriptor):
    """Reads what the supervisor gave for this run alone, and closes it."""
    text = b""
    # By place, as the processes of a run share the descriptor and its offset.
    while part := os.pread(descriptor, 1 << 20, len(text)):
        text += part
    os.close(descriptor)
    given = json.loads(text)
    message["connections"] = given["connections"]
    wish = message["wish"]
    wish["environment_variables"] = {**(wish.get("environment_variables") or {}), **given["variables"]}


class Missing(Exception):
    """A name in a flow that is not there."""

    def __init__(self, name, message):
        super().__init__(message)
        self.failure = {"error": name, "message": message}


def missing(name, known):
    there = f"; there are {', '.join(sorted(known))}" if known else ""
    return Missing("Connection.None", f"there is no connection {name!r}, which the flow names{there}")


# By which of its variables a process has an identity of Microsoft Entra: a principal's own, a
# workload's, and a platform's.
IDENTITIES = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "MSI_ENDPOINT")
NO_TOKEN = "Connection.NoToken"


class Tokens:
    """The tokens of a connection without a key, by the identity that the run's variables give."""

    def __init__(self, name):
        self.name = name

    def get_token(self):
        if not any(os.environ.get(variable) for variable in IDENTITIES):
            # Looking for one elsewhere takes a minute, and nothing of the machine is there.
            raise self.missing("none of the run's variables names one")
        try:
            from promptflow._core.token_provider import AzureTokenProvider

            return AzureTokenProvider().get_token()
        except Exception as error:  # noqa: BLE001
            raise self.missing(first_line(error).rstrip(".")) from error

    def missing(self, why):
        # An LLM node's own error has the text of this one in it.
        return Missing(
            NO_TOKEN,
            f"{NO_TOKEN}: the connection {self.name!r} has no key (auth_mode: meid_token), and the run has no identity of Microsoft Entra to ask for a "
            f"token with: {why}. Give the run the variables AZURE_TENANT_ID, AZURE_CLIENT_ID and, as a secret, AZURE_CLIENT_SECRET, "
            "or give the connection a key",
        )


def resolve(variables, connections):
    """Environment variables with what `${connection.key}` stands for."""
    resolved = {}
    for variable, value in variables.items():
        match = re.fullmatch(r"\$\{([^.{}]+)\.([^.{}]+)\}", value.strip()) if isinstance(value, str) else None
        if match:
            name, key = match.groups()
            if name not in connections:
                raise missing(name, connections)
            values = connections[name]["value"]
            if key not in values:
                raise Missing(
                    "Connection.NoSuchKey",
                    f"the connection {name!r} has no {key!r}, which the environment variable {variable} names; it has {', '.join(sorted(values))}",
                )
            value = values[key]
        resolved[variable] = value
    return resolved


def provide(connections):
    """Has promptflow find these connections, by whatever way a flow asks for one. Returns the
    provider for its executor."""
    from promptflow.connections import ConnectionProvider
    from promptflow.core._connection_provider._dict_connection_provider import DictConnectionProvider
    from promptflow.core._errors import ConnectionNotFound

    class NotThere(ConnectionNotFound):
        """As code of a flow may expect it, with our own failure in it."""

        def __init__(self, name):
            self.failure = missing(name, connections).failure
            super().__init__(self.failure["message"])

    class Provider(DictConnectionProvider):
        """Makes each connection when it is asked for: one whose package is not installed harms no
        flow that does not use it."""

        def __init__(self):
            self._connections_dict, self._connections = connections, {}

        def get(self, name, **_):
            if not isinstance(name, str):
                return name
            if name not in connections:
                raise NotThere(name)
            if name not in self._connections:
                self._connections.update(self._build_connections({name: dict(connections[name])}))
                if connections[name]["value"].get("auth_mode") == "meid_token":
                    self._connections[name]._token_provider = Tokens(name)
            return self._connections[name]

        def list(self, **_):
            return [self.get(name) for name in connections if self.can_be_made(name)]

        def can_be_made(self, name):
            try:
                return bool(self.get(name))
            except ValueError:
                return False  # its package is not installed

    provider = Provider()
    ConnectionProvider._instance = provider
    ConnectionProvider.init_from_provider_config = classmethod(lambda *_, **__: provider)
    serve_client(provider, connections, NotThere)
    return provider


def serve_client(provider, connections, not_there):
    """Has `PFClient().connections` find them too, where promptflow's development kit is
    installed."""
    try:
        from promptflow._sdk.entities._connection import _Connection
        from promptflow._sdk.operations._connection_operations import ConnectionOperations
    except ImportError:
        return

    stored = ConnectionOperations._get

    def get(self, name, with_secrets=True, raise_error=True, **_):
        if name not in connections:
            # One that the flow's own code has made.
            found = stored(self, name, with_secrets=with_secrets, raise_error=False)
            if found is None and raise_error:
                raise not_there(name)
            return found
        connection = _Connection._from_core_connection(provider.get(name))
        if not with_secrets:
            connection.secrets = dict.fromkeys(connection.secrets, "******")
        return connection

    ConnectionOperations._get = get
    ConnectionOperations.list = lambda self, *_, **__: [get(self, each.name, with_secrets=False) for each in provider.list()]
