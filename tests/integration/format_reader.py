# SPDX-License-Identifier: MIT
"""A second reader of .hva documents and instances, written from docs/format.md and sharing nothing with the product: if the
page and the programs come to differ, test_format.py fails. Small and slow; it stops with an AssertionError at what the page
does not allow."""
import functools
import hashlib
import json
import os
import re
import struct
import subprocess

PAGE = 4096
HEX32 = r'([0-9a-f]{64})'
NUMBER = r'(0|[1-9][0-9]*)'


def blake(data, bytes_=32):
    return hashlib.blake2b(data, digest_size=bytes_).digest()


def must(condition, what):
    if not condition:
        raise AssertionError(what)


# ---- carriers ----

def tar_members(data):
    """{name: content} and the offset of the first zero block."""
    members, at, pax = {}, 0, False
    while True:
        head = data[at:at + 512]
        must(len(head) == 512, 'the archive has no end')
        if head == bytes(512):
            return members, at
        must(head[257:265] == b'ustar\x0000', 'not a ustar header')
        size, kind = int(head[124:135], 8), head[156:157]
        checksum = sum(head) - sum(head[148:156]) + 8 * 32
        must(int(head[148:154], 8) == checksum, 'a header checksum is wrong')
        content = data[at + 512:at + 512 + size]
        must(len(content) == size, 'a member goes past the end')
        name = head[:100].rstrip(b'\0').decode('ascii')
        if kind == b'x':
            must(not pax and re.fullmatch(rb'[0-9]+ comment=[^\n]*\n', content), 'a pax header is more than padding')
            pax = True
        else:
            must(kind == b'0' and head[100:108] == b'0000644\0', f'{name} is no ordinary member')
            must(not name.startswith(('data/', 'disks/', 'boot/')) or (at + 512) % PAGE == 0, f'{name} is not aligned')
            members[name], pax = content, False
        at += 512 + (size + 511) // 512 * 512


def check_tail(data, end, members, generation, settled):
    """settled: nobody was killed in an append; else what is behind the first zero block does not count."""
    tail = members['TAIL']
    must(len(tail) == 512 and tail[480:] == blake(tail[:480]), 'TAIL does not fit itself')
    magic, version, features, its_generation, root_at, root_bytes, here, commit, size = struct.unpack_from('<8sIIQQQQQQ', tail)
    must((magic, version, features) == (b'HVATAIL1', 1, 0) and tail[64:480] == bytes(416), 'TAIL is not of version 1')
    must(its_generation == generation and data[root_at:root_at + root_bytes] == members['ROOT'], 'TAIL names another ROOT')
    must(data[here:here + 512] == tail and here < end, 'TAIL is somewhere else')
    must(commit == 0 or re.match(rb'[a-zA-Z]', data[commit:]), 'the commit block is no header')
    must(not settled or (size == len(data) == end + 1024 and data[end:] == bytes(1024)), 'there is no end')


def folder_members(folder):
    members = {}
    for at, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(at, name), 'rb') as f:
                members[os.path.relpath(f.name, folder)] = f.read()
    return members


# ---- segments ----

class Segment:
    def __init__(self, number, data, frames, table_hash):
        table_at, at, content_at, self.frames = self.table(data, frames), 0, 0, []
        length = struct.unpack_from('<I', data, table_at - 4)[0]
        table = data[table_at:table_at + length]
        must(data[table_at - 8:table_at - 4] == bytes.fromhex('5a2a4d18') and length == 16 + 64 * frames, 'no frame table')
        must(blake(table) == table_hash, f'the frame table of segment {number} is not the one that ROOT means')
        must(table[:16] == b'HVAFRMT1' + struct.pack('<II', number, frames), 'the frame table is of another segment')
        plain = subprocess.run(['zstd', '-dc'], input=data, capture_output=True, check=True).stdout
        seek = data[table_at + length + 8:]
        must(seek[8 * frames:] == struct.pack('<IBI', frames, 0, 0x8F92EAB1), 'no seek table')
        for i in range(frames):
            offset, stored, content, flags = struct.unpack_from('<IIII', table, 16 + 64 * i)
            short, full = table[32 + 64 * i:48 + 64 * i], table[48 + 64 * i:80 + 64 * i]
            must(offset == at and stored <= 260 << 10 and flags <= 1, 'a frame is not where it should be')
            must(struct.unpack_from('<II', seek, 8 * i) == (stored, content), 'the seek table differs')
            must(blake(data[at:at + stored]) == full, 'a frame is not what its table says')
            text = plain[content_at:content_at + content]
            if flags:
                must(text == bytes(content) and short == bytes(16), 'a hole has contents')
                must(data[at:at + 6] == bytes.fromhex('28b52ffdc038'), 'a hole is no RLE frame')
            else:
                must(blake(text, 16) == short and content <= 256 << 10, 'a content is not what its table says')
            self.frames.append(text)
            at, content_at = at + stored, content_at + content
        must(at == table_at - 8 and content_at == len(plain), 'there is more in the segment than its table says')

    @staticmethod
    def table(data, frames):
        """From the end: the seek table has a fixed size, the frame table in front of it too."""
        return len(data) - (8 + 8 * frames + 9) - (16 + 64 * frames)


# ---- the store ----

class Store:
    """members as they count; other: the members of the document that an instance belongs to."""

    def __init__(self, members, other=None):
        self.members, self.other = members, other or {}
        self.read_root(members['ROOT'].decode('ascii'))
        self.manifest = json.loads(self.member('manifest.json'))
        must(self.manifest['uuid'] == self.uuid, 'ROOT and manifest differ')
        self.versions = {}
        for name in self.listed:
            m = re.fullmatch(r'versions/([0-9a-f]{32})(\.[0-9]{6,})?\.json', name)
            if m:
                v = json.loads(self.member(name))
                must(v['id'] == m[1] and m[1] not in self.versions, f'{name} has another id')
                must(all('disk.' + d['id'] in v['objects'] for d in self.manifest['disks']), f'{name} lacks a disk')
                self.versions[m[1]] = v
        must(self.current is None or self.current in self.versions, 'the current version is missing')

    def read_root(self, text):
        body, end = text[:text.rindex('# end ')], text[text.rindex('# end '):]
        must(end == f'# end {blake(body.encode()).hex()}\n', 'ROOT does not fit its end')
        self.listed, self.tables, self.present, self.log, last = {}, {}, {}, None, None
        lines = body.split('\n')
        must(lines.pop(0) == '# haversack root 1' and lines.pop() == '', 'not a ROOT of version 1')
        for line in lines:
            if m := re.fullmatch(rf'# document (\S+) generation {NUMBER}', line):
                self.uuid, self.generation = m[1], int(m[2])
            elif m := re.fullmatch(r'# current (-|[0-9a-f]{32})', line):
                self.current = None if m[1] == '-' else m[1]
            elif m := re.fullmatch(rf'# next {NUMBER}', line):
                self.next = int(m[1])
            elif m := re.fullmatch(rf'# log {NUMBER} {NUMBER}', line):
                self.log = int(m[1]), int(m[2])
            elif m := re.fullmatch(rf'# present ([a-z0-9.-]{{1,40}}) {NUMBER} {HEX32}', line):
                self.present[m[1]] = int(m[2]), m[3]
            elif m := re.fullmatch(rf'BLAKE2b-256 \((\S+)\) = {HEX32}', line):
                must(last is None or last < m[1], 'members are not sorted')
                last = m[1]
                self.listed[last] = bytes.fromhex(m[2])
            elif m := re.fullmatch(rf'# segment {NUMBER} frames {NUMBER} table {HEX32}', line):
                must(int(last.split('/')[-1].split('.')[0]) == int(m[1]), 'a segment line is behind another member')
                self.tables[int(m[1])] = last, int(m[2]), bytes.fromhex(m[3])
            else:
                raise AssertionError(f'ROOT has the line {line!r}')

    @functools.lru_cache(maxsize=None)
    def member(self, name):
        data = self.members.get(name, self.other.get(name))
        must(data is not None, f'{name} is missing')
        must(blake(data) == self.listed[name], f'{name} is not what ROOT says')
        return data

    @functools.lru_cache(maxsize=None)
    def segment(self, number):
        name, frames, table = self.tables[number]
        must(number < self.next, 'a number is used that is to come')
        return Segment(number, self.member(name), frames, table)

    def node(self, reference, size):
        number, offset = struct.unpack_from('<II', reference)
        data = self.member(f'map/{number:06}')[offset:offset + size]
        must(len(data) == size and blake(data, 24) == reference[8:], 'a node is not what its reference says')
        return data

    def pages(self, reference, pages, span, into, first):
        """What is below a node that stands for span pages, of which the object has that many."""
        if reference == bytes(32):
            return
        leaf = span == 128
        node = self.node(reference, 1024 if leaf else 4096)
        step, width = (1, 8) if leaf else (span // 128, 32)
        for i in range(128):
            entry, left = node[width * i:width * (i + 1)], pages - i * step
            if left <= 0:
                must(entry == bytes(width), 'there is something behind the end of an object')
            elif leaf:
                into[(first + i) * PAGE:(first + i + 1) * PAGE] = self.page(struct.unpack('<Q', entry)[0])
            else:
                self.pages(entry, min(left, step), step, into, first + i * step)

    def page(self, entry):
        if entry == 0:
            return bytes(PAGE)
        must(entry >> 60 == 1, 'an entry is of an unknown type')
        text, slot = self.segment(entry >> 28 & 0xffffffff).frames[entry >> 8 & 0xfffff], (entry & 0xff) * PAGE
        must(len(text) >= slot + PAGE, 'a slot is behind its frame')
        return text[slot:slot + PAGE]

    def content(self, bytes_, reference):
        data = bytearray(bytes_)
        must(bytes_ % PAGE == 0, 'a size is not of whole pages')
        span = 128
        while span < bytes_ // PAGE:
            span *= 128
        self.pages(bytes.fromhex(reference), bytes_ // PAGE, span, data, 0)
        return data

    def object(self, version, name):
        o = self.versions[version]['objects'][name]
        return self.content(o['bytes'], o['map'])

    def blob(self, what):
        data = b''.join(self.segment(s).frames[f] for s, f in what['frames'])
        must(len(data) == what['bytes'], 'a list of frames has another size')
        return data

    # ---- an instance's log ----

    def records(self):
        """(type, disk or version id, first page, pages, payload) of all that counts."""
        number, expected = self.log or (0, 0)
        while f'log/{number:06}' in self.members:
            data = self.members[f'log/{number:06}']
            magic, its_number, zero, epoch, first = struct.unpack_from('<8sIIQQ', data)
            if magic != b'HVALOG1\0' or its_number != number or xxh128(data[:48]) != data[48:64]:
                return
            at, sequence_here = 64, first
            while len(data) >= at + 64:
                magic, kind, its_epoch, sequence, disk, pages, page, zero = struct.unpack_from('<IIQQIIQQ', data, at)
                payload = data[at + 64:at + 64 + (pages * PAGE if kind == 1 else 0)]
                if (magic != 0x474c5648 or its_epoch != epoch or sequence != sequence_here or
                        xxh128(data[at:at + 48] + payload) != data[at + 48:at + 64]):
                    return
                if sequence >= expected:
                    yield kind, data[at + 24:at + 40].hex() if kind == 3 else disk, page, pages, payload
                sequence_here, at = sequence + 1, at + 64 + len(payload)
            number += 1

    def disk_now(self, index):
        """The present content of a disk: ROOT's, and the log on top."""
        name = 'disk.' + self.manifest['disks'][index]['id']
        data = self.content(*self.present[name])
        for kind, which, page, pages, payload in self.records():
            if kind == 3:
                data = self.object(which, name)
            elif which == index:
                data[page * PAGE:(page + pages) * PAGE] = payload if kind == 1 else bytes(pages * PAGE)
        return bytes(data)


def xxh128(data):
    out = subprocess.run(['xxhsum', '-H2', '-'], input=data, capture_output=True, check=True).stdout
    return bytes.fromhex(out.split()[0].decode())


def open_document(path, settled=True):
    with open(path, 'rb') as f:
        data = f.read()
    members, end = tar_members(data)
    must(next(iter(members)) == 'mimetype' and members['mimetype'] == b'application/vnd.haversack.appliance', 'no mimetype')
    store = Store(members)
    check_tail(data, end, members, store.generation, settled)
    return store


def open_instance(folder, document):
    return Store(folder_members(folder), open_document(document, settled=False).members)
