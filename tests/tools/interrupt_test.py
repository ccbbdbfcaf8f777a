#!/usr/bin/env python3
"""Interrupts the commands of `holdfast` in the middle and checks what they leave and say.

Usage: interrupt_test.py HOLDFASTD HOLDFAST

Each scenario is a function named test_*; it has queues of its own at one broker. That a command is in the
middle is known by what it has done or waits for, never by how long it has run. The last line is
"N passed, N failed".
"""

import json
import signal
import socket
import subprocess
import sys
import threading

import cli_harness
from cli_harness import CHECK, LONG_S, Tool, make_dead_letters, until


class HoldingProxy:
    """Passes on what one client and the broker say, and holds the client's words back from the n-th
    piece on, until it is let go."""

    def __init__(self, address, pieces):
        host, port = address.rsplit(":", 1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.broker = socket.create_connection((host, int(port)))
        self.pieces = pieces
        self.is_holding = threading.Event()
        self.let_go = threading.Event()
        self.threads = [threading.Thread(target=self.serve, daemon=True)]
        self.threads[0].start()

    def serve(self):
        client, _ = self.listener.accept()
        answers = threading.Thread(target=self.pass_on, args=[self.broker, client, lambda: None],
                                   daemon=True)
        answers.start()
        self.pass_on(client, self.broker, self.hold)
        answers.join()
        client.close()

    def pass_on(self, source, target, before):
        try:
            while piece := source.recv(1 << 16):
                before()
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def hold(self):
        self.pieces -= 1
        if self.pieces == 0:
            self.is_holding.set()
            self.let_go.wait(LONG_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.let_go.set()
        self.threads[0].join(LONG_S)
        self.broker.close()
        self.listener.close()


def heed_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_moving_dead_letters_was_interrupted_and_nothing_was_said(tool):
    tool.make("halted")
    count = 3000
    make_dead_letters(tool, "halted", count)
    moved = 0
    for words, word in (
            (["dlq", "redrive", "halted", "--all"], "redriven"),
            (["dlq", "redrive", "halted", *(str(m) for m in range(2000, 3000))], "redriven"),
            (["dlq", "discard", "halted", "--all", "--yes"], "discarded")):
        # Hello, the question for the queue and one step pass at once.
        with HoldingProxy(tool.address, 4) as proxy:
            slow = Tool(tool.binary, proxy.address)
            # Not ignored, whatever this was started with.
            process = subprocess.Popen(slow.command("-o", "jsonl", *words), stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, preexec_fn=heed_interrupts)
            CHECK.that(proxy.is_holding.wait(LONG_S), "it is in the middle")
            process.send_signal(signal.SIGINT)
            proxy.let_go.set()
            out, err = process.communicate(timeout=LONG_S)
        CHECK.that(process.returncode == -signal.SIGINT, (process.returncode, err))
        done = json.loads(out)[word]
        moved += done
        CHECK.that(done == 512, done)
        CHECK.that(f"cancelled: Interrupted. {done} dead letters of halted.dead {word}, the others "
                   "stay where they are." in err.decode(), err)
        CHECK.that(tool.report("halted.dead")["messages"] == count - moved, "the others stay")


if __name__ == "__main__":
    sys.exit(cli_harness.with_one_broker(__doc__, globals()))
