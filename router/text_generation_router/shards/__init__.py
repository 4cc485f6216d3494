"""The shards as the router sees them. Nothing outside knows gRPC or protobuf."""
