# SPDX-License-Identifier: MIT
"""Processes that work on pieces, a bounded number of pieces at a time."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import multiprocessing
import os
import signal
import threading
import time


@contextlib.contextmanager
def pool_of(jobs):
    """Yields run(function, items): results in the order of the items, from `jobs` processes; with one, from this process.

    `items` is consumed as processes become free, so it may be long and cost time to make. The first error ends the work.
    """
    if jobs == 1:
        yield map
        return
    # Not fork: Kokkos and OpenMP do not survive it.
    with concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start, (os.getpid(),)) as pool:
        waiting = collections.deque()

        def run(function, items):
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        try:
            yield run
        except concurrent.futures.process.BrokenProcessPool:
            raise OSError("a process was killed, perhaps for lack of memory: use fewer --jobs or a smaller --shard-mb.") from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start(parent):
    """In each process: Ctrl-C is the parent's business, and a killed parent ends its processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
