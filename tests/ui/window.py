# SPDX-License-Identifier: MIT
"""The whole window against the stand-in machine.

usage: window.py WORKDIR   with WORKDIR/bin/{haversack,hva}, hva being the stand-in
"""
import json
import os
import signal
import socket
import time

from desk import (HOST_KEY, WORK, app_nodes, click, find, find_text, log, screen_box, screen_extents, shoot, showing, start, step,
                  wait_for, xdotool)


def pixels(places, name="pixel"):
    """Colours at places of the guest's picture, as they are on the X screen at one moment."""
    left, top, zoom = screen_box(640, 400)
    image = shoot(name)
    px, stride, n = image.get_pixels(), image.get_rowstride(), image.get_n_channels()
    at = [int(top + (y + 0.5) * zoom) * stride + int(left + (x + 0.5) * zoom) * n for x, y in places]
    return [tuple(px[i:i + 3]) for i in at]


def pixel(x, y):
    return pixels([(x, y)])[0]


def bar():
    """Where the moving bar is, or None."""
    row = pixels([(x, 392) for x in range(8, 640, 16)])
    return row.index((0, 255, 0)) if (0, 255, 0) in row else None


def expect_pixel(x, y, colour, why):
    wait_for(f"{why}: {colour} at {x},{y}", lambda: pixel(x, y) == colour)


def control(cmd, **args):
    """Says something to the stand-in as another client would."""
    base = os.path.join(os.environ["XDG_RUNTIME_DIR"], "haversack")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(base, os.listdir(base)[0], "control"))
        s.sendall(json.dumps(dict(args, id=1, cmd=cmd)).encode() + b"\n")
        return json.loads(s.makefile().readline())


def document(name):
    path = os.path.join(WORK, name)
    open(path, "w").close()
    return path


BLACK, FIRST = (0, 0, 0), (0x40, 0x20, 0x10)

step("a double click's command line opens the window and starts the machine")
app = start(document("tiny.hva"))
wait_for("the machine's name in the title", lambda: find("Stand-in", "frame"))
wait_for("the sub-line", lambda: find_text("Running"))
for name in ("Snapshot", "Revert", "Revert to…", "Pause", "Full screen", "Menu", "Guest screen"):
    wait_for(name, lambda: find(name))
expect_pixel(320, 200, BLACK, "the stand-in's picture")
wait_for("the bar", lambda: bar() is not None)
first = bar()
wait_for("the bar to move", lambda: bar() not in (None, first))
shoot("running")

step("keys arrive as evdev codes and their answer is on the screen")
xdotool("mousemove", 640, 400, "click", 1)
xdotool("keydown", "a")
wait_for("key 30", lambda: "key 30 down" in log())
expect_pixel(480 + 16, 116, (255, 255, 255), "the square of a held key")
time.sleep(0.8)
xdotool("keyup", "a")
wait_for("key 30 up", lambda: "key 30 up" in log())
assert log().count("key 30 down") == 1, "the host's key repeat reached the guest"
xdotool("key", "Tab", "F10", "alt+x")
for code in (15, 68, 56, 45):
    wait_for(f"key {code}", lambda: f"key {code} down" in log() and f"key {code} up" in log())

step("the pointer is absolute and exact in the corners")
left, top, zoom = screen_box(640, 400)
xdotool("mousemove", left, top)
wait_for("top left", lambda: "pointer 0 0 0" in log())
xdotool("mousemove", int(left + 640 * zoom) - 1, int(top + 400 * zoom) - 1)
wait_for("bottom right", lambda: "pointer 327" in log().splitlines()[-1])
xdotool("mousemove", left + 300, top + 200, "click", 3, "click", 4)
wait_for("right button", lambda: any(line.startswith("pointer") and line.endswith(" 2") for line in log().splitlines()))
wait_for("wheel", lambda: "wheel 1" in log())

step("snapshot is one click, revert another, undo a third; no dialog in between")
xdotool("key", HOST_KEY)
click("Snapshot")
wait_for("the command", lambda: '"snapshot"' in log() and '"title": "Snapshot ' in log().replace('":"', '": "'))
wait_for("the sub-line", lambda: find_text("snapshot just now"))
expect_pixel(320, 200, FIRST, "the present after the snapshot")
click("Revert")
wait_for("the notice", lambda: find_text("Went back to “Snapshot "))
expect_pixel(320, 200, BLACK, "the past")
shoot("reverted")
click("Undo")
wait_for("the notice", lambda: find_text("Undone"))
expect_pixel(320, 200, FIRST, "the present again")
shoot("undone")
assert log().count("screen attached") == 3, log()

step("the host key works inside the guest, and alone it leaves")
xdotool("mousemove", left + 300, top + 250, "click", 1)
wait_for("focus in the guest", lambda: find_text("Right Ctrl leaves"))
xdotool("keydown", HOST_KEY, "key", "s", "keyup", HOST_KEY)
wait_for("a second snapshot", lambda: log().count('"cmd":"snapshot"') == 2)
assert "key 97" not in log() and "key 31" not in log(), "the host key's combination reached the guest"
xdotool("key", HOST_KEY)
wait_for("focus outside", lambda: not find_text("Right Ctrl leaves"))
before = log().count("key 15 ")
xdotool("key", "Tab")
time.sleep(0.3)
assert log().count("key 15 ") == before, "Tab reached the guest though the keyboard was not in it"
xdotool("key", HOST_KEY)
wait_for("focus back", lambda: find_text("Right Ctrl leaves"))

step("held keys are lifted when the window loses the keyboard")
xdotool("keydown", "b")
wait_for("key 48", lambda: "key 48 down" in log())
count = log().count("release-all")
xdotool("key", HOST_KEY)
wait_for("release-all", lambda: log().count("release-all") > count)
xdotool("keyup", "b", "key", HOST_KEY)

step("pause and go on")
click("Pause")
wait_for("the sub-line", lambda: find_text("Paused"))
click("Pause")
wait_for("the sub-line", lambda: find_text("Running"))

step("full screen and back by the host key; the picture fills the screen")
xdotool("keydown", HOST_KEY, "key", "f", "keyup", HOST_KEY)
wait_for("all of the screen", lambda: (screen_extents().width, screen_extents().height) == (1280, 1024))
wait_for("the hint", lambda: find_text("leaves full screen"))
xdotool("mousemove", 640, 0)
wait_for("the bar at the top edge", lambda: find("Revert"))
shoot("fullscreen")
xdotool("mousemove", 640, 600, "click", 1)
xdotool("keydown", HOST_KEY, "key", "f", "keyup", HOST_KEY)
wait_for("the window again", lambda: screen_extents().height < 1000)

step("an older version from the list")
click("Revert to…")
entry = wait_for("an entry", lambda: next((n for n, _ in app_nodes() if showing(n) and n.get_role_name() == "push button"
                                           and (n.get_name() or "").startswith("Snapshot ")), None))
shoot("versions")
entry.get_action_iface().do_action(0)
wait_for("the command", lambda: '"to":"v4"' in log())
wait_for("the notice", lambda: find_text("Went back to “Snapshot "))

step("what another client does is shown too")
control("revert", to="v1")
wait_for("the notice", lambda: find_text("Went back to"))
expect_pixel(320, 200, BLACK, "the past")

step("a second start with the same file lands in the same window")
second = start(os.path.join(WORK, "tiny.hva"))
assert second.wait(timeout=10) == 0
assert sum(1 for n, _ in app_nodes() if n.get_role_name() == "frame") == 1

step("a crash of the machine is told, and the file can be opened again")
control("die")
wait_for("the notice", lambda: find_text("The machine crashed"))
wait_for("the state", lambda: find_text("Stopped unexpectedly"))
shoot("died")
click("Open Again")
wait_for("the machine", lambda: find_text("Running"))
expect_pixel(320, 200, BLACK, "the machine's picture")

step("closing saves; then window and machine are gone")
click("Close")
wait_for("stop", lambda: '"cmd":"stop"' in log() and log().endswith("stopped\n"))
wait_for("the end of the program", lambda: app.poll() is not None)
assert app.returncode == 0

step("a machine that cannot start says why in the window")
app = start(document("refuse.hva"))
wait_for("its sentence", lambda: find_text("The appliance is damaged and was left as it is."))
shoot("refused")
click("Close")
wait_for("the end of the program", lambda: app.poll() is not None)

step("a save that fails keeps the machine open and offers a way out")
app = start(document("stubborn.hva"))
wait_for("the machine", lambda: find_text("Running"))
click("Close")
wait_for("the notice", lambda: find_text("could not be saved and stays open"))
shoot("stubborn")
click("Close Without Saving")
wait_for("the end of the program", lambda: app.poll() is not None)

step("what the machine says at its start is shown, but for its engine")
app = start(document("cold.hva"))
wait_for("the notice", lambda: find_text("This machine starts cold."))
assert not find_text("engine")
click("Close")
wait_for("the end of the program", lambda: app.poll() is not None)

step("what the keeper says when it closes is not lost with the window")
app = start(document("readonly.hva"))
wait_for("the machine", lambda: find_text("Running"))
click("Close")
wait_for("the notice", lambda: find_text("Everything is saved here, but not yet in the document."))
click("Close")
wait_for("the end of the program", lambda: app.poll() is not None)

step("the keeper's sudden end is told")
app = start(document("lost.hva"))
wait_for("the machine", lambda: find_text("Running"))
keeper = int(os.listdir(os.path.join(os.environ["XDG_RUNTIME_DIR"], "haversack"))[0].split("-")[1])
os.kill(keeper, signal.SIGKILL)
wait_for("the notice", lambda: find_text("ended unexpectedly"))
shoot("lost")
click("Open Again")
wait_for("the machine", lambda: find_text("Running"))
click("Close")
wait_for("the end of the program", lambda: app.poll() is not None)
step("all passed")
