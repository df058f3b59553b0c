"""The Python API: what `import offline_cql` offers, over the functions behind the commands.

Imports nothing, so that a policy can be loaded from an ONNX file without torch.
"""
