#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""set.py SHUNT AGENT KNOBS TRACEPOINT [ROUNDS] - shunt list, set, watch on examples/knobs.c, alone
and under shunt record; tracepoints of examples/tracepoint.c recorded. TAP."""
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SHUNT, AGENT, KNOBS, TRACEPOINT = map(os.path.abspath, sys.argv[1:5])
ROUNDS = int(sys.argv[5]) if len(sys.argv) > 5 else 200
os.environ['SHUNT_AGENT'] = AGENT
for name in ('LD_PRELOAD', 'SHUNT_DIR', 'SHUNT_CONTROL'):
    os.environ.pop(name, None)
WORK = tempfile.mkdtemp(prefix='shunt-set-')
count = failed = 0


def ok(cond, what, why=''):
    global count, failed
    count += 1
    failed += not cond
    print('%sok %d - %s' % ('' if cond else 'not ', count, what), flush=True)
    if not cond and why:
        print('# ' + str(why)[:2000].replace('\n', '\n# '), flush=True)


def shunt(*args):
    return subprocess.run([SHUNT, *map(str, args)], capture_output=True, text=True, timeout=60)


class Knobs:
    def __init__(self, *before):
        self.path = os.path.join(WORK, 'settled')
        with open(self.path, 'wb') as f:
            f.write(b'\0' * 8)
        self.file = open(self.path, 'r+b')
        self.map = mmap.mmap(self.file.fileno(), 8)
        self.p = subprocess.Popen([*before, KNOBS, self.path], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.pid = int(self.p.stdout.readline())

    def settle(self, n):
        self.map[0:8] = n.to_bytes(8, 'little')

    def values(self, *args):
        p = shunt('list', '--json', '--values', self.pid, *args)
        return {v['name']: v for v in json.loads(p.stdout) if not v['name'].startswith('shunt_')}

    def end(self):
        out, err = self.p.communicate(timeout=60)
        words = out.split()
        seen = {k: int(v) for k, v in zip(words[::2], words[1::2]) if v.isdigit()}
        return self.p.returncode, seen, err


def listing(k):
    v = k.values()
    ok({n: (x['kind'], x['type'], x['value'], x['private']) for n, x in v.items()} == {
        'limit': ('imv', 'u32', '100', False), 'rate': ('imv', 'f64', '0.5', False),
        'verbose': ('key', 'bool', 'false', False), 'safe': ('key', 'bool', 'true', True),
        'filter': ('call', 'function', 'same', False), 'way': ('choice', 'state', 'plain', False)},
        'list: kinds, types, values', v)
    ok(all(x['sites'] >= 1 and x['object'] == 'knobs' for x in v.values()), 'sites and object', v)
    ok(set(k.values('*er*')) == {'filter', 'verbose'}, 'list with a pattern')
    p = shunt('list', k.pid, 'limit')
    ok(p.returncode == 0 and 'limit = 100' in p.stdout, 'list as text', p.stdout + p.stderr)


def setting(k):
    for what, after in (('limit=200', '100 -> 200'), ('limit=0x64', '200 -> 100'),
                        ('verbose=on', 'false -> true'), ('filter=twice', 'same -> twice'),
                        ('way=turbo', 'plain -> turbo'), ('way=1', 'turbo -> fast'),
                        ('rate=2.5e3', '0.5 -> 2500'), ('knobs:limit=100', '100 -> 100')):
        p = shunt('set', k.pid, what)
        ok(p.returncode == 0 and after in p.stdout, 'set ' + what, p.stdout + p.stderr)
    address = k.values('limit')['limit']['address'][2:]
    p = shunt('set', k.pid, 'limit@%s=200' % address, 'way=plain')
    ok(p.returncode == 0 and '100 -> 200' in p.stdout and 'fast -> plain' in p.stdout,
       'by address, and two at once', p.stderr)


def refusals(k):
    before = k.values()
    for what, words in (('limit=-1', 'range'), ('limit=4294967296', 'range'), ('limit=many', 'integer'),
                        ('limit=', 'integer'), ('rate=fast', 'number'), ('verbose=7', 'true or false'),
                        ('way=warp', 'plain, fast, turbo'), ('way=3', 'no such state'),
                        ('filter=printf', 'SHUNT_CALL_OFFER'), ('safe=false', 'private'),
                        ('nobody=1', 'nothing is called nobody'), ('a.out:limit=1', 'nothing is called'),
                        ('limit@1=1', 'nothing is called'), ('limit@x=1', 'NAME@ADDRESS')):
        p = shunt('set', k.pid, what)
        ok(p.returncode == 1 and words in p.stderr and len(p.stderr.splitlines()) == 1 and
           not p.stdout, 'refused: ' + what, p.stdout + p.stderr)
    ok(k.values() == before, 'and nothing has changed')
    for args in (['set'], ['set', k.pid], ['set', k.pid, 'limit'], ['set', k.pid, '=1'],
                 ['set', 'x', 'a=1'], ['watch'], ['watch', k.pid, 'a', 'b']):
        p = shunt(*args)
        ok(p.returncode == 2 and len(p.stderr.splitlines()) == 1, 'wrong use: %s' % args[:1], p.stderr)
    p = shunt('set', os.getpid(), 'limit=1')
    ok(p.returncode == 1 and 'does not listen' in p.stderr, 'a process that does not listen', p.stderr)


def promise(k):
    bad = 0
    for i in range(ROUNDS):
        n = 100 if i & 1 else 200
        k.settle(0)
        bad += shunt('set', k.pid, 'limit=%d' % n).returncode != 0
        k.settle((i + 1) << 32 | n)
    k.settle(0)
    ok(not bad, '%d times limit=100 or 200' % ROUNDS)


def watching(k):
    w = subprocess.Popen([SHUNT, 'watch', str(k.pid), '[lw]*'], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    for what in ('limit=200', 'verbose=off', 'way=fast', 'limit=200', 'limit=100'):
        shunt('set', k.pid, what)
    time.sleep(0.5)
    w.send_signal(signal.SIGINT)
    out, _ = w.communicate(timeout=20)
    got = [line.split('  ', 1)[1] for line in out.splitlines()]
    ok(w.returncode == 0 and got == ['limit = 200', 'way = fast', 'limit = 100'], 'watch', out)


def alone():
    k = Knobs()
    listing(k)
    setting(k)
    refusals(k)
    promise(k)
    watching(k)
    p = shunt('enable', k.pid, '*')
    ok(p.returncode == 1 and 'not recorded' in p.stderr, 'its functions are not recorded', p.stderr)
    code, seen, err = k.end()
    ok(code == 0 and seen['reads'] > 1000 and not seen['late'] and not seen['illegal'] and
       seen['verbose'] and seen['twice'] and seen['turbo'] and seen['fast'],
       'its threads saw what was set and nothing else', (code, seen, err))
    ok(not [d for d in os.listdir('/dev/shm') if d.startswith('shunt-') and os.path.isdir('/dev/shm/' + d) and
            open('/dev/shm/%s/ctl' % d, 'rb').read(24)[16:20] == k.pid.to_bytes(4, 'little')],
       'and it leaves nothing behind')


def recorded():
    trace = os.path.join(WORK, 't')
    k = Knobs(SHUNT, 'record', '-o', trace, '-b', '8M', '--')
    v = k.values()
    ok(len(v) == 6, 'under shunt record: list', v)
    p = shunt('set', k.pid, 'limit=200', 'filter=twice')
    ok(p.returncode == 0 and '100 -> 200' in p.stdout, 'set', p.stderr)
    promise(k)
    os.kill(k.pid, signal.SIGTERM)
    code, seen, err = k.end()
    ok(code == 0 and seen['reads'] > 1000 and not seen['late'] and not seen['illegal'] and seen['twice'],
       'its threads saw what was set and nothing else', (code, seen, err))


def by_environment():
    p = subprocess.Popen([KNOBS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                         env=dict(os.environ, SHUNT_CONTROL='1'))
    pid = int(p.stdout.readline())
    ok(shunt('set', pid, 'limit=200').returncode == 0, 'SHUNT_CONTROL=1')
    ok(p.communicate(timeout=60)[0] and p.returncode == 0, 'ends well')


def record(*options, program=(TRACEPOINT,)):
    trace = os.path.join(WORK, 'p')
    shutil.rmtree(trace, ignore_errors=True)
    p = subprocess.run([SHUNT, 'record', '-o', trace, '-b', '8M', *options, '--', *program],
                       capture_output=True, text=True, timeout=60)
    return p, trace


def text(trace):
    return [line.split('| ', 1)[1].strip() for line in
            subprocess.run([SHUNT, 'dump', '--text', trace], capture_output=True, text=True)
            .stdout.splitlines()]


def tracepoints():
    p, trace = record('-e', 'net:*', '-e', 'mark:*')
    ok(p.returncode == 0 and 'patchable' not in p.stderr and '2,060 events' in p.stderr,
       'record -e', p.stderr)
    r = json.loads(shunt('report', '--json', trace).stdout)
    ok(r['points'] == {'net:packet': 2000, 'net:state': 20, 'net:idle': 20, 'mark:progress': 20} and
       r['events'] == 2060, 'report counts them', r['points'])
    lines = text(trace)
    ok('net:packet: len=7, port=80, device="lo"' in lines and 'net:idle' in lines and
       'net:state: now=HALF_OPEN, load=0, mac=[2, 0, 0, 0, 0, 7], queue=[0]' in lines and
       'net:state: now=OPEN, load=50, mac=[2, 0, 0, 0, 0, 7], queue=[200, -1, 7]' in lines and
       'mark:progress: message="eth0: 900 of 1000"' in lines, 'dump --text has their fields', lines[:9])
    out = os.path.join(WORK, 'ctf')
    shunt('dump', '--ctf', out, trace)
    if shutil.which('babeltrace2'):
        b = subprocess.run(['babeltrace2', out], capture_output=True, text=True)
        ok(b.stdout.count('\n') == 2060 and not b.stderr and
           'now = ( "OPEN" : container = 1 ), load = 50, mac = [ [0] = 2' in b.stdout and
           'queue = [ [0] = 200, [1] = -1, [2] = 7 ]' in b.stdout, 'babeltrace2 reads them', b.stderr)
    chrome = os.path.join(WORK, 'c.json')
    shunt('dump', '--chrome', chrome, trace)
    events = [e for e in json.load(open(chrome))['traceEvents'] if e['ph'] == 'i']
    ok(len(events) == 2060 and {'name': 'net:packet', 'args': {'len': 7, 'port': 80, 'device': 'lo'}} in
       [{'name': e['name'], 'args': e['args']} for e in events], 'and Chrome JSON')
    ok(len([x for x in shunt('dump', '--raw', '--filter', 'net:i*', trace).stdout.splitlines()
            if x.endswith('net:idle')]) == 20, 'dump --filter')
    p, trace = record('-e', 'net:packet', '--event-filter', 'len >= 998 && device == "eth*"')
    ok(text(trace) == ['net:packet: len=998, port=443, device="eth0"',
                       'net:packet: len=999, port=80, device="eth0"'], 'record --event-filter', text(trace))
    p, trace = record('-e', 'net:packet', '--event-filter', 'size == 1')
    ok('there is no field size' in p.stderr, 'a filter that does not fit', p.stderr)
    p, trace = record('-e', 'nobody:*')
    ok('no tracepoint matched' in p.stderr, 'nothing of that name', p.stderr)
    for options in (('--event-filter', 'x == 1'), ('-e', ''), ('-e', 'a:['), ('-e', 'a:b', '--event-filter', 'x >'), ('-e', 'a:b', '--event-filter', 'x == 1',
                    '--event-filter', 'y == 1')):
        ok(record(*options)[0].returncode == 2, 'wrong use: ' + ' '.join(options))


def tracepoints_live():
    trace = os.path.join(WORK, 'l')
    p = subprocess.Popen([SHUNT, 'record', '-o', trace, '-b', '16M', '--', TRACEPOINT, '400000000'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.7)
    pid = p.pid
    v = {x['name']: x for x in json.loads(shunt('list', '--json', '--points', pid).stdout)}
    ok(v['net:packet']['fields'] == 'u32 len;u16 port;string device' and not v['net:packet']['on'] and
       v['net:packet']['probes'] == 1 and len(v) == 4, 'list --points', v)
    q = shunt('enable', '--filter', 'len == 1400 && port == 443', pid, 'net:packet')
    ok(q.returncode == 0 and '1 matched' in q.stdout, 'enable --filter', q.stderr)
    q = shunt('enable', '--filter', 'wrong == 1', pid, 'net:packet')
    ok(q.returncode == 1 and 'there is no field wrong' in q.stderr, 'a wrong filter', q.stderr)
    time.sleep(0.2)
    q = shunt('list', pid, 'net:packet')
    ok('point   on' in q.stdout and 'if len == 1400 && port == 443' in q.stdout, 'list shows it', q.stdout)
    q = shunt('disable', pid, 'net:*')
    ok(q.returncode == 0 and '3 matched' in q.stdout, 'disable', q.stderr)
    q = shunt('enable', pid, 'nobody:*')
    ok(q.returncode == 1 and 'no function or tracepoint' in q.stderr, 'none of that name', q.stderr)
    p.terminate()
    _, err = p.communicate(timeout=60)
    lines = set(text(trace))
    ok(lines and lines <= {'net:packet: len=1400, port=443, device="eth0"',
                           'net:packet: len=1400, port=443, device="lo"'}, 'only such events', (lines, err))


alone()
by_environment()
recorded()
tracepoints()
tracepoints_live()
shutil.rmtree(WORK, ignore_errors=True)
print('1..%d' % count)
sys.exit(failed != 0)
