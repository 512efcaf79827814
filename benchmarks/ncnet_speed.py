"""Neighbourhood consensus, forward and backward: against a loop of 3D convolutions, and sparse.

The loop is the published one: for each place on the first axis as many 3D convolutions as the
kernel is long. The same weights and scores, both orders of the images, in turns; that the answers
are the same is checked first. Times are the process's own on one thread, so that other work on the
machine counts little; memory is what is kept for the way back.

    python benchmarks/ncnet_speed.py
    python benchmarks/ncnet_speed.py --cells 30 --preset pf-pascal --repeats 3
"""

import argparse
import statistics
import time
from collections.abc import Callable

import measuring
import torch
from torch import Tensor
from torch.nn import functional as F

from segswap.matchers.ncnet.consensus import Consensus
from segswap.matchers.ncnet.presets import PRESETS
from segswap.matchers.ncnet.scores import correlate, mutual_filter, transposed
from segswap.matchers.ncnet.sparse import nearest

_CHANNELS = 536  # of the features of the default backbone


def looped(network: Consensus, scores: Tensor) -> Tensor:
    """The consensus of scores as the published code computes it."""
    return one_way(network, scores) + transposed(one_way(network, transposed(scores)))


def one_way(network: Consensus, scores: Tensor) -> Tensor:
    """The network in one order of the images, by a loop."""
    for layer in network.layers:
        size, around = layer.weight.shape[2], layer.weight.shape[2] // 2
        padded = F.pad(scores, (0,) * 6 + (around,) * 2).permute(2, 0, 1, 3, 4, 5).contiguous()
        kernels = layer.weight.permute(2, 0, 1, 3, 4, 5).contiguous()
        rows = []
        for row in range(scores.shape[2]):
            total = F.conv3d(padded[row], kernels[0], layer.bias, padding=around)
            for shift in range(1, size):
                total = total + F.conv3d(padded[row + shift], kernels[shift], padding=around)
            rows.append(total)
        scores = torch.stack(rows, dim=2).relu()
    return scores


def cost(network: Consensus, forward: Callable[[], Tensor], half: bool) -> tuple[float, float]:
    """Seconds of the way there and back, and the MiB that lie between."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.zero_grad(set_to_none=True)
    start = time.process_time()
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        out = forward()
    out.float().square().mean().backward()
    return time.process_time() - start, sum(kept.values()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[20, 30], help="of an image's side")
    parser.add_argument("--preset", choices=list(PRESETS), default="small")
    parser.add_argument("--nearest", type=int, default=10, help="of the sparse form")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Consensus(PRESETS[options.preset].kernels, PRESETS[options.preset].channels)
    print(f"{measuring.machine(torch)}; one thread, {options.preset}, a pair of images")
    rows = []
    for cells in options.cells:
        a, b = F.normalize(torch.randn(2, 1, _CHANNELS, cells, cells), dim=2)
        scores = mutual_filter(correlate(a, b))
        with torch.no_grad():
            off = float((network(scores) - looped(network, scores)).abs().max())
        if off > 1e-4:
            raise RuntimeError(f"the two ways' answers differ by {off}")
        ways: dict[str, tuple[Callable[[], Tensor], bool]] = {
            "loop of conv3d": (lambda x=scores: looped(network, x), False),
            "the same, bfloat16": (lambda x=scores: looped(network, x), True),
            "dense": (lambda x=scores: network(x), False),
            "dense, bfloat16": (lambda x=scores: network(x), True),
            f"sparse, k = {options.nearest}, lists and all": (
                lambda x=a, y=b: network.sparse(nearest(x, y, options.nearest)), False
            ),
        }  # fmt: skip
        found = measuring.in_turns(
            {name: lambda _, w=way: cost(network, *w) for name, way in ways.items()},
            options.repeats, warm_up=True,
        )  # fmt: skip
        base = statistics.median(seconds for seconds, _ in found["loop of conv3d"])
        for name, costs in found.items():
            times = [1000 * seconds for seconds, _ in costs]
            speed = f"{1000 * base / statistics.median(times):.1f}"
            rows.append((f"{cells} x {cells}", name, measuring.spread(times, 0), speed,
                         f"{costs[0][1]:.1f}"))  # fmt: skip
    measuring.print_table(
        ["cells", "way", "ms forward and backward", "times the loop's speed", "MiB kept"], rows
    )


if __name__ == "__main__":
    main()
