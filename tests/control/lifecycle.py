#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""shunt record and its agent in programs that do what programs do.

lifecycle.py SHUNT AGENT VICTIM PLUGIN STATIC PLAIN [NAME..]

Every test runs VICTIM under `shunt record` and asks two things: did the program
behave as without us, and does the trace hold what the program is known to have
done. Names of tests as arguments run only those.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import traces  # noqa: E402

SHUNT, AGENT, VICTIM, PLUGIN, STATIC, PLAIN = map(os.path.abspath, sys.argv[1:7])
ONLY = sys.argv[7:]
os.environ['SHUNT_AGENT'] = AGENT
for name in ('LD_PRELOAD', 'SHUNT_DIR'):
    os.environ.pop(name, None)
WORK = tempfile.mkdtemp(prefix='shunt-lifecycle-')
os.chdir(WORK)
LIMIT = 60
count = failed = 0


def ok(cond, what):
    global count, failed
    count += 1
    failed += not cond
    print('%sok %d - %s' % ('' if cond else 'not ', count, what), flush=True)
    return cond


def diag(text):
    for line in str(text).splitlines():
        print('# ' + line, flush=True)


def skip(what, why):
    global count
    count += 1
    print('ok %d - %s # SKIP %s' % (count, what, why), flush=True)


def command(*args, options=(), out='t'):
    return [SHUNT, 'record', '-o', out, '-b', '8M', *options, '--', *args]


def record(*args, options=(), out='t', env=None, **kw):
    shutil.rmtree(out, ignore_errors=True)
    return subprocess.run(command(*args, options=options, out=out), capture_output=True,
                          text=True, timeout=LIMIT, stdin=subprocess.DEVNULL,
                          env={**os.environ, **(env or {})}, **kw)


class Started:
    """A recording under way, whose program has said that it is ready."""

    def __init__(self, *args, options=(), out='t', ready=True):
        shutil.rmtree(out, ignore_errors=True)
        self.p = subprocess.Popen(command(*args, options=options, out=out),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        if ready:
            assert self.p.stdout.readline() == 'ready\n', self.p.stderr.read()
            self.pid = children(self.p.pid)[0]

    def end(self, text=None):
        self.out, self.err = self.p.communicate(text, timeout=LIMIT)
        return self.p.returncode


def children(pid):
    with open('/proc/%d/task/%d/children' % (pid, pid)) as f:
        return [int(p) for p in f.read().split()]


def running(program):
    out = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if os.readlink('/proc/%s/exe' % pid) == program:
                out.append(int(pid))
        except OSError:
            pass
    return out


def shunt(*args):
    return subprocess.run([SHUNT, *map(str, args)], capture_output=True, text=True, timeout=LIMIT)


def leftovers():
    """Shared memory of our recordings: the trace's path is in the control file."""
    out = []
    for d in os.listdir('/dev/shm'):
        try:
            with open('/dev/shm/%s/ctl' % d, 'rb') as f:
                if WORK.encode() in f.read(4096):
                    out.append(d)
        except OSError:
            pass    # somebody else's, or just gone
    return out


def clean():
    return not leftovers()


def whole(trace, killed=0):
    """The trace agrees with its own account.

    A thread that is killed between writing an event and counting it leaves
    one event more than it counted.
    """
    t = trace.total
    good = (trace.info['complete'] == 'yes' and trace.order and trace.events == t['read'] and
            0 <= t['read'] + t['overwritten'] - t['written'] <= killed)
    if not good:
        diag('events %d, account %s, order %s' % (trace.events, t, trace.order))
    return good


def read(out='t'):
    return traces.Trace(out)


def expect(name, r, status, leaf, what, out='t'):
    """The common case: an exit status, a number of calls, a whole trace."""
    good = r.returncode == status
    if good:
        t = read(out)
        good = whole(t) and t.calls('leaf') == leaf and clean()
    if not ok(good, what):
        diag('exit status %d, expected %d' % (r.returncode, status))
        if r.returncode == status:
            diag('%d calls of leaf, expected %d; left over: %s' %
                 (t.calls('leaf'), leaf, leftovers()))
        diag(r.stderr)
    return r


TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


@test
def simple():
    r = expect('work', record(VICTIM, 'work'), 0, 1000, 'a program is recorded')
    t = read()
    ok(t.exits[next(iter(t.entries))[:2] + ('leaf',)] == 1000, 'exits as many as entries')
    ok('2,00' in r.stderr and 'lost nothing' in r.stderr and 'switched' in r.stderr,
       'the account is printed') or diag(r.stderr)
    ok(not r.stdout and '\r' not in r.stderr, 'nothing else is printed in a pipe')
    ok(t.info['command'].endswith('work') and t.threads[0]['comm'] == 'victim' or diag(t.threads),
       'the trace says whose it is')


@test
def status():
    expect('exit', record(VICTIM, 'exit'), 42, 10, 'the exit status is passed on')
    expect('_exit', record(VICTIM, '_exit'), 7, 10, '_exit too')
    r = expect('crash', record(VICTIM, 'crash'), 139, 100, 'a crash is 128 + 11')
    ok('signal 11' in r.stderr, 'and is named') or diag(r.stderr)
    expect('abort', record(VICTIM, 'abort'), 134, 100, 'an abort is 128 + 6')


@test
def killed():
    for i in range(5):
        s = Started(VICTIM, 'spin')
        time.sleep(0.02 * i)
        os.kill(s.pid, signal.SIGKILL)
        code = s.end()
        t = read()
        good = code == 137 and whole(t, 1) and t.calls('leaf') >= 100 and clean()
        if not good:
            break
    ok(good, 'after kill -9 the trace is complete') or diag('%d\n%s' % (code, s.err))


@test
def interrupted():
    s = Started(VICTIM, 'sleep')
    os.kill(s.p.pid, signal.SIGTERM)
    code = s.end()
    ok(code == 143 and whole(read()), 'SIGTERM to the recorder ends the program') or \
        diag('%d\n%s' % (code, s.err))
    shutil.rmtree('t', ignore_errors=True)
    p = subprocess.Popen(command(VICTIM, 'sleep'), stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.PIPE, start_new_session=True)
    p.stdout.readline()
    os.killpg(p.pid, signal.SIGINT)
    _, err = p.communicate(timeout=LIMIT)
    ok(p.returncode == 130 and whole(read()), 'Ctrl-C ends the program, and the trace is complete') \
        or diag(err)


@test
def processes():
    expect('closefrom', record(VICTIM, 'closefrom'), 0, 1000,
           'a program that closes all descriptors is recorded on, with its own numbers')
    r = record(VICTIM, 'chroot')
    if r.returncode == 77:
        skip('chroot', 'not root')
    else:
        expect('chroot', r, 0, 1000, 'chroot')
    expect('setsid', record(VICTIM, 'setsid'), 0, 1000, 'a session of its own')
    expect('threads', record(VICTIM, 'threads'), 0, 8000, 'eight threads')
    t = read()
    ok(len(t.threads) == 9 or diag(t.threads), 'a line for each in the account, and the main one')
    r = expect('pthread_exit', record(VICTIM, 'pthread_exit'), 0, 1000,
               'a main thread that goes before the others')
    ok(r.stdout == 'last words', 'the last thread ends the process as ever')
    r = record(VICTIM, 'unshare')
    if r.returncode == 77:
        skip('unshare', 'user namespaces are not allowed here')
    else:
        expect('unshare', r, 0, 1000, 'unshare works as in a process with one thread')


@test
def forks():
    expect('fork', record(VICTIM, 'fork'), 0, 1200, 'forked children are recorded')
    t = read()
    pids = {p for _, p, _ in t.entries}
    ok(len(pids) == 6 and len(t.images()) == 6, 'each as an image of its own')
    ok(all(t.objects[i] for i in t.images()), 'each with its symbol files')
    expect('fork-stop', record(VICTIM, 'fork', options=['--children', 'stop']), 0, 200,
           'with --children stop they are not')
    expect('vfork', record(VICTIM, 'vfork'), 0, 1100, 'vfork and exec')
    expect('spawn', record(VICTIM, 'spawn'), 0, 1100, 'posix_spawn')
    expect('exec', record(VICTIM, 'exec', '3'), 5, 400, 'a chain of four programs by exec')
    ok(len({p for _, p, _ in read().entries}) == 1, 'under one number')
    expect('clearenv', record(VICTIM, 'clearenv'), 0, 100,
           'a program started with an empty environment is not recorded, and runs')


@test
def daemons():
    r = record(VICTIM, 'daemon')
    t = read()
    ok(r.returncode == 0 and t.info['complete'] == 'yes' and clean() and
       t.calls('leaf') >= 100, 'a daemon leaves a complete trace of its start') or diag(r.stderr)
    ok('not recorded any more' in r.stderr, 'and the account says that it still runs')
    pids = running(VICTIM)
    ok(len(pids) == 1 or diag(pids), 'and it does')
    for pid in pids:
        r = shunt('enable', pid, '*')
        ok(r.returncode == 1 and 'has ended' in r.stderr,
           'enabling in it says that the recording has ended') or diag(r.stderr)
        os.kill(pid, signal.SIGKILL)


@test
def plugins():
    r = record(VICTIM, 'dlopen', PLUGIN)
    t = read()
    ok(r.returncode == 0 and whole(t) and t.calls('plugin_leaf') == 1000,
       'a plugin is recorded from its first call, and again when loaded again') or \
        diag('%d\n%s' % (t.calls('plugin_leaf'), r.stderr))
    r = record(VICTIM, 'dlopen', os.path.basename(PLUGIN),
               env={'LD_LIBRARY_PATH': os.path.dirname(PLUGIN)})
    t = read()
    ok(r.returncode == 0 and t.calls('plugin_leaf') == 1000, 'a plugin found by its bare name') or \
        diag('%d\n%s' % (t.calls('plugin_leaf'), r.stderr))
    r = record(VICTIM + '-runpath', 'dlopen', os.path.basename(PLUGIN), '500')
    t = read()
    ok(r.returncode == 0 and whole(t) and t.calls('plugin_leaf') > 0,
       "a plugin found by the caller's RUNPATH, a little late") or diag(r.stderr)


@test
def environment():
    r = record(VICTIM, 'env', env={'LD_PRELOAD': PLUGIN})
    ok(r.returncode == 0 and r.stdout == '%s:%s\n' % (AGENT, PLUGIN),
       "LD_PRELOAD that was set stays behind the agent") or diag(r.stdout + r.stderr)
    where = os.path.join(WORK, 'a b:c')
    os.mkdir(where)
    shutil.copy(AGENT, where)
    expect('agent', record(VICTIM, 'work', env={'SHUNT_AGENT': where + '/' +
           os.path.basename(AGENT)}), 0, 1000, 'an agent in a directory with a space and a colon')
    bare = subprocess.run([VICTIM, 'backtrace'], capture_output=True, text=True).stdout
    r = record(VICTIM, 'backtrace')
    ok(r.stdout == bare and bare, 'backtrace() gives the same as without us') or \
        diag(bare + '--\n' + r.stdout + r.stderr)
    expect('sigtrap', record(VICTIM, 'sigtrap'), 0, 1000, 'SIGTRAP is the program\'s own')


@test
def filters():
    record(VICTIM, 'work', options=['-F', 'work', '-F', 'l*', '-N', 'leaf'])
    t = read()
    ok(t.calls('leaf') == 0 and t.calls('work') == 1 and t.calls('main') == 0,
       '-F and -N choose') or diag(t.entries)
    record(VICTIM, 'work', options=['-D', '2'])
    t = read()
    ok(t.calls('leaf') == 0 and t.calls('do_work') == 1, '-D cuts below a depth') or \
        diag(t.entries)
    r = record(VICTIM, 'work', options=['-F', 'nothing_like_it'])
    ok(r.returncode == 0 and read().events == 0, 'a filter that nothing matches records nothing')


@test
def refused():
    r = record(PLAIN, 'work', options=['--no-unmodified'])
    ok(r.returncode == 0 and '-fpatchable-function-entry=5' in r.stderr,
       'a program without sites runs, and the message says how to compile it') or diag(r.stderr)
    r = record(PLAIN, 'work')
    ok(r.returncode == 0 and 'not compiled for tracing' in r.stderr and read().calls('main') == 1,
       'or it is traced as it is, and the message says so') or diag(r.stderr)
    r = record('sh', '-c', PLAIN)
    ok(r.returncode == 0 and 'in 2 programs' in r.stderr and read().calls('main') == 1,
       'and so are those that it starts') or diag(r.stderr)
    r = record(VICTIM, 'work')
    ok('not compiled for tracing' not in r.stderr and read().calls('frame_dummy') == 0,
       'one that has sites is not traced elsewhere') or diag(r.stderr)
    r = record(STATIC, 'work')
    ok(r.returncode == 1 and 'statically linked' in r.stderr and clean() and
       not os.path.exists('t'), 'a static program is refused') or diag(r.stderr)
    r = record('no-such-program-at-all')
    ok(r.returncode == 127 and 'no such program' in r.stderr and not os.path.exists('t'),
       'a program that is not there: 127') or diag(r.stderr)
    r = record('/etc/passwd')
    ok(r.returncode == 126 and clean(), 'one that cannot be executed: 126') or diag(r.stderr)
    shutil.copy(VICTIM, 'setuid')
    os.chmod('setuid', 0o4755)
    if os.getuid() == 0:
        os.chown('setuid', 65534, 65534)
        os.chmod('setuid', 0o4755)
    r = record('./setuid', 'work')
    if os.getuid() == 0:
        ok(r.returncode == 1 and 'setuid' in r.stderr, 'a setuid program is refused') or \
            diag(r.stderr)
    r = record('sh', '-c', VICTIM + ' work; exit 3')
    expect('sh', r, 3, 1000, "a shell script's children are recorded")


@test
def usage():
    for args in ([], ['-b', 'x', 'true'], ['-b', '0', 'true'], ['-D', '0', 'true'],
                 ['--mode', 'x', 'true'], ['--children', 'x', 'true'], ['--nonsense'],
                 ['-o', '', 'true'], ['-F', '', 'true'], ['-o']):
        r = shunt('record', *args)
        if r.returncode != 2 or r.stderr.count('\n') != 1:
            return ok(False, 'wrong use is 2 and one line: %s' % args) or \
                diag('%d %s' % (r.returncode, r.stderr))
    ok(True, 'wrong use is 2 and one line')


@test
def directories():
    record(VICTIM, 'work')
    p = subprocess.run(command(VICTIM, 'work'), capture_output=True, text=True, timeout=LIMIT)
    ok(p.returncode == 0 and read('t.old').calls('leaf') == 1000 and
       read().calls('leaf') == 1000, 'an older trace becomes DIR.old') or diag(p.stderr)
    p = subprocess.run(command(VICTIM, 'work'), capture_output=True, text=True, timeout=LIMIT)
    ok(p.returncode == 0, 'which gives way to the next') or diag(p.stderr)
    os.mkdir('foreign')
    open('foreign/precious', 'w').close()
    p = subprocess.run(command(VICTIM, 'work', out='foreign'), capture_output=True, text=True)
    ok(p.returncode == 2 and os.path.exists('foreign/precious') and clean(),
       "somebody's directory is left alone") or diag(p.stderr)
    os.mkdir('empty')
    p = subprocess.run(command(VICTIM, 'work', out='empty'), capture_output=True, text=True)
    ok(p.returncode == 0 and read('empty').calls('leaf') == 1000, 'an empty one is used')
    shutil.rmtree('t.old')


@test
def full():
    fs = os.statvfs('/dev/shm')
    # never take what is there: that is the machine's memory
    r = record(VICTIM, 'work', options=['-b', str(fs.f_bavail * fs.f_frsize + (64 << 20))])
    ok(r.returncode == 1 and '/dev/shm is too full' in r.stderr and clean(),
       'a buffer larger than /dev/shm is an error in one sentence, before any is taken') or \
        diag(r.stderr)
    small = ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs -o size=4m none /dev/shm || exit 77; '
             'exec "$@"', 'sh']
    shutil.rmtree('t', ignore_errors=True)
    r = subprocess.run(small + command(VICTIM, 'work'), capture_output=True, text=True)
    # In a chroot there may be no mount to make private.
    if os.getuid() or r.returncode == 77 or r.stderr.startswith('unshare:'):
        skip('a small /dev/shm', 'no mount')
    else:
        ok(r.returncode == 1 and 'use a smaller one (-b)' in r.stderr and
           not os.path.exists('t'), 'so in a small /dev/shm') or diag(r.stderr)
        r = subprocess.run(small + [SHUNT, 'record', '-o', 't', VICTIM, 'work'],
                           capture_output=True, text=True)
        ok(r.returncode == 0 and read().calls('leaf') == 1000,
           'where the default takes what there is') or diag(r.stderr)
    s = Started(VICTIM, 'spin', options=['-b', '64K', '--mode', 'overwrite'])
    time.sleep(0.1)
    os.kill(s.pid, signal.SIGKILL)
    s.end()
    t = read()
    ok(whole(t, 1) and t.total['overwritten'] > 0 and t.total['discarded'] == 0,
       'overwrite mode keeps the last') or diag(s.err)
    disk = os.path.join(WORK, 'disk')
    os.mkdir(disk)
    if os.getuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', disk],
                                     capture_output=True).returncode:
        return skip('disk full', 'no mount')
    try:
        s = Started(VICTIM, 'busy', out=disk + '/t')
        time.sleep(0.3)
        code = s.end('\n')
        ok(code == 1 and 'cannot write' in s.err and 'could not be written' in s.err,
           'a full disk: the program goes on, the recording says so') or \
            diag('%d %s' % (code, s.err))
        t = read(disk + '/t')
        ok(t.events == t.total['read'] and t.events > 0, 'and what was written is a trace') or \
            diag(t.total)
    finally:
        subprocess.run(['umount', disk])


@test
def recover():
    s = Started(VICTIM, 'sleep')
    s.p.kill()
    s.p.wait()
    pid = s.pid
    r = subprocess.run(command(VICTIM, 'work'), capture_output=True, text=True, timeout=LIMIT)
    ok(r.returncode == 2 and '--recover' in r.stderr, 'an interrupted trace is not overwritten') \
        or diag(r.stderr)
    os.kill(pid, signal.SIGKILL)
    r = shunt('record', '--recover', 't')
    t = read()
    ok(r.returncode == 0 and whole(t) and t.calls('leaf') == 100 and clean(),
       'when the recorder was killed, --recover completes the trace') or diag(r.stderr)
    r = shunt('record', '--recover', 't')
    ok(r.returncode == 0, 'twice does no harm')
    good = True
    for i in range(12):
        s = Started(VICTIM, 'spin')
        time.sleep(0.003 * i)
        s.p.kill()
        s.p.wait()
        os.kill(s.pid, signal.SIGKILL)
        r = shunt('record', '--recover', 't')
        good = good and r.returncode == 0 and whole(read(), 1) and clean()
    ok(good, 'wherever the recorder was killed, no page is lost or written twice') or \
        diag(r.stderr)
    r = shunt('record', '--recover', WORK)
    ok(r.returncode == 2, 'and what is no trace is not touched')


@test
def live():
    s = Started(VICTIM, 'sleep')
    r = shunt('list', s.pid)
    names = {line.split()[-1] for line in r.stdout.splitlines()}
    ok(r.returncode == 0 and {'leaf', 'work', 'main'} <= names, 'list shows the functions') or \
        diag(r.stdout + r.stderr)
    r = shunt('list', '--json', s.pid, 'lea?')
    rows = json.loads(r.stdout)
    ok([f['symbol'] for f in rows] == ['leaf'] and rows[0]['on'] and
       rows[0]['object'] == os.path.basename(VICTIM), 'as JSON too, chosen by a glob') or \
        diag(r.stdout)
    r = shunt('disable', s.pid, 'leaf')
    ok(r.returncode == 0 and '1 matched, 1 switched off' in r.stdout,
       'disable says what it did') or diag(r.stdout + r.stderr)
    ok(not json.loads(shunt('list', '--json', s.pid, 'leaf').stdout)[0]['on'], 'and it is off')
    r = shunt('disable', s.pid, 'leaf')
    ok(r.returncode == 0 and ' 0 switched' in r.stdout, 'twice switches nothing')
    r = shunt('enable', s.p.pid, 'leaf', 'work')
    ok(r.returncode == 0 and '2 matched, 1 switched on' in r.stdout,
       "the recorder's number means its processes") or diag(r.stdout + r.stderr)
    r = shunt('enable', s.pid, 'no_such_function')
    ok(r.returncode == 1 and 'shunt list' in r.stderr, 'a name that is not there: 1')
    r = shunt('stat', s.pid)
    ok(r.returncode == 0 and 'functions' in r.stdout, 'stat answers') or diag(r.stderr)
    st = json.loads(shunt('stat', '--json', s.pid).stdout)
    ok(st['processes'][0]['pid'] == s.pid and st['total']['written'] == 204 or diag(st),
       'and knows what was written')
    os.kill(s.pid, signal.SIGKILL)
    s.end()
    ok(whole(read()), 'and the trace is whole')


@test
def live_errors():
    r = shunt('enable', os.getpid(), '*')
    ok(r.returncode == 1 and "'shunt record'" in r.stderr, 'a process that is not recorded')
    r = shunt('stat', 99999999)
    ok(r.returncode == 1 and 'no process' in r.stderr, 'one that is not there')
    for args in (['enable'], ['enable', '1'], ['enable', 'x', '*'], ['enable', '0', '*'],
                 ['disable', '1', ''], ['list'], ['list', 'x'], ['list', '1', 'a', 'b'],
                 ['stat'], ['stat', '--json'], ['stat', '-1'], ['enable', '1', 'a\nb']):
        r = shunt(*args)
        if r.returncode != 2 or r.stderr.count('\n') != 1:
            return ok(False, 'wrong use is 2: %s' % args) or diag(r.stderr)
    ok(True, 'wrong use is 2 and one line')
    s = Started(VICTIM, 'sleep', options=['--no-control'])
    ok(len(os.listdir('/proc/%d/task' % s.pid)) == 1, '--no-control adds no thread')
    r = shunt('enable', s.pid, '*')
    ok(r.returncode == 1 and '--no-control' in r.stderr, 'and says so when asked') or \
        diag(r.stderr)
    os.kill(s.pid, signal.SIGKILL)
    s.end()


@test
def switching():
    rounds = int(os.environ.get('SHUNT_TEST_ROUNDS', '30'))
    s = Started(VICTIM, 'busy')
    good = True
    for i in range(rounds):
        for verb in ('disable', 'enable'):
            r = shunt(verb, s.pid, '*')
            good &= r.returncode == 0
            if not good:
                break
    ok(good, '%d times off and on while eight threads run' % rounds) or diag(r.stdout + r.stderr)
    r = shunt('disable', s.pid, '*')
    st = json.loads(shunt('stat', '--json', s.pid).stdout)
    code = s.end('\n')
    t = read()
    ok(code == 0, "and the program's result is right") or diag(s.err)
    ok(whole(t), 'and the trace is whole')
    # the functions are off: only exits of calls that were under way may follow
    ok(0 <= t.total['written'] - st['total']['written'] <= 64 or
       diag('%s %s' % (st['total'], t.total)), 'and stat agrees with the trace')
    s = Started(VICTIM, 'forkstorm')
    n = 0
    while s.p.poll() is None:
        for verb in ('disable', 'enable'):
            n += shunt(verb, s.pid, '*').returncode == 0
    code = s.end()
    ok(code == 0 and n and whole(read()), '300 forks meanwhile') or diag('%d %s' % (n, s.err))
    s = Started(VICTIM, 'blocked')
    good = all(shunt(verb, s.pid, '*').returncode == 0
               for _ in range(10) for verb in ('disable', 'enable'))
    os.kill(s.pid, signal.SIGKILL)
    s.end()
    ok(good and whole(read(), 1), 'also in a program that blocks all signals') or diag(s.err)


def main():
    for fn in TESTS:
        if ONLY and fn.__name__ not in ONLY:
            continue
        try:
            fn()
        except Exception as e:  # a test that cannot go on has failed
            ok(False, '%s: %s: %s' % (fn.__name__, type(e).__name__, e))
    print('1..%d' % count)
    os.chdir('/')
    shutil.rmtree(WORK, ignore_errors=True)
    return failed != 0


sys.exit(main())
