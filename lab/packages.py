"""A cache of Debian packages that outlives the hosts.

apt locks its cache, so each host has a directory of its own; hard links to a common pool make a
package that one host downloaded available to the others at no cost in space.
"""

from __future__ import annotations

import os
from pathlib import Path

from lab.state import State
from lab.topology import HOSTS


def link_new(source: Path, target: Path) -> int:
    """Hard-link the packages of one directory that another does not have; return how many."""
    target.mkdir(parents=True, exist_ok=True)
    present = {entry.name for entry in os.scandir(target)}
    count = 0
    for entry in os.scandir(source):
        if not entry.name.endswith(".deb") or entry.name in present or entry.is_symlink():
            continue
        os.link(entry.path, target / entry.name)
        count += 1
    return count


def collect(state: State) -> int:
    """Take what the hosts downloaded into the pool."""
    caches = [state.package_cache(host.name) for host in HOSTS]
    return sum(link_new(cache, state.package_pool) for cache in caches if cache.is_dir())


def share(state: State) -> None:
    """Give every host what any of them has ever downloaded."""
    state.package_pool.mkdir(parents=True, exist_ok=True)
    collect(state)
    for host in HOSTS:
        link_new(state.package_pool, state.package_cache(host.name))
