# SPDX-License-Identifier: MIT
"""Debian packages that tests run as guests: downloaded once, unpacked, never installed.

They are kept where the template keeps its own: $HSK_PACKAGES, default ~/.cache/haversack/packages. A package of another
architecture needs package lists of its own; they live beside the packages, so that the host's apt stays as it is.
"""
import glob
import os
import re
import shutil
import subprocess
import tarfile

FOLDER = os.environ.get('HSK_PACKAGES') or \
    (os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')) + '/haversack/packages'


class Missing(Exception):
    """Not here and not to be had: a reason to skip."""


def run(*args):
    try:
        return subprocess.run(args, cwd=FOLDER, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Missing(str(e)) from e


def options(arch):
    """apt's options for an architecture that is not the host's."""
    if run('dpkg', '--print-architecture').stdout.strip() == arch:
        return []
    state = f'{FOLDER}/apt-{arch}'
    for folder in ('lists/partial', 'archives/partial'):
        os.makedirs(f'{state}/{folder}', exist_ok=True)
    open(f'{state}/status', 'a').close()
    named = {'APT::Architecture': arch, 'APT::Architectures': arch, 'Dir::State': state, 'Dir::State::Lists': state + '/lists',
             'Dir::State::status': state + '/status', 'Dir::Cache': state}
    return [f'-o={name}={value}' for name, value in named.items()]


def cached(name, arch):
    found = sorted(glob.glob(f'{FOLDER}/{name}_*_{arch}.deb'))
    return found[-1] if found else None


def fetch(name, arch='amd64', meta=None):
    """The path of the package's file. meta: name is a pattern, and that package depends on the one that is meant."""
    os.makedirs(FOLDER, exist_ok=True)
    deb = cached(name, arch)
    if deb:
        return deb
    opts = options(arch)
    if opts:
        run('apt-get', *opts, 'update')  # a source without that architecture is an error here, and none for us
    if meta:
        m = re.search(r'Depends: (linux-image-[0-9]\S*)', run('apt-cache', *opts, 'depends', meta).stdout)
        if not m:
            raise Missing(f'apt does not know the package {meta} ({arch})')
        name = m[1]
    done = run('apt-get', *opts, 'download', name)
    deb = cached(name, arch)
    if not deb:
        last = (done.stderr.strip().split('\n') or [''])[-1]
        raise Missing(f'the Debian package {name} ({arch}) could not be downloaded into {FOLDER}: {last}')
    return deb


def unpack_all(deb, wanted):
    """Writes the package's first file that matches each pattern: wanted is {pattern: path}."""
    wanted = dict(wanted)
    with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as p:
        with tarfile.open(fileobj=p.stdout, mode='r|') as tar:
            for member in tar:
                pattern = next((w for w in wanted if re.search(w, member.name)), None) if member.isfile() else None
                if pattern:
                    with open(wanted.pop(pattern), 'wb') as out:
                        shutil.copyfileobj(tar.extractfile(member), out)
                if not wanted:
                    p.kill()  # the rest of a kernel's package is large
                    return
    raise FileNotFoundError(f'{list(wanted)} in {deb}')


def unpack(deb, pattern, path):
    """Writes the package's first file whose name matches the pattern."""
    unpack_all(deb, {pattern: path})
    return path
