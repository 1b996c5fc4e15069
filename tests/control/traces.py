# SPDX-License-Identifier: MIT
"""Reads a trace directory in the plainest way: counts entries per function.

An independent second reader, so that the tests of `shunt record` do not take
`shunt report`'s word for it. The format is docs/formats.md's.
"""
import collections
import os
import struct

PAGE = struct.Struct('<IHHIIIIQQQQQ')
MAGIC = 0x47504853


def info(trace):
    out = {}
    with open(os.path.join(trace, 'info')) as f:
        for line in f:
            key, _, value = line.rstrip('\n').partition(' ')
            out[key] = value
    return out


def objects(trace):
    """{image: [(first_id, count, path, [names])]}"""
    out = collections.defaultdict(list)
    where = os.path.join(trace, 'objects')
    for name in sorted(os.listdir(where)):
        head, names = {}, []
        with open(os.path.join(where, name), errors='surrogateescape') as f:
            for line in f:
                line = line.rstrip('\n')
                if 'functions' in head and line != 'end':
                    names.append(line.split(' ', 2)[2])
                    continue
                key, _, value = line.partition(' ')
                head[key] = value
        assert 'end' in head, name + ' has no end'
        assert len(names) == int(head['functions']), name
        assert int(head['image']) == int(name.split('-')[0]), name
        out[int(head['image'])].append((int(head['first-id']), len(names), head['path'], names))
    return out


class Trace:
    def __init__(self, trace):
        self.info = info(trace)
        self.objects = objects(trace)
        self.entries = collections.Counter()   # (image, pid, name)
        self.exits = collections.Counter()
        self.words = collections.defaultdict(collections.Counter)
        self.events = 0
        self.order = True
        self.last = {}
        size = int(self.info['page-size'])
        with open(os.path.join(trace, 'data'), 'rb') as f:
            while True:
                page = f.read(size)
                if not page:
                    break
                assert len(page) == size, 'a part of a page'
                self.page(page)
        self.count()
        self.threads = []
        with open(os.path.join(trace, 'threads')) as f:
            rows = [line.split() for line in f]
        for row in rows[1:]:
            if row[0] == 'total':
                self.total = dict(zip(rows[0][5:], map(int, row[1:])))
            else:
                self.threads.append(dict(zip(rows[0], row)))

    def name(self, image, k):
        for first, n, _, names in self.objects[image]:
            if first <= k < first + n:
                return names[k - first]
        return '#%d' % k

    def page(self, page):
        magic, _, header, slot, image, pid, tid, instance, seq, ts, _, _ = PAGE.unpack_from(page)
        assert magic == MAGIC
        key = (image, pid, tid, slot)
        self.order &= self.last.get(key, -1) < seq
        self.last[key] = seq
        # low halves of the words; behind the last event all are odd
        lows = memoryview(page)[header:].cast('I')[::2].tolist()
        self.words[image, pid].update(lows)

    def count(self):
        for (image, pid), words in self.words.items():
            for word, n in words.items():
                if word & 1:
                    continue
                tag = word >> 1
                self.events += n
                which = self.exits if tag >> 30 & 1 else self.entries
                which[image, pid, self.name(image, tag & 0xffffff)] += n

    def calls(self, name, pid=None):
        return sum(n for (_, p, f), n in self.entries.items()
                   if f == name and pid in (None, p))

    def images(self):
        return {image for image, _, _ in self.entries}
