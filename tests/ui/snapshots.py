# SPDX-License-Identifier: MIT
"""The list of snapshots and the timeline in the window, and the question about a stranger's saved state; with the real
keeper and machine, and the integration tests' kernel in it.

usage: snapshots.py WORKDIR   with WORKDIR/bin/{haversack,hva,hva-keeper,hva-machine}; $HVA_KERNEL
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import time

from desk import WORK, Atspi, app_nodes, click, find, find_text, shoot, showing, start, step, wait_for, xdotool

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from harness import Console  # noqa: E402

HVA = os.path.join(WORK, "bin", "hva")
DOCUMENT = os.path.join(WORK, "work.hva")
KERNEL = os.environ["HVA_KERNEL"]
if not os.path.exists(KERNEL):
    print("skipped: there is no test kernel " + KERNEL)
    sys.exit(77)


def hva(*args, **env):
    return subprocess.run([HVA, *args], check=True, stdout=subprocess.PIPE, text=True, timeout=60,
                          env=dict(os.environ, **env)).stdout


def versions(*args):
    return json.loads(hva("log", DOCUMENT, "--json", *args))


def titles():
    return [v["title"] for v in versions() if v["kind"] == "user"]


def ask(command, pattern, document=DOCUMENT):
    """Of the kernel in the machine."""
    base = os.path.join(os.environ["XDG_RUNTIME_DIR"], "haversack")
    for name in os.listdir(base):
        s = socket.socket(socket.AF_UNIX)
        s.connect(os.path.join(base, name, "control"))
        s.sendall(b'{"id":1,"cmd":"info"}\n')
        if json.loads(s.makefile().readline())["path"] == os.path.realpath(document):
            s.sendall(b'{"id":2,"cmd":"console"}\n')
            assert s.recv(65536)
            with Console(s) as c:
                return c.ask(command, pattern)
    raise LookupError("nothing runs " + document)


def write(nonce):
    ask("w" + nonce, "ok")


def nonce(document=DOCUMENT):
    return ask("p", r"nonce=(.{8}) ", document)[1]


def create(document):
    hva("create", document, "--kernel", KERNEL, "--append", "serve", "--disk", "8M", "--memory", "64M")


def close(app):
    click("Close")
    wait_for("the end of the program", lambda: app.poll() is not None, 30)


def select(title):
    """The list may move under the pointer."""
    def selected():
        node = find(title, "list item")
        box = node.get_component_iface().get_extents(0)
        xdotool("mousemove", box.x + 150, box.y + 15, "click", 1)
        time.sleep(0.1)
        return node.get_state_set().contains(Atspi.StateType.SELECTED)
    wait_for("the row " + title, selected)


def choose_place(title, name):
    """In the file chooser of that title."""
    path = os.path.join(WORK, name)
    wait_for("the dialog", lambda: find(title, "file chooser") or find(title, "dialog"))
    xdotool("key", "ctrl+a")
    xdotool("type", path)
    xdotool("key", "Return")
    return path


create(DOCUMENT)
hva("timeline", DOCUMENT, "off")

step("the list opens from the menu and shows what there is")
app = start(DOCUMENT)
wait_for("the machine", lambda: find_text("Running"), 30)
for name in ("FirstOne", "SecondOn", "ThirdOne"):
    write(name)
    ask("b", "ok")
    hva("snapshot", DOCUMENT, name)
click("Revert to…")
wait_for("the menu", lambda: find_text("All Snapshots"))
shoot("menu")
click("All Snapshots…")
for name in ("FirstOne", "SecondOn", "ThirdOne"):
    wait_for(name, lambda: find(name, "list item"))
wait_for("sizes", lambda: find_text("shared"))
shoot("list")

step("F2 renames in place, Escape does not")
select("SecondOn")
xdotool("key", "F2")
wait_for("the entry", lambda: find("Title"))
xdotool("type", "Before the upgrade")
shoot("rename")
xdotool("key", "Return")
wait_for("the new title", lambda: find("Before the upgrade", "list item"))
assert titles() == ["FirstOne", "Before the upgrade", "ThirdOne"], titles()
select("FirstOne")
xdotool("key", "F2")
wait_for("the entry", lambda: find("Title"))
xdotool("type", "nonsense")
xdotool("key", "Escape")
wait_for("the end of it", lambda: not find("Title"))
assert titles() == ["FirstOne", "Before the upgrade", "ThirdOne"], titles()
step("the menu of a row renames, pins and unpins; what is pinned is not deleted")
select("ThirdOne")
xdotool("click", 3)
shoot("context")
click("Rename")
wait_for("the entry", lambda: find("Title"))
xdotool("type", "Third")
xdotool("key", "Return")
wait_for("the new title", lambda: titles()[2] == "Third")
select("Third")
xdotool("click", 3)
click("Pin")
wait_for("the pin", lambda: find("Pinned"))
assert [v["pinned"] for v in versions() if v["title"] == "Third"] == [True]
xdotool("key", "Delete")
wait_for("the refusal", lambda: find_text("“Third” is pinned"))
shoot("pinned")
click("Dismiss")
xdotool("mousemove_relative", "--", 0, 1, "click", 3)
click("Unpin")
wait_for("the end of the pin", lambda: not find("Pinned"))

step("deleting asks first, and says what it frees")
select("FirstOne")
xdotool("key", "Delete")
wait_for("the question", lambda: find_text("Delete “FirstOne”? That frees"))
shoot("delete")
click("Dismiss")
select("FirstOne")
assert "FirstOne" in titles()
xdotool("key", "Delete")
click("Delete")
wait_for("its end", lambda: not find("FirstOne", "list item"))
assert titles() == ["Before the upgrade", "Third"], titles()

step("going back from the list can be undone")
write("LaterOne")
select("Before the upgrade")
xdotool("click", 3)
click("Go Back to It")
wait_for("the notice", lambda: find_text("Went back to “Before the upgrade”"))
assert nonce() == "SecondOn"
wait_for("what was parked", lambda: find("Before revert", "list item"))
shoot("gone-back")
click("Undo")
wait_for("the notice", lambda: find_text("Undone"))
wait_for("the other that was parked", lambda: sum(n.get_name() == "Before revert" for n, _ in app_nodes() if showing(n)
                                                  and n.get_role_name() == "list item") == 2)
assert nonce() == "LaterOne"

step("a new machine from a snapshot, while this one runs")
select("Third")
xdotool("click", 3)
click("New Machine from It…")
CLONE = choose_place("New Machine", "clone.hva")
wait_for("the notice", lambda: find_text("A new machine is in " + CLONE))
assert json.loads(hva("info", CLONE, "--json"))["uuid"] != json.loads(hva("info", DOCUMENT, "--json"))["uuid"]
click("Open")
wait_for("its window", lambda: sum(1 for n, _ in app_nodes() if n.get_role_name() == "frame" and showing(n)) == 3)
wait_for("its machine", lambda: nonce(CLONE) == "ThirdOne", 30)
assert nonce() == "LaterOne"
shoot("clone")
hva("stop", CLONE)
wait_for("the end of its window", lambda: sum(1 for n, _ in app_nodes() if n.get_role_name() == "frame" and showing(n)) == 2)

select("Third")  # the keyboard is here again
step("the switch of the timeline; its points, and going back to one of them")
hva("timeline", DOCUMENT, "every", "1")
toggle = wait_for("the switch", lambda: next((n for n, _ in app_nodes() if n.get_name() == "Timeline" and showing(n)
                                              and n.get_role_name() == "toggle button"), None))
toggle.get_action_iface().do_action(0)
wait_for("it to be on", lambda: "on" in hva("timeline", DOCUMENT).split("\n")[0])
wait_for("the sentence", lambda: find_text("passwords too"))


def points():
    return [v for v in versions("--timeline") if v["kind"] == "auto"]


def until_points(n, name):
    """The guest works until there is one more."""
    def more():
        write(name)
        ask("f", "ok")
        return len(points()) >= n
    wait_for(f"{n} points", more, 30)


until_points(1, "PointOne")
hva("timeline", DOCUMENT, "off")
first = points()[-1]
before = nonce()
hva("timeline", DOCUMENT, "on")
until_points(len(points()) + 1, "PointTwo")
hva("timeline", DOCUMENT, "off")
slider = wait_for("the slider", lambda: find("Point in time"), 20)
wait_for("all points", lambda: slider.get_value_iface().get_maximum_value() == len(points()) - 1)
shoot("timeline")
slider.get_value_iface().set_current_value([p["id"] for p in points()].index(first["id"]))
click("Go Back Here")
wait_for("the notice", lambda: find_text("Went back to “" + first["title"]))
assert nonce() == before, nonce()
shoot("in-the-past")
click("Keep")
wait_for("the point as a snapshot", lambda: find(first["title"], "list item"))
assert first["title"] in titles(), titles()
click("Delete All…")
wait_for("the question", lambda: find_text("Delete all points"))
shoot("purge")
click("Delete")
wait_for("their end", lambda: not points())
wait_for("the sentence", lambda: find_text("Nothing is kept but"))
xdotool("key", "Escape")
wait_for("the list's end", lambda: not find("Snapshots", "frame"))

step("a document that was deleted meanwhile can be saved elsewhere")
os.unlink(DOCUMENT)
click("Close")
wait_for("the refusal", lambda: find_text("was deleted or replaced while its machine ran; save it elsewhere, or give it up."))
shoot("deleted")
click("Save As…")
DOCUMENT = choose_place("Save As", "elsewhere.hva")
wait_for("the notice", lambda: find_text("The document is now " + DOCUMENT))
shoot("moved")
assert nonce(DOCUMENT) == before
close(app)
assert "Before the upgrade" in titles()

step("a stranger's saved state is not resumed without being asked")
STRANGER = os.path.join(WORK, "stranger")
foreign = [os.path.join(WORK, name) for name in ("fresh.hva", "trusted.hva")]
elsewhere = dict(XDG_DATA_HOME=STRANGER)
create(foreign[0])
keeper = subprocess.Popen([HVA, "run", "--no-window", "--serial", "null", foreign[0]], env=dict(os.environ, **elsewhere))
wait_for("the stranger's machine", lambda: "fresh" in hva("ps"), 30)
wait_for("its kernel", lambda: ask("wSTRANGER", "ok", foreign[0]))
hva("stop", foreign[0])
keeper.wait(30)
shutil.copy(foreign[0], foreign[1])
for document, answer, expected in zip(foreign, ("Start from Power-On", "Trust and Resume"), ("--------", "STRANGER")):
    app = start(document)
    wait_for("the question", lambda: find_text("nothing proves by whom"), 30)
    assert not find_text("Running") and os.path.basename(document)[:-4] not in hva("ps")
    shoot("question")
    click(answer)
    wait_for("the machine", lambda: find_text("Running"), 30)
    assert nonce(document) == expected, (answer, nonce(document))
    close(app)

step("the answer is remembered for what is in the file")
app = start(foreign[1])
wait_for("the machine", lambda: find_text("Running"), 30)
assert nonce(foreign[1]) == "STRANGER"
close(app)
step("all passed")
