"""What the tests of `holdfast` share: a broker, the tool, what is checked of both.

No test by itself.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

LONG_S = 60  # no command of this test takes longer unless something hangs


class Failure(Exception):
    pass


class Checks:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def that(self, condition, what):
        if condition:
            self.passed += 1
            return
        self.failed += 1
        caller = [frame for frame in traceback.extract_stack() if frame.filename != __file__][-1]
        print(f"FAILED {os.path.basename(caller.filename)}:{caller.lineno}: {what}", flush=True)


CHECK = Checks()


class Broker:
    def __init__(self, binary, directory, *options):
        self.process = subprocess.Popen(
            [binary, "--data", directory, "--listen", "127.0.0.1:0", *options],
            stderr=subprocess.PIPE, text=True)
        self.log = []
        deadline = time.monotonic() + LONG_S
        self.address = None
        while time.monotonic() < deadline:
            line = self.process.stderr.readline()
            if not line:
                break
            self.log.append(line)
            ready = re.search(r"ready on (\S+?)(?:,| and )", line)
            if ready:
                self.address = ready.group(1)
                break
        if self.address is None:
            self.stop(signal.SIGKILL)
            raise Failure("the broker did not become ready: " + "".join(self.log))
        self.reader = threading.Thread(target=self.drain, daemon=True)
        self.reader.start()

    def drain(self):
        for line in self.process.stderr:
            self.log.append(line)

    def stop(self, with_signal=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.process.wait(timeout=LONG_S)


class Run:
    def __init__(self, code, out, err):
        self.code = code
        self.out = out
        self.err = err

    def objects(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def __str__(self):
        return f"exit {self.code}, stdout {self.out[:500]!r}, stderr {self.err[:500]!r}"


class Tool:
    def __init__(self, binary, address):
        self.binary = binary
        self.address = address

    def command(self, *arguments):
        return [self.binary, "-u", self.address, *arguments]

    def run(self, *arguments, stdin=b"", environment=None, raw=False):
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True,
                              timeout=LONG_S, env=environment)
        out = done.stdout if raw else done.stdout.decode()
        return Run(done.returncode, out, done.stderr.decode())

    def json(self, *arguments, stdin=b""):
        return self.run("-o", "jsonl", *arguments, stdin=stdin)

    def ok(self, *arguments, stdin=b""):
        done = self.json(*arguments, stdin=stdin)
        if done.code != 0:
            raise Failure(f"{' '.join(arguments)}: {done}")
        return done.objects()

    def make(self, queue, *settings):
        return self.ok("queue", "create", queue, *settings)[0]

    def send(self, queue, body, *options):
        return self.ok("message", "send", queue, body, *options)[0]

    def lines(self, queue, lines, *options):
        text = "".join(line + "\n" for line in lines)
        return self.ok("message", "send", queue, "-", "--lines", *options, stdin=text.encode())

    def report(self, queue):
        return self.ok("queue", "show", queue)[0]


def expect(done, code, *texts):
    """The exit code, and texts that standard error contains."""
    CHECK.that(done.code == code, f"exit {code} expected: {done}")
    for text in texts:
        CHECK.that(text in done.err, f"{text!r} expected on standard error: {done}")


def until(condition, what):
    """Asks again until it is so."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        if condition():
            CHECK.that(True, what)
            return
    CHECK.that(False, what)


def make_dead_letters(tool, queue, count):
    tool.lines(queue, [f"m{i}" for i in range(count)])
    rejected = tool.ok("message", "receive", queue, "-n", str(count), "--reject")
    CHECK.that(len(rejected) == count, len(rejected))


def run_all(tests, *arguments):
    """Runs each, whatever became of the others."""
    for name, test in tests:
        try:
            test(*arguments)
        except Exception:
            CHECK.that(False, f"{name}: {traceback.format_exc()}")


@contextlib.contextmanager
def own_broker(daemon, tool_binary):
    """A broker in a directory of its own, the tool for it, and where its data is."""
    with tempfile.TemporaryDirectory(prefix="holdfast-cli-") as directory:
        data = os.path.join(directory, "data")
        broker = Broker(daemon, data)
        try:
            yield broker, Tool(tool_binary, broker.address), data
        finally:
            broker.stop()


def tests_of(names):
    """The tests among the names of a file."""
    return [(name, test) for name, test in sorted(names.items()) if name.startswith("test_")]


def end():
    """Says what was checked; the exit code."""
    print(f"{CHECK.passed} passed, {CHECK.failed} failed")
    return 0 if CHECK.failed == 0 else 1


def with_one_broker(usage, names):
    """The main function of a file whose tests share one broker."""
    if len(sys.argv) != 3:
        print(usage)
        return 64
    with own_broker(*sys.argv[1:]) as (_, tool, _):
        run_all(tests_of(names), tool)
    return end()


def with_own_brokers(usage, names):
    """The main function of a file each of whose tests starts what it needs."""
    if len(sys.argv) != 3:
        print(usage)
        return 64
    run_all(tests_of(names), *sys.argv[1:])
    return end()
