"""A training step of the transformer matcher: against the published layout, and against the peak.

On the CPU: forward and backward of the cross-image transformer alone (small, 480 px images, so 900
cells each), once as this package computes it, two attentions of 900 x 900 through
scaled_dot_product_attention, once as published, one attention of 1800 x 1800 over both images with
a mask; the same weights, in turns, both with dropout. Without dropout both give the same answers,
which is checked first. A third row is this package's in bfloat16.

On a GPU: the whole training step in bfloat16 (frozen ResNet-50, transformer, three losses,
negatives), as samples a second, and as a share of the rate of one large matrix product.

    python benchmarks/transformer_step.py
    python benchmarks/transformer_step.py --device cuda --batch 16
"""

import argparse
import statistics
from collections.abc import Callable

import measuring
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segswap.matchers.base import Batch, BatchSide
from segswap.matchers.sampling import cell_centres
from segswap.matchers.transformer import (
    ARCHITECTURES,
    PairLayer,
    PairTransformer,
    TransformerMatcher,
)
from segswap.training.objective import Objective

CELLS, SIZE, CHANNELS = 30, 480, 1024


def published(model: PairTransformer, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The transformer's answers, its layers computed over the cells of both images in a row."""
    both = torch.cat([model._cells(source), model._cells(target)], dim=1)
    code = torch.cat([model._code(source), model._code(target)])
    own = torch.arange(both.shape[1]) < CELLS * CELLS
    within = own[:, None] == own[None]
    for layer in model.layers:
        assert isinstance(layer, PairLayer)
        if not layer.cross:
            both = both + code
        attention = nn.MultiheadAttention(
            model.width, layer.heads, dropout=layer.dropout.p, batch_first=True
        ).train(layer.training)
        attention.in_proj_weight, attention.in_proj_bias = layer.project.weight, layer.project.bias
        attention.out_proj = layer.combine
        gathered, _ = attention(both, both, both, attn_mask=within if layer.cross else ~within)
        both = layer.norm1(both + layer.dropout(gathered))
        changed = layer.contract(layer.dropout(torch.relu(layer.expand(both))))
        both = layer.norm2(both + layer.dropout(changed))
    s, t = both.split(CELLS * CELLS, dim=1)
    return model._logits(s, source.shape[-2:]), model._logits(t, target.shape[-2:])


def seconds(step: Callable[[], None], repeats: int, device: torch.device) -> list[float]:
    """Time of each of so many runs of a step, after one that does not count."""

    def run() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    return [measuring.seconds(run) for _ in range(repeats)]


def layouts(batch: int, repeats: int) -> None:
    """Compare the two layouts on the CPU."""
    torch.manual_seed(0)
    model = PairTransformer(CHANNELS, ARCHITECTURES["small"]).eval()
    source, target = torch.randn(2, batch, CHANNELS, CELLS, CELLS)
    with torch.no_grad():
        ours, theirs = model(source, target), published(model, source, target)
    worst = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    if worst > 1e-3:
        raise RuntimeError(f"the two layouts' answers differ by {worst}")
    model.train()

    def step(forward: Callable[[], tuple[Tensor, Tensor]], half: bool = False) -> float:
        def run() -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                s, t = forward()
            (s.square().mean() + t.square().mean()).backward()

        return seconds(run, 1, torch.device("cpu"))[0]

    times = measuring.in_turns({
        "published layout": lambda _: step(lambda: published(model, source, target)),
        "this package": lambda _: step(lambda: model(source, target)),
        "... bf16": lambda _: step(lambda: model(source, target), half=True),
    }, repeats)  # fmt: skip
    print(f"{measuring.machine(torch)}; {torch.get_num_threads()} threads, batch {batch}, "
          f"{repeats} repeats")  # fmt: skip
    base = statistics.median(times["published layout"])
    for name, values in times.items():
        print(f"{name:18} {measuring.spread(values, 2)} s, "
              f"{base / statistics.median(values):.2f} times the published layout's speed"
        )  # fmt: skip


def on_gpu(device: torch.device, batch: int, repeats: int) -> None:
    """Samples a second of the whole step, and its share of what a matrix product reaches."""
    torch.manual_seed(0)
    matcher = TransformerMatcher("small", freeze_backbone=True).to(device).train()
    images = torch.randint(0, 256, (2, batch, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
    mask = torch.rand(2, batch, CELLS, CELLS, device=device)
    centres = cell_centres(CELLS, CELLS, mask).expand(batch, -1, -1, -1)
    shown = 1 + torch.arange(batch, device=device)[:, None]  # every pair of photographs of its own
    data = Batch(*(
        BatchSide(image, shown, soft, centres, soft > 0.5)
        for image, soft in zip(images, mask, strict=True)
    ))  # fmt: skip
    objective = Objective(matcher, {"mask": 1.0, "transfer": 1.0, "corr": 1.0}, negatives=3)
    optimiser = torch.optim.Adam([p for p in matcher.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = objective(data)["loss"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    step()
    with FlopCounterMode(display=False) as counter:
        step()
    median = statistics.median(seconds(step, repeats, device))
    side = 8192
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)

    def multiply() -> None:
        torch.mm(a, b)

    product = statistics.median(seconds(multiply, 10, device))
    reached = counter.get_total_flops() / median / 1e12
    peak = 2 * side**3 / product / 1e12
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, batch {batch} and "
          f"{3 * batch} negatives, {repeats} repeats")  # fmt: skip
    print(f"step {1000 * median:.1f} ms: {batch / median:.0f} pairs/s, "
          f"{4 * batch / median:.0f} with the negatives")  # fmt: skip
    print(f"{reached:.0f} TFLOP/s, {reached / peak:.0%} of a matrix product's {peak:.0f}; "
          f"memory {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu compares layouts, cuda times a step")
    parser.add_argument("--batch", type=int, default=4, help="pairs a step")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        layouts(options.batch, options.repeats)
    else:
        on_gpu(device, options.batch, options.repeats)


if __name__ == "__main__":
    main()
