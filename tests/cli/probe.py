#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""probe.py SHUNT AGENT VICTIM PLUGIN - shunt probe, and shunt record --probe, on a program that was
not compiled for it. TAP."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

SHUNT, AGENT, VICTIM, PLUGIN = map(os.path.abspath, sys.argv[1:5])
os.environ['SHUNT_AGENT'] = AGENT
for name in ('LD_PRELOAD', 'SHUNT_DIR', 'SHUNT_CONTROL'):
    os.environ.pop(name, None)
WORK = tempfile.mkdtemp(prefix='shunt-probe-')
TRACE = os.path.join(WORK, 't')
count = failed = 0


def ok(cond, what, why=''):
    global count, failed
    count += 1
    failed += not cond
    print('%sok %d - %s' % ('' if cond else 'not ', count, what), flush=True)
    if not cond and why:
        print('# ' + str(why)[:3000].replace('\n', '\n# '), flush=True)


def end():
    shutil.rmtree(WORK, ignore_errors=True)
    print('1..%d' % count)
    sys.exit(failed != 0)


def shunt(*args):
    return subprocess.run([SHUNT, *map(str, args)], capture_output=True, text=True, timeout=60)


def probe(*args):
    return shunt('probe', *args)


class Victim:
    """Under shunt record. say() has it do a round; it answers with the sum."""

    def __init__(self, *options, args=(), before=()):
        shutil.rmtree(TRACE, ignore_errors=True)
        self.p = subprocess.Popen([SHUNT, 'record', '-o', TRACE, '-b', '8M', '-N', '*', *options, '--',
                                   *before, VICTIM, *args], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.p.stdout.readline()
        assert line == 'ready\n', (line, self.p.stderr.read())
        self.pid = int(open('/proc/%d/task/%d/children' % (self.p.pid, self.p.pid)).read().split()[0])

    def say(self, what, lines=1):
        self.p.stdin.write('%s\n' % what)
        self.p.stdin.flush()
        return [self.p.stdout.readline().strip() for _ in range(lines)]

    def probes(self):
        return {x['event']: x for x in json.loads(probe('list', '--json', self.pid).stdout)}

    def end(self):
        self.out, self.err = self.p.communicate(timeout=60)
        return self.p.returncode


def right(n, late=False):
    """The sum of a round of n: work, seven, late."""
    return 'sum %d' % sum(i - 7 + 21 + i + (2 * i if late else 0) for i in range(n))


def text(*options):
    return [line.split('| ', 1)[1].strip() for line in shunt('dump', '--text', *options, TRACE).stdout.splitlines()]


# --- what needs no probe ----------------------------------------------------------------

def wrong_use():
    for args, words in (((), 'add|list|del'), (('frob', 1), 'add|list|del'), (('add',), 'PID SPEC'),
                        (('add', 1), 'PID SPEC'), (('del', 1), 'PID GLOB'), (('list',), 'PID [GLOB]'),
                        (('list', 1, 2, 3), 'PID [GLOB]'), (('enable', 'x'), 'PID GLOB'),
                        (('del', 1, '['), 'not a pattern'), (('list', 1, '['), 'PID [GLOB]'),
                        (('add', 'x', 'f'), 'x'), (('add', 1, 'f(%rdx1)'), 'at character 3: unknown register %rdx1'),
                        (('add', 1, 'f', 'g(+0(%rdi):strin)'), 'at character 12: unknown type'),
                        (('add', 1, ''), "at character 1")):
        p = probe(*args)
        ok(p.returncode == 2 and words in p.stderr and not p.stdout and len(p.stderr.splitlines()) == 1,
           'wrong use: ' + ' '.join(map(str, args)), p.stderr)
    p = probe('add', os.getpid(), 'malloc')
    ok(p.returncode == 1 and len(p.stderr.splitlines()) == 1, 'a process that is not recorded', p.stderr)
    p = shunt('record', '-o', TRACE, '--probe', 'f(%foo)', '--', VICTIM)
    ok(p.returncode == 2 and 'at character 3' in p.stderr and not os.path.exists(TRACE),
       'a malformed --probe, before anything runs', p.stderr)


def has_engine():
    v = Victim()
    p = probe('add', v.pid, 'work')
    v.end()
    return 'no engine' not in p.stderr


# --- before main --------------------------------------------------------------------------

ARGS = '(i=%rdi:s32,kind=+0(%rsi):s16,flags=+4(%rsi):x32,name=+0(+8(%rsi)):string,' \
       'bytes=+16(%rsi):u8[4],bits=+4(%rsi):b4@4/32,bad=+0(%rdx):u8)'
SHOWN = 'probe:work: i=%d, kind=-7, flags=0xabcd, name="a thing", bytes=[1, 2, 3, 255], bits=12, bad=0, fault=bad'


def recording():
    v = Victim('--probe', 'work' + ARGS, '--probe', 'result=work%return($retval:s32)',
               '--probe', 'seven(g=$stack1:s32,a=$arg1:u8)')
    ok(v.say(100) == [right(100)], 'the program does what it did')
    ok(v.end() == 0 and '300 events' in v.err and 'patchable' not in v.err, 'record --probe', v.err)
    lines = text()
    ok(lines[:3] == [SHOWN % 0, 'probe:result: arg1=-7', 'probe:seven: g=0, a=1, fault=none'] and
       lines[-3:] == [SHOWN % 99, 'probe:result: arg1=92', 'probe:seven: g=99, a=1, fault=none'] and len(lines) == 300,
       'dump --text has what they saw', lines[:6])
    r = json.loads(shunt('report', '--json', TRACE).stdout)
    ok(r['points'] == {'probe:work': 100, 'probe:result': 100, 'probe:seven': 100}, 'report counts them', r['points'])
    events = formats()
    ok({'name': 'probe:work', 'args': {'i': 3, 'kind': -7, 'flags': 0xabcd, 'name': 'a thing', 'bytes': [1, 2, 3, 255],
        'bits': 12, 'bad': 0, 'fault': 'bad'}} in events, 'and Chrome JSON', events[:3])


def formats():
    out, chrome = os.path.join(WORK, 'ctf'), os.path.join(WORK, 'c.json')
    shutil.rmtree(out, ignore_errors=True)
    shunt('dump', '--ctf', out, TRACE)
    if shutil.which('babeltrace2'):
        b = subprocess.run(['babeltrace2', out], capture_output=True, text=True)
        ok(b.stdout.count('\n') == 300 and not b.stderr and 'flags = 0xABCD, name = "a thing"' in b.stdout and
           'bits = 12, bad = 0, fault = ( "bad" : container = 64 )' in b.stdout, 'babeltrace2 reads them',
           b.stdout[:600] + b.stderr)
    shunt('dump', '--chrome', chrome, TRACE)
    return [{'name': e['name'], 'args': e['args']} for e in json.load(open(chrome))['traceEvents'] if e['ph'] == 'i']


def filters():
    v = Victim('-e', 'probe:*', '--event-filter', 'i > 95 && fault == bad', '--probe', 'work' + ARGS)
    v.say(100)
    v.end()
    ok(text() == [SHOWN % i for i in range(96, 100)], 'record --event-filter, also by who could not be read',
       text()[:4] + [v.err])


def late():
    v = Victim('--probe', 'late(i=%rdi:u8)', '--probe', 'probe_plugin.so:late%return(r=$retval:u8)',
               '--probe', 'nowhere', args=(PLUGIN,))
    p = v.probes()
    ok({x: p[x]['form'] for x in p} == dict.fromkeys(('probe:late', 'probe:late__return', 'probe:nowhere'), 'waiting'),
       'what is not loaded yet is waited for', p)
    ok(v.say(10) == [right(10, True)], 'it comes')
    p = v.probes()
    ok(p['probe:late']['hits'] == 10 and p['probe:late']['form'] != 'waiting' and
       p['probe:late__return']['hits'] == 10 and p['probe:nowhere']['form'] == 'waiting', 'and is probed from its first call on', p)
    v.end()
    ok("the probe 'nowhere' found no place" in v.err and v.err.count('found no place') == 1,
       'and what never came is told at the end', v.err)
    ok(text()[-2:] == ['probe:late: i=9', 'probe:late__return: r=18'], 'its events', text()[-2:])


def processes():
    v = Victim('--probe', 'work(i=%rdi:s32)')
    ok(v.say('f5', 2) == [right(5).replace('sum', 'child'), right(5)], 'a child of fork')
    v.end()
    ok(sorted(text()) == sorted(['probe:work: i=%d' % i for i in range(5)] * 2), 'is probed as its parent is', text())
    v = Victim('--probe', 'work(i=%rdi:s32)', before=('/usr/bin/env',))
    v.say(3)
    v.end()
    ok(len(text()) == 3, 'so is the program after exec', (text(), v.err))


# --- live -----------------------------------------------------------------------------------

def live():
    v = Victim()
    p = probe('list', v.pid)
    ok(p.returncode == 1 and 'there is no probe' in p.stderr, 'none at first', p.stderr)
    p = probe('add', v.pid, 'work' + ARGS, 'r=work%return($retval:s32)')
    ok(p.returncode == 0 and [line.split()[5] for line in p.stdout.splitlines()] == ['probe:work', 'probe:r'],
       'add', p.stdout + p.stderr)
    v.say(10)
    p = v.probes()
    ok(p['probe:work']['hits'] == 10 and p['probe:r']['hits'] == 10 and p['probe:work']['on'] and
       p['probe:work']['place'].startswith('work+0 (') and p['probe:work']['spec'] == 'work' + ARGS and
       p['probe:work']['form'] in ('jump', 'jump-shared', 'jump-many', 'breakpoint'), 'list', p)
    p = shunt('list', '--points', v.pid, 'probe:*')
    ok('probe:r(s32 arg1)' in p.stdout and 'point   on' in p.stdout, 'they are tracepoints too', p.stdout)
    p = probe('disable', v.pid, 'work')
    ok(p.returncode == 0 and '1 probe switched off' in p.stdout, 'disable', p.stdout + p.stderr)
    ok(v.say(10) == [right(10)], 'the program does what it did')
    p = v.probes()
    ok(p['probe:work']['hits'] == 10 and not p['probe:work']['on'] and p['probe:r']['hits'] == 20, 'one is off', p)
    p = probe('enable', v.pid, 'probe:*')
    v.say(10)
    ok(p.returncode == 0 and v.probes()['probe:work']['hits'] == 20, 'enable', p.stderr)
    p = shunt('disable', v.pid, 'probe:r')
    v.say(10)
    ok(p.returncode == 0 and v.probes()['probe:r']['hits'] == 40, 'shunt disable: hits, and no events', p.stderr)
    refusals(v)
    p = probe('del', v.pid, 'wor*', 'r')
    ok(p.returncode == 0 and '2 probes removed' in p.stdout and not v.probes(), 'del', p.stdout + p.stderr)
    ok(v.say(10) == [right(10)], 'and all is as it was')
    ok(v.end() == 0, 'it ends well', v.err)
    lines = text()
    ok(len([x for x in lines if x.startswith('probe:work')]) == 31 and
       len([x for x in lines if x.startswith('probe:r')]) == 30, 'what was on is in the trace', len(lines))


def refusals(v):
    before = v.probes()
    for specs, words in ((('wrok',), 'wrok'), (('nobody.so:work',), 'nobody.so'), (('work+1',), 'work+1'),
                         (('0x10',), '0x10'), (('r=seven',), 'take another name'),
                         (('seven', 'seven+0x1000000'), 'seven+0x1000000'), (('seven', 'wrok', 'seven'), 'wrok'),
                         (('seven(@+0xfffffffffff)',), '@+0xfffffffffff')):
        p = probe('add', v.pid, *specs)
        ok(p.returncode == 1 and words in p.stderr and len(p.stderr.splitlines()) == 1 and not p.stdout,
           'refused: ' + ' '.join(specs), p.stdout + p.stderr)
    for verb in ('del', 'enable', 'disable'):
        p = probe(verb, v.pid, 'nobody')
        ok(p.returncode == 1 and 'no probe of that name' in p.stderr, verb + ' of none', p.stderr)
    ok(v.probes() == before and v.say(1) == [right(1)], 'and nothing has changed')


def all_processes():
    v = Victim()
    p = probe('add', v.p.pid, 'work')
    ok(p.returncode == 0 and 'probe:work' in p.stdout, 'by the recorder, whose every process is meant', p.stderr)
    v.say(2)
    p = probe('list', v.p.pid)
    ok(p.returncode == 0 and p.stdout.startswith('# process %d ' % v.pid) and ' 2 hits ' in p.stdout, 'list names them',
       p.stdout)
    many = ['m%d=work(name=+0(+8(%%rsi)):string,i=%%rdi:s32)' % i for i in range(30)]
    p = probe('add', v.pid, *many)
    ok(p.returncode == 0, 'many in one request', p.stderr)
    p = v.probes()
    ok(len(p) == 31 and all('probe:m%d' % i in p for i in range(30)), 'all are listed, in several answers', len(p))
    p = probe('add', v.pid, *('x%d=work(name=+0(+8(%%rsi)):string,i=%%rdi:s32)' % i for i in range(100)))
    ok(p.returncode == 2 and 'too many' in p.stderr and len(v.probes()) == 31, 'too many at once', p.stderr)
    p = probe('del', v.pid, '*')
    ok('31 probes removed' in p.stdout and v.say(2) == [right(2)], 'and removed', p.stdout)
    v.end()


def libc():
    v = Victim('--probe', 'libc.so.6:write(fd=%rdi:s32,n=%rdx:u64)', '--probe', 'libc.so.6:write%return(n=$retval:s64)')
    out = v.say(4)[0]
    v.end()
    n = len(out) + 1
    ok(any(re.fullmatch('probe:write: fd=1, n=%d' % n, x) for x in text()) and
       'probe:write__return: n=%d' % n in text(), 'a function of libc', (text(), v.err))


wrong_use()
if not has_engine():
    print('ok %d # SKIP this build has no engine for probes' % (count + 1))
    count += 1
    end()
recording()
filters()
processes()
live()
all_processes()
late()
libc()
end()
