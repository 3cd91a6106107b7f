"""Runs command-line clients written in Python, each command in a process of its own that is forked from this one.

Such a client takes a second or two of a processor to load what it consists of, and a fraction of one for its work. Here a
module is loaded once: what a command had to load, this process loads too before it forks the next. The command itself is the
program that is installed, run from its first line in a fresh process, with its own arguments, environment and folder.

Reads requests from standard input, a JSON object a line: id, line (the program and its arguments), env, cwd, timeoutSeconds.
Answers each with a line: id, code (negative: the signal that ended it), stdout, stderr. Several may be on their way at once.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import sys
import tempfile
import traceback


def run_client(request, stdout, stderr, loaded):
    """In the fork. Does not return."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    # glance takes a standard input that is no terminal for image data
    os.dup2(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY), 0)
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    signal.alarm(request["timeoutSeconds"])
    code = 1
    try:
        program = shutil.which(request["line"][0])
        if program is None:
            raise FileNotFoundError(request["line"][0])
        sys.path[0] = os.path.dirname(program)
        sys.argv = [program, *request["line"][1:]]
        runpy.run_path(program, run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = 0 if ended.code is None else ended.code
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    loaded.write("\n".join(sorted(sys.modules)).encode())
    loaded.flush()
    os._exit(code & 0xFF)


def content(file):
    file.seek(0)
    return file.read().decode("utf8", "replace")


def load(names):
    for name in names:
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except Exception:
                pass  # made by another while it was loaded: no module that is found by its name
    gc.freeze()  # else the collector of each fork would copy all of it


running = {}
wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
signal.signal(signal.SIGCHLD, lambda *_: None)
events = selectors.DefaultSelector()
events.register(wake, selectors.EVENT_READ)
events.register(0, selectors.EVENT_READ)
unread = b""
while True:
    for key, _ in events.select():
        if key.fd == wake:
            os.read(wake, 4096)
            while running:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                number, stdout, stderr, loaded = running.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                answer = {"id": number, "code": code, "stdout": content(stdout), "stderr": content(stderr)}
                print(json.dumps(answer), flush=True)
                load(content(loaded).split())
                for file in (stdout, stderr, loaded):
                    file.close()
            continue
        more = os.read(0, 65536)
        if not more:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            sys.exit()
        *lines, unread = (unread + more).split(b"\n")
        for line in lines:
            request = json.loads(line)
            files = [tempfile.TemporaryFile() for _ in range(3)]
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                run_client(request, *files)
            running[pid] = (request["id"], *files)
