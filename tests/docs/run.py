#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run.py SHUNT LIBDIR CC - the documents' examples: C code in the public headers, README,
docs/ and man pages compiles, and every option of a `shunt` command that is named
there is one. TAP.

What counts as C code: in a header, the tab-indented lines of its first comment under
"Example"; elsewhere, indented blocks with a shunt_ function, or an adapter's, and a semicolon. A
fragment is compiled in a function behind tests/docs/around.h; definitions of
functions and static variables are put before it. A header's example with a main() is
run, as C and as C++, and says 0. LIBDIR has libshunt.so.
"""
import glob
import os
import re
import subprocess
import sys
import tempfile

SHUNT, LIB, CC = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
count = failed = 0


def ok(good, name, why=''):
    global count, failed
    count += 1
    failed += not good
    print('%s %d - %s' % ('ok' if good else 'not ok', count, name), flush=True)
    if not good and why:
        print('# ' + str(why).strip()[:1500].replace('\n', '\n# '), flush=True)


def header_example(text):
    comment = text[text.index('/*\n'):]
    comment = comment[:comment.index('*/')]
    lines, inside = [], False
    for line in comment.splitlines():
        if re.match(r' \* Example', line):
            inside = True
        elif inside and line.startswith(' *\t'):
            lines.append(line[3:])
        elif inside and line.strip() != '*' and lines:
            break
        elif inside and lines:
            lines.append('')
    return '\n'.join(lines)


def blocks(text):
    for block in re.findall(r'(?:^(?:    |\t).*\n|^\n)+', text, re.M):
        if re.search(r'\b(shunt|mmu)_\w+\(.*;', block):
            yield re.sub(r'^(    |\t)', '', block, flags=re.M)


def split(code):
    """Definitions, and what goes into a function."""
    outside, body, depth, out = [], [], 0, False
    for line in code.splitlines():
        if depth == 0 and not line.startswith((' ', '\t', '{', '}')):
            out = line.startswith(('static ', '#include', 'SHUNT_'))
        (outside if out else body).append(line)
        depth += line.count('{') - line.count('}')
    return '\n'.join(outside), '\n'.join(body)


def compiles(name, code):
    outside, body = split(code)
    # A callback may name what is defined behind it.
    source = '#include "around.h"\n%s\nvoid example(void);\nvoid example(void)\n{\n%s\n}\n' % (
        outside, body)
    p = subprocess.run([*CC, '-x', 'c', '-std=gnu11', '-D_GNU_SOURCE', '-Wall', '-Wextra',
                        '-Wno-unused-variable', '-Wno-unused-function', '-Wno-unused-parameter', '-Werror', '-fsyntax-only', '-I' + TOP + '/include',
                        '-I' + HERE, '-'], input=source, capture_output=True, text=True)
    ok(p.returncode == 0, name + ': the example compiles', p.stderr)


def runs(name, header, code):
    with tempfile.TemporaryDirectory() as where:
        for language, std in ('c', 'gnu11'), ('c++', 'gnu++17'):
            p = subprocess.run([*CC, '-x', language, '-std=' + std, '-O2', '-Wall', '-Wextra', '-Werror',
                                '-I' + TOP + '/include', '-', '-x', 'none', '-o', where + '/example',
                                '-L' + LIB, '-lshunt', '-Wl,-rpath,' + LIB],
                               input='#include <stdio.h>\n#include <shunt/%s>\n%s\n' % (header, code),
                               capture_output=True, text=True)
            if not p.returncode:
                p = subprocess.run([where + '/example'], capture_output=True, text=True)
            ok(p.returncode == 0, '%s: the example runs as %s' % (name, language), p.stderr)


def options():
    known = {}
    for command in ('record', 'report', 'dump', 'enable', 'disable', 'list', 'set', 'watch', 'stat', 'probe'):
        p = subprocess.run([SHUNT, command, '--no-such-option'], capture_output=True, text=True)
        ok(p.returncode == 2 and len(p.stderr.splitlines()) == 1,
           'shunt %s: wrong use is refused in one line' % command, p.stderr)
        p = subprocess.run([SHUNT, command, '--help'], capture_output=True, text=True)
        known[command] = set(re.findall(r'(?<![\w-])(--?\w[\w-]*)', p.stdout)) | {'--help'}
        ok(p.returncode == 0 and not p.stderr, 'shunt %s --help' % command, p.stderr)
    files = [os.path.join(TOP, 'README.md'), *sorted(glob.glob(TOP + '/docs/*.md')),
             *sorted(glob.glob(TOP + '/man/*.scd'))]
    for path in files:
        text = open(path).read().replace('*', '').replace('\\', '')
        page = re.search(r'shunt-(\w+)\.1\.scd$', path)
        wrong, named = [], 0
        for command, rest in re.findall(r'shunt (record|report|dump|enable|disable|list|set|watch|stat|probe)\b([^\n`|]*)',
                                        text):
            rest = rest.split(' -- ')[0]
            for option in re.findall(r'(?<![\w-])(--[a-z][\w-]*|-[A-Za-z])\b', rest):
                named += 1
                if option not in known[command] and option not in ('-h',):
                    wrong.append('shunt %s %s' % (command, option))
        if page and page.group(1) in known:
            for option in re.findall(r'^(--[a-z][\w-]*|-[A-Za-z])\b', text, re.M):
                named += 1
                if option not in known[page.group(1)]:
                    wrong.append(option)
            for option in known[page.group(1)]:
                if option not in text and option.startswith('--') and option != '--help':
                    wrong.append('not described: ' + option)
        ok(not wrong, '%s: %d options named, all there are' % (os.path.relpath(path, TOP), named),
           wrong)


for path in sorted(glob.glob(TOP + '/include/shunt/*.h')):
    text = open(path).read()
    if re.search(r'^ \* Example', text, re.M):
        code = header_example(text)
        if re.search(r'^int main\(', code, re.M):
            runs(os.path.basename(path), os.path.basename(path), code)
        else:
            compiles(os.path.basename(path), code)
for path in [os.path.join(TOP, 'README.md'), *sorted(glob.glob(TOP + '/docs/*.md')),
             *sorted(glob.glob(TOP + '/man/*.3.scd'))]:
    for n, code in enumerate(blocks(open(path).read())):
        compiles('%s, block %d' % (os.path.basename(path), n + 1), code)
options()
print('1..%d' % count)
sys.exit(failed != 0)
