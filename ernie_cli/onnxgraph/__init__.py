"""ONNX graphs of any kind as files: read safely, checked, simplified, lowered. The ERNIE 4.5 decoder is graph/'s."""
