"""The usual implementation of Momentum Contrast, written from the papers and from what its public code is known to do.

What it has in common with the public ones: NCHW tensors, parameters of f_k made anew by a loop, a queue C x K that is
copied every step, logits N x (1 + K) through a concatenation, torch's default optimizers. The networks are this
project's own, whose blocks are torchvision's, so that both sides train the same.
"""
