"""A program that speaks the child protocol without importing anything of ours, and does what the rule says.

Started as a ``cmd:`` program; it stands for implementations in any language. It starts in a few hundredths of a second.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from typing import Any

HELLO = {"protocol": 1, "name": "misbehaving", "version": "2", "supports": ["Aggregate"]}
EAT = "import time; held = bytearray(%d << 20); held[::4096] = b'x' * len(held[::4096]); time.sleep(600)"
ABANDON = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=2).pid)"


def answer(number: int, sentence: str, tensors: str | None = None) -> None:
    reply = {"$type": "Misused", "error": "None", "sentence": sentence}
    say({"id": number, "reply": reply, "tensors": tensors})


def say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def misbehave(asked: dict[str, Any]) -> None:
    number = asked["id"]
    match asked["request"]["rule"]:
        case "leave":
            print("leaving now", file=sys.stderr, flush=True)
            os._exit(3)
        case "crash":
            ctypes.string_at(0)
        case "loop":
            while True:
                pass
        case "eat":  # two grandchildren, outside this process group, eat together what neither may eat alone
            for _ in range(2):
                subprocess.Popen([sys.executable, "-S", "-c", EAT % 80], start_new_session=True)
            time.sleep(600)
        case "abandon":  # a process that loses its parent, as Ray's daemons do
            command = [sys.executable, "-S", "-c", ABANDON]
            answer(number, subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
        case "wrong id":
            say({"id": 99})
        case "no JSON":
            print("oops", flush=True)
        case "no reply":
            say({"id": number})
        case "closed output":
            os.close(1)
        case "a path outside":
            answer(number, "", tensors="../x")
        case "half a message":
            say({"id": number, "reply": {"$type": "Misused"}})
        case rule:
            answer(number, f"{asked['node']} {rule} {os.path.isdir(os.environ['HQDE_CHILD_FOLDER'])}")


def main() -> None:
    if "no hello" in sys.argv:
        time.sleep(600)
    say({"hello": HELLO})
    if "never reads" in sys.argv:
        time.sleep(600)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["verb"] == "perform":
            misbehave(asked)
        elif asked["verb"] == "stop":
            break


main()
