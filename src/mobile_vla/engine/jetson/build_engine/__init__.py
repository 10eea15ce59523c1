"""Builds the engine of a folder that ``mobile-vla export --for jetson`` made, on the machine that will run it.

Copied into that folder, it needs Python 3.10, numpy and TensorRT, and nothing else: ``python3 -m build_engine``.
"""
