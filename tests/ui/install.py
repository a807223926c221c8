# SPDX-License-Identifier: MIT
"""Installs into a private prefix and opens a document as a file manager would.

usage: install.py WORKDIR   with WORKDIR/bin/{haversack,hva,...}, hva being the stand-in machine
"""
import os
import subprocess
import sys
import time

WORK = sys.argv[1]
LOG = os.path.join(WORK, "standin.log")
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "packaging", "install.sh")
ID = "io.github.haversack.Haversack"
TYPE = "application/vnd.haversack.appliance"
os.environ["STANDIN_LOG"] = LOG
prefix = os.path.join(WORK, "my local")
os.environ["XDG_DATA_HOME"] = os.path.join(prefix, "share")


def run(*args):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30).stdout


def content_type(path):
    out = run("gio", "info", "-a", "standard::content-type", path)
    return out.split("standard::content-type:")[1].split()[0]


def wait_for(what, fn, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        if fn():
            return
        time.sleep(0.1)
    sys.exit("FAILED: waited in vain for " + what)


print(run(SOURCE, prefix, WORK))

plain = os.path.join(WORK, "a b.hva")
open(plain, "w").write("not empty")
assert content_type(plain) == TYPE, content_type(plain)

# By content, whatever the name: the first member of the tar archive.
named = bytearray(1024)
named[0:8] = b"mimetype"
named[257:262] = b"ustar"
named[512:512 + len(TYPE)] = TYPE.encode()
renamed = os.path.join(WORK, "renamed")
open(renamed, "wb").write(named)
assert content_type(renamed) == TYPE, content_type(renamed)
named[512] = ord("x")
open(renamed, "wb").write(named)
assert content_type(renamed) != TYPE

assert ID in run("gio", "mime", TYPE)
subprocess.Popen(["gio", "open", plain])
wait_for("the window to subscribe", lambda: os.path.exists(LOG) and '"subscribe"' in open(LOG).read())
windows = run("xdotool", "search", "--name", "Stand-in").split()
assert windows
subprocess.run(["gio", "open", plain], check=True, timeout=30)
time.sleep(1)
assert open(LOG).read().count('"subscribe"') == 1, "a second double click started a second window"
subprocess.run(["xdotool", "search", "--onlyvisible", "--name", "Stand-in", "windowclose"], check=False)
print("all passed")
