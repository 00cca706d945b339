"""Softmax-cross-entropy: the composite that specifies it, the fused node, its kernel."""
