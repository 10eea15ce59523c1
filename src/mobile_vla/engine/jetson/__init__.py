"""From a policy to an engine that TensorRT builds on a Jetson, where neither PyTorch nor this package need be."""
