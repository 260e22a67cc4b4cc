def test_x():
    from moco.data import kernels
    assert kernels.crop.signatures
