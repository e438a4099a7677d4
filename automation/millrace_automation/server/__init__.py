"""The gRPC server around the sandbox. `main` wires the parts; `service` holds the rpcs."""
