"""`python one_rank.py RANK WORLD STORE BACKEND DEVICE OUT`: train each mechanism as one rank, and save the state."""

import sys

import torch
import torch.distributed as dist

from tests.ranks.mechanisms import MECHANISMS, trained


def main() -> None:
    rank, world, store, backend, device, out = sys.argv[1:]
    dist.init_process_group(backend, store=dist.FileStore(store, int(world)), rank=int(rank), world_size=int(world))
    torch.set_num_threads(1)
    torch.save({make.__name__: trained(make, 2, device=device) for make in MECHANISMS}, out)
    if backend.endswith("nccl"):  # the only rank: its collectives return what they get
        x = torch.randn(4, 3, device=device)
        rows, same = torch.empty_like(x), x.clone()
        dist.all_gather_into_tensor(rows, x)
        dist.all_reduce(same)
        arrived = torch.empty_like(x)
        dist.all_to_all_single(arrived, x, [4], [4])
        assert all(torch.equal(one, x) for one in (rows, same, arrived))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
