#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Stands in for hva-machine in test_hostile_machine.py: a machine process that its guest has taken over.

HOSTILE names what it does. It speaks the wire of app/common/wire.h and app/common/diskwire.h.
"""
import array
import json
import os
import socket
import struct
import sys
import time

wire = socket.socket(fileno=3)
fds = {}


def say(fd=None, **message):
    anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd]))] if fd is not None else []
    wire.sendmsg([json.dumps(message).encode()], anc)


def listen():
    data, anc, _, _ = wire.recvmsg(65536, socket.CMSG_SPACE(64))
    if not data:
        sys.exit(0)
    fd = None
    for _, _, raw in anc:
        fd = struct.unpack('i', raw[:4])[0]
    return json.loads(data), fd


def memfd(contents):
    fd = os.memfd_create('x')
    os.write(fd, contents)
    return fd


def start():
    while True:
        message, fd = listen()
        if message['cmd'] == 'config':
            return
        fds[message['name']] = fd


def point(bytes_claimed, contents, name):
    """The disks' mark and the answer, with places that are nowhere, and everything twice and for somebody else."""
    disks = socket.socket(fileno=os.dup(fds['disks']))
    for n in (name + 1, 0, name, name):
        disks.send(struct.pack('<IIIIQQ', 77, 5, 99, 0, n, 1 << 63))
    for n, shown in ((name + 1, None), (name, {'offset': 1 << 62, 'width': 1 << 31, 'height': -1, 'stride': 1 << 40, 'blank': False}),
                     (name, {'offset': 0, 'width': 16384, 'height': 16384, 'stride': 65536, 'blank': False})):
        say(memfd(contents), event='point', name=n, bytes=bytes_claimed, way=[1 << 40, -1, 'x', None, 99, 0] * 5, picture=shown, paused_us=-1)


def answer_points(bytes_claimed, contents=b'state'):
    while True:
        message, _ = listen()
        if message['cmd'] == 'point':
            say(event='collected', name=message['name'])
            point(bytes_claimed, contents, message['name'])
            say(event='run')
        elif message['cmd'] == 'collect':  # all is dirty, always
            os.pwrite(fds['ram.attr'], b'\xff' * (64 << 20 >> 12), 0)
            for n in (message['name'] + 1, message['name'], message['name'], 'x'):
                say(event='collected', name=n)
        elif message['cmd'] == 'go-back':
            say(event='back', near=True)
            point(bytes_claimed, contents, message['name'])
            say(event='back', near=False)
        elif message['cmd'] == 'become':
            say(event='back', near=True, way={})
        elif message['cmd'] == 'run':
            say(event='run', paused_us=1 << 62)
        elif message['cmd'] == 'quit':
            sys.exit(0)


def disk_requests():
    disks = socket.socket(fileno=fds['disks'])
    mode = os.environ['HOSTILE']
    bad = {
        'disk-number': struct.pack('<IIIIQQ', 77, 2, 0, 0, 0, 512),
        'disk-slot': struct.pack('<IIIIQQ', 0, 2, 64, 0, 0, 512),
        'disk-length': struct.pack('<IIIIQQ', 0, 2, 0, 0, 0, 1 << 30),
        'disk-end': struct.pack('<IIIIQQ', 0, 1, 0, 0, (8 << 20) - 512, 1024),
        'disk-wrap': struct.pack('<IIIIQQ', 0, 1, 0, 0, (1 << 64) - 512, 1024),
        'disk-op': struct.pack('<IIIIQQ', 0, 9, 0, 0, 0, 512),
        'disk-short': b'x',
        'disk-long': b'x' * 5000,
    }[mode]
    # A good one first: the service works.
    disks.send(struct.pack('<IIIIQQ', 0, 1, 3, 0, 0, 4096))
    assert struct.unpack('<Ii', disks.recv(8)) == (3, 0)
    disks.send(bad)
    disks.settimeout(20)
    assert disks.recv(64) == b'', 'the keeper answered something impossible'
    say(event='error', text='refused')


start()
how = os.environ['HOSTILE']
if how == 'silent':
    time.sleep(60)
say(event='ready')
if how == 'junk':
    wire.send(b'\xff{{{')
elif how == 'array':
    wire.send(b'[1, 2]')
elif how == 'types':
    for event in (1, None, [], {}, 'point', 'back', 'run', 'screenshot', 'stop', 'disk-trouble', 'no such event'):
        say(event=event, text=5, bytes='x', disk='y', errno=[])
    say(event='disk-trouble', disk=99, errno=5)
elif how == 'fds':
    for _ in range(2000):
        say(memfd(b'x'), event='screenshot', bytes=1 << 60)
elif how.startswith('disk-'):
    disk_requests()
if how == 'claims':
    answer_points(1 << 29)
answer_points(5)
