"""The project that a flow folder is itself. It is laid out outside the sandbox, as its install
would leave it; nothing is built."""

import os


def own_folders(message):
    """Returns the folders of the project's modules and metadata beside the flow folder."""
    own = message.get("own") or {}
    return [*own.get("sources", []), *filter(None, [own.get("lib")])]


def own_variables(message, variables):
    """Returns the variables by which processes find the project's commands, modules and metadata.

    * `variables`: those that the processes have otherwise.
    """
    own, found = message.get("own") or {}, {}
    if folders := own_folders(message):
        found["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [variables.get("PYTHONPATH")])])
    if programs := own.get("bin"):
        found["PATH"] = os.pathsep.join([programs, variables.get("PATH", os.defpath)])
    return found
