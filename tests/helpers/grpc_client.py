"""Call TorchServe by gRPC, with its two messages written out, as the package ships no stubs."""

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "org.pytorch.serve.grpc.inference"
TEXT, BYTES, MESSAGE = 9, 12, 11  # types of descriptor.proto


def _messages() -> tuple[type, type]:
    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package=PACKAGE, syntax="proto3")
    request = file.message_type.add(name="PredictionsRequest")
    request.field.add(name="model_name", number=1, type=TEXT, label=1)
    request.field.add(name="model_version", number=2, type=TEXT, label=1)
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=TEXT, label=1)
    entry.field.add(name="value", number=2, type=BYTES, label=1)
    kind = f".{PACKAGE}.PredictionsRequest.InputEntry"
    request.field.add(name="input", number=3, type=MESSAGE, label=3, type_name=kind)
    response = file.message_type.add(name="PredictionResponse")
    response.field.add(name="prediction", number=1, type=BYTES, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptors = (
        pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
        for name in ("PredictionsRequest", "PredictionResponse")
    )
    request_class, reply_class = map(message_factory.GetMessageClass, descriptors)
    return request_class, reply_class


def predict(port: int, model: str, fields: dict[str, bytes]) -> bytes:
    """Return the reply to a unary call; raises grpc.RpcError."""
    request, reply = _messages()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            f"/{PACKAGE}.InferenceAPIsService/Predictions",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return call(request(model_name=model, input=fields), timeout=60).prediction  # type: ignore[no-any-return]
