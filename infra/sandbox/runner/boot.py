"""The programs that load this package in a fresh interpreter."""

import os

# How an interpreter loads this package: as a package its compiled form is kept, and no flow has a
# module of this name.
BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pfsession_runner import main; del sys.path[0]; main.main()"

# The same, and before it the word that the session is ready: who waits for that is not to wait for
# this package.
INSIDE = "import os, sys; os.write(int(sys.argv.pop(1)), b'{\"ready\": {\"warm\": false}}\\n'); " + BOOT


def packages():
    """The folder that this package is in."""
    return os.path.dirname(os.path.dirname(__file__))
