"""The processes that are measured, brokers and the tool: they end with their user."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

READY = re.compile(r"ready on (\S+?),")
RUN_SECONDS = 1800  # nothing takes longer unless it hangs
START_SECONDS = 60
END_SECONDS = 15
SAMPLE_SECONDS = 0.1


class Failed(Exception):
    """Something that must work did not; the text is for people."""


def environment():
    """Without the address of a broker, so that the bench starts its own."""
    return {name: value for name, value in os.environ.items() if name != "HOLDFAST_URL"}


def is_group_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def end_group(process):
    """Ends a process that leads its own group, and whatever it started, and waits for them."""
    for with_signal in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            # The leader is reaped first: a group lives as long as one of it is not.
            if process.poll() is not None and not is_group_alive(process.pid):
                return
            if with_signal is not None and is_group_alive(process.pid):
                os.killpg(process.pid, with_signal)
                with_signal = None
            time.sleep(0.01)


class Broker:
    """A broker on a directory, on a port of its own. Nothing of it outlives the `with`."""

    def __init__(self, binary, directory, *options):
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [binary, "--data", str(directory), "--listen", "127.0.0.1:0", *options],
            stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.address = None
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        self.start_seconds = time.monotonic() - begin
        # The log is read to its end, so that the broker never waits for its reader.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def wait_ready(self):
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        said = []
        try:
            for line in self.process.stderr:
                said.append(line)
                if ready := READY.search(line):
                    self.address = ready[1]
                    return
        finally:
            timer.cancel()
        raise Failed("the broker did not start: " + " ".join("".join(said).split()))

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class MemoryWatch:
    """The largest RssAnon of a process, in bytes, while the `with` lasts."""

    def __init__(self, pid):
        self.pid = pid
        self.largest = 0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while True:
            self.largest = max(self.largest, anonymous_bytes(self.pid))
            if self.is_over.wait(SAMPLE_SECONDS):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()


def anonymous_bytes(pid):
    """RssAnon: what a process has for itself, without the pages of its mapped file."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class Tool:
    """The command-line tool."""

    def __init__(self, binary, broker_binary, directory, out):
        self.binary = binary
        self.broker_binary = broker_binary
        self.directory = directory
        self.out = out

    def bench(self, measure, broker=None, name=None):
        """Makes one run and returns its JSON.

        It has a broker of its own unless one is given; then `name` is the queue's, and its label
        keeps it apart from the runs that are made in rounds.
        """
        where = ["--broker", self.broker_binary, "--dir", str(self.directory)]
        if broker:
            where = ["-u", broker.address, "--server-pid", str(broker.pid), "--queue", name,
                     "--label", f"holdfast {name}"]
        os.sync()
        process = subprocess.Popen(
            [self.binary, "-q", "bench", measure.workload, *measure.options, *where, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
            start_new_session=True)
        try:
            output, errors = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"{measure} took longer than {RUN_SECONDS} s") from None
        finally:
            end_group(process)
        if process.returncode != 0:
            raise Failed(f"{measure} ended with exit code {process.returncode}. {errors.strip()}")
        if self.out:
            with open(self.out, "a", encoding="utf-8") as file:
                file.write(output)
        return json.loads(output)

    def ask(self, broker, *arguments):
        """The JSON that a command prints."""
        done = subprocess.run([self.binary, "-u", broker.address, "-o", "json", *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False)  # it ends by itself: it has a timeout of its own
        if done.returncode != 0:
            raise Failed(f"holdfast {' '.join(arguments)} ended with exit code {done.returncode}. "
                         f"{done.stderr.strip()}")
        return json.loads(done.stdout)

    def fill(self, broker, queue, lines, line_bytes):
        """Makes a queue of so many messages, whose ids are QUEUE-1, QUEUE-2, ….

        Their dedup window outlasts the filling on a slow disk.
        """
        self.ask(broker, "queue", "create", queue, "--dedup-window", "1h")
        text = b"".join(os.urandom(line_bytes).hex()[:line_bytes].encode() + b"\n"
                        for _ in range(1000))
        process = subprocess.Popen(
            [self.binary, "-u", broker.address, "-q", "-o", "jsonl", "message", "send", queue, "-",
             "--lines", "--id", queue],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            for _ in range(lines // 1000):
                process.stdin.write(text)
            process.stdin.close()
            process.wait()
        except BrokenPipeError:
            raise Failed("holdfast message send gave up") from None
        finally:
            process.kill()
            process.wait()
        messages = self.ask(broker, "queue", "show", queue)["messages"]
        if messages != lines:
            raise Failed(f"{lines:,} messages were sent, {messages:,} are in the queue")
