"""A client that knows the names of two methods and learns everything else from the server.

    reflection.py HOST:PORT [HOST:PORT ...]

Writes a value of every type at the first endpoint and reads each at all of them.
"""

import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "kvnode.v1.Kv"
VALUES = [
    {"string_value": "grüße"},
    {"bytes_value": "AAEC/w=="},
    {"integer_value": "-42"},
    {"big_integer_value": "AP//////////////////"},
    {"double_value": 2.5},
    {"bool_value": True},
    {"null_value": "NULL_VALUE"},
    {"list_value": {"values": [{"string_value": "a"}, {"bool_value": False}]}},
    {"object_value": {"fields": {"name": {"integer_value": "7"}}}},
]


class Learned:
    """The methods of a service, made of what reflection tells."""

    def __init__(self, endpoint):
        self.channel = grpc.insecure_channel(endpoint)
        grpc.channel_ready_future(self.channel).result(timeout=10)
        database = ProtoReflectionDescriptorDatabase(self.channel)
        services = sorted(database.get_services())
        for needed in (SERVICE, "kvnode.v1.Cluster", "grpc.health.v1.Health"):
            assert needed in services, f"{needed} is not among {services}"
        pool = descriptor_pool.DescriptorPool(database)
        self.service = pool.FindServiceByName(SERVICE)

    def call(self, name, fields):
        method = self.service.methods_by_name[name]
        request_class = message_factory.GetMessageClass(method.input_type)
        answer_class = message_factory.GetMessageClass(method.output_type)
        stub = self.channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=answer_class.FromString,
        )
        request = json_format.ParseDict(fields, request_class())
        answer = stub(request, timeout=10)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)


def main(endpoints):
    nodes = [Learned(endpoint) for endpoint in endpoints]
    for i, value in enumerate(VALUES):
        key = f"learned-{i}"
        nodes[0].call("Put", {"key": key, "value": value})
        seen = [node.call("Get", {"key": key}) for node in nodes]
        assert all(answer == seen[0] for answer in seen), f"{key}: {seen}"
        assert seen[0]["value"] == value, f"{key}: wrote {value}, read {seen[0]}"
        assert int(seen[0]["version"]) > 0, f"{key}: no version in {seen[0]}"
    try:
        nodes[-1].call("Get", {"key": "nobody-wrote-this"})
        raise AssertionError("a missing key was found")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    print(f"{len(VALUES)} types written at {endpoints[0]} and read at {len(endpoints)} nodes")


if __name__ == "__main__":
    main(sys.argv[1:])
