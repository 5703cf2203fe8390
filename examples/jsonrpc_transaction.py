#!/usr/bin/env python3
"""A transaction over two keys through Scalaris' JSON-RPC, with the standard library alone.

    python3 jsonrpc_transaction.py [HOST:PORT]

Moves 10 from one account to the other. If somebody else changed one of them meanwhile, the commit is aborted,
nothing was moved, and the whole transaction is done again.
"""

import json
import random
import sys
import time
import urllib.request

ENDPOINT = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000"


def call(method, *params):
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 0})
    request = urllib.request.Request(f"http://{ENDPOINT}/api/tx.yaws", body.replace("%", "%25").encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        reply = json.load(answer)
    if "error" in reply:
        raise RuntimeError(reply["error"])
    return reply["result"]


def as_is(value):
    return {"type": "as_is", "value": value}


def transfer(source, target, amount):
    while True:
        # Nothing is locked: the log, an opaque text, says what was read. It goes back with the writes.
        read = call("req_list", [{"read": source}, {"read": target}])
        have, had = (result["value"]["value"] for result in read["results"])
        if have < amount:
            return False
        done = call("req_list", read["tlog"], [
            {"write": {source: as_is(have - amount)}},
            {"write": {target: as_is(had + amount)}},
            {"commit": ""},
        ])["results"][-1]
        if done["status"] == "ok":
            return True
        if done["reason"] != "abort":
            raise RuntimeError(f"it is not known whether the transfer was done: {done}")
        time.sleep(random.uniform(0, 0.05))


run = random.randrange(10**9)
savings, cash = f"savings-{run}", f"cash-{run}"
call("write", savings, as_is(100))
call("write", cash, as_is(0))
moved = transfer(savings, cash, 10)
left = [call("read", key)["value"]["value"] for key in (savings, cash)]
print(f"moved: {moved}, savings: {left[0]}, cash: {left[1]}")
