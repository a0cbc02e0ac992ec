"""ONNX models: importing, checking, tokenizing and running them."""
