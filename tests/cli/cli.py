#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""cli.py SHUNT [--update] - report and dump on made-up traces, against golden output.

The traces are written here byte by byte, so that this is also a test of the
format that docs/formats.md promises. Speaks TAP.
"""
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import xml.dom.minidom

SHUNT = os.path.abspath(sys.argv[1])
UPDATE = '--update' in sys.argv
HERE = os.path.dirname(os.path.abspath(__file__))
count = failed = 0


def ok(cond, name):
    global count, failed
    count += 1
    failed += not cond
    print('%sok %d - %s' % ('' if cond else 'not ', count, name), flush=True)
    return cond


def diag(text):
    for line in str(text).splitlines()[:40]:
        print('# ' + line)


def shunt(*args, **kw):
    return subprocess.run([SHUNT, *args], capture_output=True, text=True, timeout=120, **kw)


PAGE = 1024
END = 3 << 2 | 3


def word(ts, fn, leave=False, slot=3):
    return (ts & 0xffffffff) << 32 | (fn | slot << 24 | (1 << 30 if leave else 0)) << 1


def page(seq, words, slot=0, tid=7, pid=5, image=1, hi=0, discarded=0):
    head = struct.pack('<IHHIIIIQQQQQ', 0x47504853, 1, 64, slot, image, pid, tid, seq + 1, seq,
                       hi << 32, discarded, 0)
    empty = (seq + 1) << 32 | 3
    body = words + [END] + [empty] * ((PAGE - 64) // 8 - len(words) - 1)
    return head + b''.join(struct.pack('<Q', w) for w in body)


INFO = '''shunt-trace 1
page-size %d
clock tsc
clock-hz 1000000000
clock-base-ticks 0
clock-base-ns 1700000000000000000
mode discard
command ./victim "with" <args> & more
hostname here
started 2026-01-01T00:00:00Z
complete yes
''' % PAGE

NAMES = ['main', '_ZN3foo3barEi', 'leaf', '?', 'co"ro', 'jumper']


def objects(image=1, names=NAMES):
    return ('shunt-object 1\nimage %d\npid 5\npath /usr/bin/victim\nbuild-id abcd\nbase 400000\n'
            'first-id 0\nfunctions %d\n' % (image, len(names)) +
            ''.join('%x 10 %s\n' % (0x1000 + 16 * i, n) for i, n in enumerate(names)) + 'end\n')


THREADS = '''slot image pid tid comm written discarded overwritten read torn
0 1 5 7 main\\x20one 0 0 0 0 0
1 1 5 8 worker 0 0 0 0 0
total 12 3 0 12 0
'''


def trace(path, data, info=INFO, obj=objects(), threads=THREADS):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path + '/objects')
    for name, text in (('info', info), ('objects/1-0', obj), ('threads', threads)):
        if text is not None:
            open(os.path.join(path, name), 'w').write(text)
    open(path + '/data', 'wb').write(data)
    return path


def calls(start, depth, slot=0):
    """main { foo { leaf } } with times that can be read off."""
    e = [word(start + 10 * i, i, slot=slot + i) for i in range(depth)]
    e += [word(start + 100 + 50 * i, depth - 1 - i, True, slot=slot + depth - 1 - i)
          for i in range(depth)]
    return e


def golden(name, text):
    path = os.path.join(HERE, 'golden', name)
    if UPDATE:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, 'w').write(text)
    want = open(path).read() if os.path.exists(path) else None
    if not ok(text == want, name + ' is as expected'):
        diag(text)


def events_of(path):
    return json.loads(shunt('report', '--json', path).stdout)


def ctf_check(path, name):
    shutil.rmtree('ctf', ignore_errors=True)
    r = shunt('dump', '--ctf', 'ctf', path)
    ok(r.returncode == 0, name + ': CTF is written') or diag(r.stderr)
    if not shutil.which('babeltrace2'):
        print('ok %d # SKIP no babeltrace2' % (count + 1))
        return
    b = subprocess.run(['babeltrace2', 'ctf'], capture_output=True, text=True, timeout=60)
    n = len(b.stdout.splitlines())
    ok(b.returncode == 0 and n == events_of(path)['events'],
       '%s: babeltrace2 prints as many events as report counts (%d)' % (name, n)) or diag(b.stderr)
    return b


def nests(doc):
    stacks, good, last = {}, True, {}
    for e in doc['traceEvents']:
        key = e['pid'], e['tid']
        if e['ph'] == 'B':
            stacks.setdefault(key, []).append(e['name'])
        elif e['ph'] == 'E':
            good = good and stacks[key] and stacks[key].pop() == e['name']
        if e['ph'] in 'BE':
            good = good and e['ts'] >= last.get(key, 0)
            last[key] = e['ts']
    return good and not any(stacks.values())


def chrome_check(path, name):
    r = shunt('dump', '--chrome', 'out.json', path)
    doc = json.load(open('out.json'))
    ok(r.returncode == 0 and nests(doc), name + ': Chrome events nest and end')
    return doc


def split_check(path, whole):
    """Each part nests by itself; all of them have each event once, and the cuts."""
    r = shunt('dump', '--chrome', 'cut.json', '--split', '0.00000113', path)
    parts = sorted(f for f in os.listdir('.') if f.startswith('cut-'))
    docs = [json.load(open(f)) for f in parts]
    ok(r.returncode == 0 and len(parts) == 3 and all(nests(d) for d in docs),
       '--split: %d parts, each nests by itself' % len(parts)) or diag(r.stderr)
    width, times, right = 1.13, [], True
    for f, d in zip(parts, docs):
        lo = (int(f[4:7]) - 1) * width
        for e in d['traceEvents']:
            if e['ph'] in 'BE':
                right = right and lo - 1e-9 <= e['ts'] <= lo + width + 1e-9
                at_cut = abs(e['ts'] / width - round(e['ts'] / width)) < 1e-6
                if not at_cut:
                    times.append((e['ph'], e['ts'], e['tid'], e['name']))
    want = [(e['ph'], e['ts'], e['tid'], e['name']) for e in whole['traceEvents'] if e['ph'] in 'BE']
    ok(right and sorted(times) == sorted(want), '--split: each event once, in its own part') or \
        diag('%s\n%s' % (sorted(times), sorted(want)))
    r = shunt('dump', '--chrome', 'many.json', '--split', '0.000001', path)
    ok(r.returncode == 0, '--split: a microsecond')
    r = shunt('dump', '--text', '--split', '1', path)
    ok(r.returncode == 2 and '--chrome' in r.stderr, '--split without --chrome is refused')


def odd_names():
    """What programs call things, they do not always mean well."""
    odd = ['grün', 'a\x1b[2Jb', 'bad\udcff', '日本', 'x<y>&"z\'', 'tab\x7f']
    path = trace('odd', page(0, [w for i in range(len(odd)) for w in
                                 (word(100 + i * 10, i), word(105 + i * 10, i, True))]),
                 obj=None, threads=THREADS.replace('main\\x20one', 'e\\x1b[31m'))
    with open(path + '/objects/1-0', 'w', errors='surrogateescape') as f:
        f.write(objects(names=odd))
    j = subprocess.run([SHUNT, 'report', '--json', path], capture_output=True).stdout
    names = {f['name'] for f in json.loads(j.decode())['functions']}
    ok(names == {n.replace('\udcff', '\ufffd') for n in odd}, 'JSON: names are UTF-8') or diag(names)
    shunt('dump', '--chrome', 'odd.json', path)
    doc = json.load(open('odd.json', encoding='utf-8'))
    ok({n.replace('\udcff', '\ufffd') for n in odd} <= {e['name'] for e in doc['traceEvents']},
       'Chrome: names are UTF-8')
    ok(any(e['name'] == 'process_name' and e['args']['name'] == 'victim'
           for e in doc['traceEvents']), 'Chrome: the process has its name')
    for how in ('report',), ('dump', '--text'), ('dump', '--raw'):
        out = subprocess.run([SHUNT, *how, path], capture_output=True).stdout
        ok(b'\x1b' not in out and b'\xff' not in out and b'\x7f' not in out and
           b'a\\x1b[2Jb' in out and 'grün'.encode() in out, ' '.join(how) +
           ': control characters are shown, not sent') or diag(out)
    shunt('dump', '--flame', 'odd.svg', path)
    try:
        xml.dom.minidom.parse('odd.svg')
        good = 'grün' in open('odd.svg', encoding='utf-8').read()
    except Exception as e:
        diag(e)
        good = False
    ok(good, 'the flame graph is XML with any names')


def narrowed(plain):
    r = shunt('dump', '--raw', '--thread', '8', plain)
    ok(r.returncode == 0 and len(r.stdout.splitlines()) == 6 and
       all(' 8 worker' in l for l in r.stdout.splitlines()), '--thread leaves one thread') or diag(r)
    r = shunt('dump', '--raw', '--filter', 'foo::*', plain)
    ok(r.returncode == 0 and len(r.stdout.splitlines()) == 6 and
       all('foo::bar(int)' in l for l in r.stdout.splitlines()), '--filter leaves such functions')
    for args, what in ((['--thread', '99'], 'thread 99'), (['--filter', 'nix'], "'nix'")):
        r = shunt('dump', '--raw', *args, plain)
        ok(r.returncode == 1 and what in r.stderr and not r.stdout, 'none such: %s' % r.stderr.strip())
    for args in ['--thread', 'x'], ['--thread', '-1'], ['--split', '0'], ['--split', 'x']:
        r = shunt('dump', '--chrome', 'no.json', *args, plain)
        ok(r.returncode == 2 and len(r.stderr.splitlines()) == 1 and not os.path.exists('no.json'),
           'refused: ' + ' '.join(args)) or diag(r)


def main():
    os.chdir(tempfile.mkdtemp(prefix='shunt-cli-'))
    plain = trace('plain', page(0, calls(1000, 3)) + page(0, calls(1020, 3), slot=1, tid=8) +
                  page(1, calls(5000, 2)))
    for args, name in ((['report'], 'report'), (['report', '--by-thread', '--sort', 'calls'],
                       'report-by-thread'), (['report', '--json'], 'report-json'),
                       (['report', '--filter', 'foo*', '--limit', '1'], 'report-filter'),
                       (['dump', '--text'], 'dump-text'), (['dump', '--raw'], 'dump-raw')):
        r = shunt(*args, plain)
        golden(name, r.stdout)
        ok(r.returncode == 0 and not r.stderr, name + ' says nothing else') or diag(r.stderr)
    b = ctf_check(plain, 'plain')
    if b:
        ok(not b.stderr, 'babeltrace2 has no complaint') or diag(b.stderr)
        ok('vtid = 8' in b.stdout and 'procname = "main one"' in b.stdout and
           'name = "foo::bar(int)"' in b.stdout, 'CTF has thread, process and function')
    doc = chrome_check(plain, 'plain')
    ok(any(e.get('args', {}).get('name') == 'main one' for e in doc['traceEvents']),
       'Chrome: threads have names')
    split_check(plain, doc)
    narrowed(plain)
    odd_names()
    r = shunt('dump', '--flame', 'f.svg', plain)
    svg = open('f.svg').read()
    xml.dom.minidom.parseString(svg)
    ok(r.returncode == 0 and 'foo::bar(int)' in svg and '<title>' in svg,
       'the flame graph is XML with hover text')
    golden('flame.svg', svg)

    r = shunt('dump', '--raw', '--from', '0.000001100', '--to', '0.000005', plain)
    ok(len(r.stdout.splitlines()) == 6, '--from and --to cut a part out') or diag(r.stdout)

    # Activations that do not return: longjmp, exceptions, coroutines, recursion.
    left = trace('left', page(0, [
        word(10, 0, slot=1), word(20, 5, slot=2), word(30, 2, slot=3), word(40, 2, slot=4),
        word(50, 0, True, slot=1),                 # main returns over three frames
        word(60, 0, slot=1), word(70, 4, slot=9),  # a coroutine is entered ...
        word(80, 0, True, slot=1),                 # ... left ...
        word(90, 4, True, slot=9),                 # ... and comes back
        word(95, 2, True, slot=7),                 # an exit without an entry
        word(100, 0, slot=1), word(110, 0, slot=2), word(120, 0, slot=3),
        word(130, 0, True, slot=2),                # the innermost was left: told by its slot
        word(140, 0, True, slot=1), word(150, 2, slot=1)]))
    golden('left-text', shunt('dump', '--text', left).stdout)
    j = events_of(left)
    by = {f['name']: f for f in j['functions']}
    ok(j['orphan_exits'] == 1, 'an exit without an entry is counted apart')
    ok(by['main']['calls'] == 5 and by['main']['left'] == 1 and by['jumper']['left'] == 1,
       'what was left is told from what returned')
    ok(by['co"ro']['total_ns'] == 20 and by['co"ro']['left'] == 0,
       'a coroutine that comes back has its whole time')
    chrome_check(left, 'left')
    ctf_check(left, 'left')

    # The clock's high half changes within a page and between pages.
    clock = trace('clock', page(0, [word(0xfffffff0, 0), 4 << 2 | 3 | 1 << 32, word(16, 0, True)]) +
                  page(1, [word(5, 0), word(6, 0, True)], hi=2))
    f = events_of(clock)['functions'][0]
    ok(f['calls'] == 2 and f['max_ns'] == 32, 'times are right over a change of the high half')

    # Losses are a thread's own: none are carried over to the next stream file.
    lossy = trace('lossy', b''.join(
        page(s, calls(1000 + s * 5000, 3) * 19, tid=7, discarded=10 * s) for s in range(100)) +
        b''.join(page(s, calls(1000 + s * 5000, 3) * 19, slot=1, tid=8) for s in range(100)),
        threads='heading\n0 1 5 7 a 0 1000 0 0 0\n1 1 5 8 b 0 0 0 0 0\ntotal 0 1000 0 0 0\n')
    b = ctf_check(lossy, 'lossy')
    if b:
        lost = [int(l.split('discarded ')[1].split()[0]) for l in b.stderr.splitlines()
                if 'Tracer discarded' in l]
        ok('thread_5_8' not in b.stderr and 0 < sum(lost) <= 1000,
           'CTF: each thread has its own losses') or diag(b.stderr)

    # Two images of one program add up; ids resolve in their own image.
    two = trace('two', page(0, calls(1000, 2)) + page(0, calls(1000, 2), image=2, pid=6, tid=9))
    open('two/objects/2-0', 'w').write(objects(2, ['other', 'main']))
    by = {f['name']: f for f in events_of(two)['functions']}
    ok(by['main']['calls'] == 2 and by['other']['calls'] == 1, 'process images have ids of their own')

    # Damage.
    whole = open('plain/data', 'rb').read()
    for name, data, info, obj, thr, said in (
            ('cut', whole[:PAGE * 2 + 500], INFO, objects(), THREADS, 'cut off'),
            ('short', whole[:PAGE * 2 + 20], INFO, objects(), THREADS, 'middle of a page'),
            ('magic', b'junk' * 256 + whole, INFO, objects(), THREADS, 'no page at byte 0'),
            ('no-info', whole, None, objects(), THREADS, 'info: not there'),
            ('bad-info', whole, 'nonsense\n', objects(), THREADS, 'info: damaged'),
            ('bad-page-size', whole, INFO.replace('1024', '1000'), objects(), THREADS, 'page-size'),
            ('no-objects', whole, INFO, 'rubbish', THREADS, 'objects/1-0: no list of functions'),
            ('short-objects', whole, INFO, objects()[:150], THREADS, 'ends after'),
            ('huge-objects', whole, INFO, objects().replace('functions 6', 'functions 99999999999'),
             THREADS, 'cannot be in it'),
            ('no-threads', whole, INFO, objects(), None, '--recover'),
            ('word', page(0, [word(1, 0), 0x3f << 2 | 3]) + whole, INFO, objects(), THREADS,
             'is damaged')):
        t = trace('damaged', data, info, obj, thr)
        r = shunt('report', t)
        ok(r.returncode in (0, 1) and said in r.stderr,
           'damaged: %s: what is wrong is named' % name) or diag(r.stderr)
        ok(name in ('no-info', 'bad-info', 'bad-page-size') or
           'events' in r.stdout and not r.stdout.startswith('0 events'),
           'damaged: %s: what can be read is read' % name) or diag(r.stdout)
    r = shunt('report', trace('junk', os.urandom(5000)))
    ok(r.returncode == 1, 'a trace of nothing but junk is a failure')
    r = shunt('report', 'nowhere')
    ok(r.returncode == 1 and "'shunt record'" in r.stderr, 'no such directory: the way out is named')

    # Wrong use.
    for args in (['report', '--sort', 'colour'], ['report', '--sort', 'x'], ['report', '--limit', '-1'], ['report', '--limit', 'x'], ['report', 'a', 'b'],
                 ['report', '--nonsense'], ['dump'], ['dump', '--text', '--raw'], ['dump', '--ctf'],
                 ['dump', '--text', 'a', 'b'],
                 ['dump', '--text', '--from', 'x'], ['nonsense'], []):
        r = shunt(*args)
        ok(r.returncode == 2 and len(r.stderr.splitlines()) <= 2 and 'shunt' in r.stderr,
           'wrong use: shunt %s' % ' '.join(args)) or diag(r.stderr)
    r = shunt('dump', '--ctf', 'plain', 'plain')
    ok(r.returncode == 1 and 'exists' in r.stderr, 'an existing directory is not written into')

    # Bounded memory: 128 MiB of data, in an address space that does not hold it.
    one = page(0, calls(1000, 3) * 15)
    trace('large', b'')
    with open('large/data', 'wb') as f:
        for i in range(128 << 10):
            f.write(one[:24] + struct.pack('<QQ', i + 1, i) + one[40:])
    for args in (['report'], ['dump', '--flame', 'large.svg']):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (112 << 20, 112 << 20))
        r = shunt(*args, 'large', preexec_fn=limit)
        ok(r.returncode == 0, '%s of 128 MiB in 112 MiB of address space' % args[0]) or diag(r.stderr)
    shutil.rmtree(os.getcwd())
    print('1..%d' % count)
    return failed != 0


sys.exit(main())
