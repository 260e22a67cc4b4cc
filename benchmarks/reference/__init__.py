"""The usual implementation of Momentum Contrast, written from the papers and the known properties of public code.

As in public code: NCHW tensors, a loop that makes new parameters of f_k, a queue C x K that is copied in every step,
concatenated logits N x (1 + K), torch's default optimizers. The networks are this project's, whose blocks are
torchvision's, so that both sides train the same network.
"""
