"""TorchScript: ONNX graphs written as it, and its archives read safely."""
