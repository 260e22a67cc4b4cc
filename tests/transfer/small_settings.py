"""Settings of fine-tuning runs that take a second."""

CLASSIFY = {"optim.batch_size": 4, "images.size": 16, "images.eval_resize": 18, "precise_bn": 0}

SEGMENT = {
    "encoder.width": 0.0625, "channels": 8, "crops.side": 49, "optim.batch_size": 2, "precise_bn": 1, "threads": 1,
}  # fmt: skip

DETECT = {
    "optim.batch_size": 2, "optim.warmup": 1, "sizes.shorter": (64,), "sizes.eval_shorter": 64, "precise_bn": 1,
    "detector.fpn_channels": 16, "detector.fc_channels": 16, "detector.anchor_sizes": (8, 16, 32, 64, 128),
    "detector.proposals": 20, "detector.rois": 16,
}  # fmt: skip
