# SPDX-License-Identifier: MIT
"""What the window's drivers share: accessible names (AT-SPI), keys and pointer (xdotool), screenshots (import)."""
import os
import subprocess
import sys
import time

import gi

gi.require_version("Atspi", "2.0")
gi.require_version("GdkPixbuf", "2.0")
from gi.repository import Atspi, GdkPixbuf  # noqa: E402

WORK = sys.argv[1]
LOG = os.path.join(WORK, "standin.log")  # what the stand-in machine saw
HOST_KEY = 105  # by number: for the name xdotool presses the left Ctrl as well
SHOTS = os.path.join(WORK, "shots")
os.environ["STANDIN_LOG"] = LOG
began = time.time()


def wait_for(what, fn, seconds=10):
    end = time.time() + seconds
    while time.time() < end:
        try:
            value = fn()
        except Exception:  # the tree changes under our hands
            value = None
        if value:
            return value
        time.sleep(0.05)
    shoot("failure")
    sys.exit("FAILED: waited in vain for " + what + "\n" + log() + "\n" + tree())


def log():
    return open(LOG).read() if os.path.exists(LOG) else ""


def walk(node, depth=0):
    yield node, depth
    for i in range(node.get_child_count()):
        child = node.get_child_at_index(i)
        if child:
            yield from walk(child, depth + 1)


def app_nodes():
    desktop = Atspi.get_desktop(0)
    for i in range(desktop.get_child_count()):
        app = desktop.get_child_at_index(i)
        if app and app.get_name() in ("haversack", "Haversack"):
            yield from walk(app)


def tree():
    return "\n".join("  " * d + n.get_role_name() + " " + repr(n.get_name()) for n, d in app_nodes())


def showing(node):
    return node.get_state_set().contains(Atspi.StateType.SHOWING)


def find(name, role=None):
    for node, _ in app_nodes():
        if node.get_name() == name and (role is None or node.get_role_name() == role) and showing(node):
            return node
    return None


def find_text(part):
    for node, _ in app_nodes():
        if part in (node.get_name() or "") and showing(node):
            return node
    return None


def sensitive(node):
    return node.get_state_set().contains(Atspi.StateType.SENSITIVE)


def click(name):
    node = wait_for("button " + name, lambda: next(
        (n for n, _ in app_nodes() if n.get_name() == name and showing(n) and sensitive(n)
         and n.get_action_iface() and n.get_role_name() != "label"), None))
    node.get_action_iface().do_action(0)


def xdotool(*args):
    return subprocess.run(["xdotool", *map(str, args)], check=True, stdout=subprocess.PIPE, text=True).stdout


def shoot(name):
    path = os.path.join(SHOTS, name + ".png")
    subprocess.run(["import", "-window", "root", path], check=True)
    return GdkPixbuf.Pixbuf.new_from_file(path)


def screen_extents():
    node = wait_for("the guest screen", lambda: find("Guest screen"))
    return node.get_component_iface().get_extents(Atspi.CoordType.SCREEN)


def screen_box(width, height):
    """Where a picture of that size is on the X screen, and its zoom: a whole number, or smaller to fit."""
    box = screen_extents()
    zoom = min(box.width / width, box.height / height)
    zoom = int(zoom) if zoom >= 1 else zoom
    return box.x + int((box.width - width * zoom) // 2), box.y + int((box.height - height * zoom) // 2), zoom


def start(file):
    with open(os.path.join(WORK, "haversack.log"), "a") as out:
        return subprocess.Popen([os.path.join(WORK, "bin", "haversack"), file], stdout=out, stderr=out)


def step(text):
    print(f"{time.time() - began:6.2f} {text}", flush=True)
