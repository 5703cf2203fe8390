#!/usr/bin/env python3
"""A transaction over two keys through gRPC.

    pip install grpcio grpcio-tools
    python3 grpc_transaction.py [HOST:PORT]

Moves 10 from one account to the other. If somebody else changed one of them meanwhile, the commit is aborted,
nothing was moved, and the whole transaction is done again.
"""

import pathlib
import random
import sys

import grpc

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "proto"))
kv = grpc.protos("kvnode/v1/kv.proto")
values = grpc.protos("kvnode/v1/value.proto")
tx, services = grpc.protos_and_services("kvnode/v1/transactions.proto")

ENDPOINT = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000"
transactions = services.TransactionsStub(grpc.insecure_channel(ENDPOINT))


def get(key):
    return kv.Operation(get=kv.GetRequest(key=key))


def put(key, number):
    return kv.Operation(put=kv.PutRequest(key=key, value=values.Value(integer_value=number)))


def execute(log=b"", commit=False, operations=()):
    request = tx.ExecuteRequest(log=log, commit=commit, operations=operations)
    return transactions.Execute(request, timeout=30)


def transfer(source, target, amount):
    while True:
        read = execute(operations=[get(source), get(target)])
        have, had = (result.get.value.integer_value for result in read.results)
        if have < amount:
            return False
        try:
            # Nothing was locked: the log says what was read, and goes back with the writes.
            execute(read.log, True, [put(source, have - amount), put(target, had + amount)])
            return True
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.ABORTED:
                raise


run = random.randrange(10**9)
savings, cash = f"savings-{run}", f"cash-{run}"
execute(commit=True, operations=[put(savings, 100), put(cash, 0)])
moved = transfer(savings, cash, 10)
left = [r.get.value.integer_value for r in execute(commit=True, operations=[get(savings), get(cash)]).results]
print(f"moved: {moved}, savings: {left[0]}, cash: {left[1]}")
