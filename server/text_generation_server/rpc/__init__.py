"""The gRPC side of a shard: protocol versions 2 and 3 on one socket. Nothing outside knows protobuf or grpc."""
