# SPDX-License-Identifier: MIT
"""The window with a real machine in it: the template tiny, worked by keys, judged by what is on the screen.

usage: machine.py WORKDIR   with WORKDIR/bin/{haversack,hva,hva-keeper,hva-machine}; Debian packages in $HSK_PACKAGES
"""
import glob
import json
import os
import subprocess
import sys

from desk import HOST_KEY, WORK, click, find, find_text, screen_box, shoot, start, step, wait_for, xdotool

BUILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "templates", "tiny", "build.sh")
HVA = os.path.join(WORK, "bin", "hva")
DOCUMENT = os.path.join(WORK, "tiny.hva")
WIDTH, HEIGHT = 1024, 768
CURSOR = 8 * 16  # it blinks; more than one cell's difference is a difference

if not glob.glob(os.path.join(os.environ["HSK_PACKAGES"], "linux-image-[0-9]*.deb")):
    print("skipped: no packages in " + os.environ["HSK_PACKAGES"] + "; build the template once")
    sys.exit(77)


def info():
    return json.loads(subprocess.run([HVA, "info", "--json", DOCUMENT], check=True, stdout=subprocess.PIPE).stdout)


def picture(name="picture"):
    """The lines of the guest's picture that are on the X screen, as one string of lit and dark pixels per line."""
    left, top, zoom = screen_box(WIDTH, HEIGHT)
    image = shoot(name)
    px, stride, n = image.get_pixels(), image.get_rowstride(), image.get_n_channels()
    # The prompt and what is typed is in the upper half; every second pixel tells enough.
    return [bytes(255 * (px[int(top + (y + 0.5) * zoom) * stride + int(left + (x + 0.5) * zoom) * n] > 100)
                  for x in range(0, WIDTH, 2)) for y in range(0, HEIGHT // 2, 2)]


def lit(image):
    return sum(line.count(255) for line in image)


def difference(one, other):
    return sum(a != b for x, y in zip(one, other) for a, b in zip(x, y))


def wait_for_picture(what, fn, seconds=30):
    return wait_for(what, lambda: (lambda p: p if fn(p) else None)(picture()), seconds)


def settled(name):
    """The picture once nothing but the cursor moves."""
    last = picture(name)

    def same():
        nonlocal last
        now = picture(name)
        still, last = difference(now, last) <= CURSOR // 4, now
        return still
    wait_for("a picture that stands still", same)
    return last


def enter(line):
    xdotool("type", "--delay", 60, line)
    xdotool("key", "Return")


subprocess.run(["sh", BUILD, DOCUMENT], check=True, env=dict(os.environ, HVA=HVA), timeout=100)

# Its first checkpoint is told in a bar that takes room from the picture.
subprocess.run([HVA, "timeline", DOCUMENT, "off"], check=True, timeout=60)

step("the machine comes up to its shell")
app = start(DOCUMENT)
wait_for("running", lambda: find_text("Running"))
wait_for_picture("the welcome text", lambda p: lit(p) > 1500 and lit(p[-20:]) == 0, 60)
shell = settled("shell")

step("what is typed is on the screen")
enter("echo one two three")
wait_for_picture("the answer", lambda p: difference(p, shell) > 200)
before = settled("before")

step("snapshot, then a change")
# By the host key, which leaves the keyboard with the guest: left Ctrl is down in the snapshot, and after the revert nobody holds it.
xdotool("keydown", "Control_L", "keydown", HOST_KEY, "key", "s", "keyup", HOST_KEY)
wait_for("the snapshot", lambda: find_text("snapshot just now"), 30)
xdotool("keyup", "Control_L")
enter("clear; echo changed > /root/note; cat /root/note")
wait_for_picture("the change", lambda p: difference(p, before) > 500)
changed = settled("changed")

step("revert, and undo brings the change back")
click("Revert")
wait_for("the notice", lambda: find_text("Went back to"), 30)
click("Undo")
wait_for("the notice of the undo", lambda: find_text("Undone"), 30)
click("Dismiss")
wait_for_picture("the picture of the change", lambda p: difference(p, changed) <= CURSOR)

step("revert brings the picture back")
click("Revert")
wait_for("the notice", lambda: find_text("Went back to"), 30)
click("Dismiss")  # the picture is the whole one again
wait_for_picture("the picture of the snapshot", lambda p: difference(p, before) <= CURSOR)
shoot("reverted")

step("the list of snapshots has its picture")
xdotool("keydown", HOST_KEY, "key", "l", "keyup", HOST_KEY)
wait_for("the list", lambda: find("Snapshots", "frame") and find_text("shared"))
row = wait_for("the row", lambda: find("Before revert", "list item")).get_component_iface().get_extents(0)


def row_picture():
    image = shoot("snapshots")
    px, stride, n = image.get_pixels(), image.get_rowstride(), image.get_n_channels()
    return sum(px[y * stride + x * n] > 100 for y in range(row.y + 10, row.y + row.height - 10)
               for x in range(row.x + 20, row.x + 100))


wait_for("dark pixels, and some lit ones", lambda: 20 < row_picture() < 2000)
xdotool("key", "Escape")
wait_for("the list's end", lambda: not find("Snapshots", "frame"))

step("and the guest lives: it answers, and the file is not there")
enter("cat /root/note; echo " + 60 * "W")
wait_for_picture("an answer of many lit pixels", lambda p: difference(p, before) > 600)
gone = settled("gone")

step("closing saves, opening goes on at the same picture")
xdotool("keydown", HOST_KEY, "key", "q", "keyup", HOST_KEY)
wait_for("the end of the program", lambda: app.poll() is not None, 60)
assert info()["state"] == "saved", info()
app = start(DOCUMENT)
wait_for("running", lambda: find_text("Running"), 30)
wait_for_picture("the picture of the closed machine", lambda p: difference(p, gone) <= CURSOR)
enter("echo still here")
wait_for_picture("an answer", lambda p: difference(p, gone) > 100)
wait_for("the snapshot's age", lambda: find_text("snapshot just now") or find_text("min ago"))
shoot("again")

step("the guest switches itself off, and its window goes")
enter("poweroff")
wait_for("the end of the program", lambda: app.poll() is not None, 60)
assert info()["state"] == "off", info()
step("all passed")
