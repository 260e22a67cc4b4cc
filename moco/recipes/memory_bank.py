"""The memory bank, Fig. 2(b) in MoCo's paper (arXiv:1911.05722), after InstDisc (arXiv:1805.01978)."""

from moco.recipe import Recipe
from moco.recipes.moco_v1 import IMAGENET_LINEAR, PAPER, moco_v1_r50
from moco.recipes.sources_of_numbers import Origin, Published

INSTDISC, ITS_CODE = "arXiv:1805.01978", "zhirongw/lemniscate.pytorch"


def memory_bank_infonce() -> Recipe:
    """Memory bank with InfoNCE and 65536 negatives, ResNet-50, 200 epochs."""
    return moco_v1_r50().but(
        "memory_bank_infonce",
        {
            "method.key_encoder": "none",
            "method.dictionary": "bank",
            "method.negatives": "shared",
            "method.bank_momentum": 0.5,
            "method.bn": "split",
        },
        source=f"{PAPER}, Sec. 3.2, Fig. 2(b), Sec. 4.1 and Fig. 3; {INSTDISC}",
    )


def memory_bank_nce() -> Recipe:
    """Memory bank with NCE and 4096 negatives, ResNet-50, 200 epochs."""
    return memory_bank_infonce().but("memory_bank_nce", {"method.loss": "nce", "method.size": 4096})


ORIGINS: dict[str, Origin] = {
    "memory_bank_infonce": Origin(
        base="moco_v1_r50",
        sources={
            "method.key_encoder": f"{PAPER}, Sec. 3.2, Fig. 2(b): a key is a query of an earlier epoch",
            "method.dictionary": f"{PAPER}, Sec. 3.2, Fig. 2(b)",
            "method.size": f"{PAPER}, Fig. 3",
            "method.negatives": f"{PAPER}, Sec. 3.2: a dictionary is drawn for each mini-batch",
            "method.bank_momentum": f"{INSTDISC}; {ITS_CODE}",
            "method.loss": f"{PAPER}, Sec. 4.1: InfoNCE in place of InstDisc's NCE",
            "method.symmetric": f"{INSTDISC}: one view of each image",
            "method.bn": f"{PAPER}, Sec. 3.3: no shuffling needed, positives come from earlier mini-batches",
        },
        deviations={
            "method.negatives": f"{ITS_CODE} draws negatives for each query instead: method.negatives=each",
            "method.dictionary": "the bank is initialized with random keys of unit length; in InstDisc's code "
            "their length is about 1. An image that occurs twice in a step is updated once, with the mean of its "
            "embeddings",
        },
        published=(Published(IMAGENET_LINEAR, 58.0, f"{PAPER}, Sec. 4.1 and Fig. 3"),),
    ),
    "memory_bank_nce": Origin(
        base="memory_bank_infonce",
        sources={
            "method.loss": f"{INSTDISC}, Eqn. (4) to (8)",
            "method.size": f"{INSTDISC}; {PAPER}, Sec. 4.1",
        },
        deviations={
            "method.loss": f"Z is an exponential average (0.99) and is saved in checkpoints; {ITS_CODE} uses the "
            "estimate of the first mini-batch, which K. He reported as a defect (HobbitLong/CMC#23)",
        },
        published=(Published(IMAGENET_LINEAR, 54.3, f"{PAPER}, footnote 2"),
                   Published(f"{IMAGENET_LINEAR}, InstDisc's own", 54.0, INSTDISC)),
    ),
}  # fmt: skip
