"""The NC-Net matcher: what it answers in each of its forms, what it learns from, its presets."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import textured
from made_matches import parts
from torch import Tensor, nn

from segswap.matchers.base import Answers, Batch, BatchSide, Matches, Side
from segswap.matchers.losses import mask_loss
from segswap.matchers.ncnet.head import refined
from segswap.matchers.ncnet.ncnet import NcnetMatcher
from segswap.matchers.ncnet.presets import PRESETS
from segswap.matchers.ncnet.terms import SCORE, TERMS, of_copies, weak_loss
from segswap.matchers.registry import build
from segswap.matchers.sampling import cell_centres
from segswap.matchers.windows import mean_around
from segswap.models.model import Model, load

LITE0: dict[str, Any] = {"backbone": "tf_efficientnet_lite0", "backbone_weights": None}
FORMS: list[dict[str, Any]] = [
    {}, {"nearest": 5}, {"relocalise": "hard"}, {"nearest": 5, "relocalise": "soft"},
]  # fmt: skip


def matcher_of(**options: Any) -> NcnetMatcher:
    torch.manual_seed(0)
    built = build("ncnet", **{**LITE0, **options})
    assert isinstance(built, NcnetMatcher)
    return built.eval()


def pictures(*seeds: int, height: int = 96, width: int = 128) -> Tensor:
    made = [torch.from_numpy(textured(height, width, seed)) for seed in seeds]
    return torch.stack(made).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def matched(matcher: NcnetMatcher, *pair: Tensor, visible: Tensor | None = None) -> Matches:
    return matcher.match(*(matcher.encode(images) for images in pair), visible)


# --- what it answers -------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_each_form_answers_of_images_of_two_shapes(form: dict[str, Any]) -> None:
    matcher = matcher_of(**form)
    matches = matched(matcher, pictures(1, 2), pictures(3, 4, height=64, width=80))
    source, target = matches.source, matches.target
    assert source.positions.shape == (2, 6, 8, 2)
    assert source.mask_logits.shape == (2, 6, 8)
    assert target.positions.shape == (2, 4, 5, 2)
    assert source.extra["correlation"].shape == (2, 48, 20)
    assert torch.equal(source.extra["correlation"].mT, target.extra["correlation"])
    assert torch.allclose(source.features.norm(dim=1), torch.ones(2, 6, 8), atol=1e-3)
    for tensor in parts(matches):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_exchanged_images_give_exchanged_answers(form: dict[str, Any]) -> None:
    matcher = matcher_of(**form)
    a, b = pictures(1), pictures(2)
    for one, other in zip(
        parts(matched(matcher, a, b)), parts(matched(matcher, b, a).reversed()), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_pairs_of_a_batch_are_matched_alone(form: dict[str, Any]) -> None:
    matcher = matcher_of(**form)
    together = parts(matched(matcher, pictures(1, 2), pictures(3, 4)))
    alone = parts(matched(matcher, pictures(2), pictures(4)))
    for one, other in zip(together, alone, strict=True):
        # Of cells that are equally good either may be the best one.
        assert ((one[1:] - other).abs() < 1e-3).float().mean() > 0.9


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_hidden_target_cells_are_matched_by_none(form: dict[str, Any]) -> None:
    matcher, images = matcher_of(**form), (pictures(1), pictures(1))
    visible = torch.zeros(1, 6, 8, dtype=torch.bool)
    visible[:, :, :4] = True
    shown = matched(matcher, *images, visible=visible).source.positions[..., 0]
    # The soft step moves by a fine cell at most.
    assert shown.max() <= 0.5 + 1 / 16
    unseen = torch.zeros_like(visible)
    all_hidden, none_hidden = matched(matcher, *images, visible=unseen), matched(matcher, *images)
    assert none_hidden.source.positions[..., 0].max() > 0.7
    for one, other in zip(parts(all_hidden), parts(none_hidden), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_blank_images_give_numbers(form: dict[str, Any], value: float) -> None:
    blank = torch.full((1, 3, 96, 128), value)
    for pair in ((blank, blank), (blank, pictures(1))):
        assert all(part.isfinite().all() for part in parts(matched(matcher_of(**form), *pair)))


def test_an_image_is_found_in_itself() -> None:
    for form in FORMS:
        source = matched(matcher_of(**form), pictures(1), pictures(1)).source
        home = cell_centres(6, 8, source.positions)
        off = (source.positions - home)[:, 1:-1, 1:-1].norm(dim=-1)
        assert off.median() < 0.08, form


def test_the_small_one_refines_positions_when_it_matches_and_the_published_ones_do_not() -> None:
    assert PRESETS["small"].refine
    assert not PRESETS["pf-pascal"].refine
    assert not PRESETS["indoor"].refine
    refining, plain = matcher_of(), matcher_of(refine=False)
    images = pictures(1), pictures(2)
    moved, stayed = (matched(each, *images).source for each in (refining, plain))
    assert not torch.allclose(moved.positions, stayed.positions, atol=1e-3)
    assert torch.equal(moved.extra["correlation"], stayed.extra["correlation"])
    assert torch.equal(moved.extra[SCORE], stayed.extra[SCORE])
    learning = matched(refining.train(), *images).source
    assert torch.equal(learning.positions, stayed.positions)


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_what_cells_show_counts_as_much_whatever_its_scale(scale: float) -> None:
    grids = torch.Size((4, 5)), torch.Size((3, 6))
    generator = torch.Generator().manual_seed(0)
    consensus, raw = torch.rand(2, 2, 20, 18, generator=generator)
    both = refined(consensus, raw, grids, None)
    assert torch.allclose(refined(consensus, scale * raw, grids, None), both, atol=1e-5)
    assert torch.allclose(refined(consensus, 0 * raw, grids, None),
                          (consensus + mean_around(consensus, grids)) / 2, atol=1e-6)  # fmt: skip


def test_where_the_consensus_says_nothing_cells_go_to_what_they_resemble() -> None:
    grids = torch.Size((4, 5)), torch.Size((4, 5))
    consensus, raw = torch.zeros(1, 20, 20), torch.eye(20)[None]
    consensus[0, 0, 19] = 3.0
    best = refined(consensus, raw, grids, None)[0].argmax(dim=1)
    assert torch.equal(best[1:], torch.arange(1, 20))


def test_images_that_no_cells_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="130 x 96 px, not multiples of 16"):
        matcher_of().encode(torch.zeros(1, 3, 96, 130))


# --- what learns, and from what --------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_the_consensus_alone_learns(form: dict[str, Any]) -> None:
    matcher = matcher_of(**form)
    learning = {name for name, p in matcher.named_parameters() if p.requires_grad}
    own = {f"consensus.{name}" for name, _ in matcher.consensus.named_parameters()}
    assert learning == own
    side = matcher(pictures(1), pictures(2)).source
    (side.mask_logits.sum() + side.extra[SCORE].sum()).backward()
    for parameter in matcher.parameters():
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0


def labelled(*shown: tuple[list[int], list[int]]) -> Batch:
    """A batch of pairs of pictures of kinds: every picture another one."""
    sides = []
    for number in range(2):
        labels = torch.tensor([pair[number] for pair in shown], dtype=torch.int8)
        count = len(labels)
        sides.append(BatchSide(
            torch.zeros(count, 3, 8, 8, dtype=torch.uint8),
            1 + number + 2 * torch.arange(count)[:, None], labels=labels,
        ))  # fmt: skip
    return Batch(*sides)


def scored(*scores: float) -> Matches:
    score = torch.tensor(scores, requires_grad=True)
    side = Side(torch.zeros(len(scores), 1, 1, 2), torch.zeros(len(scores), 1, 1),
                torch.zeros(len(scores), 1, 1, 1), {SCORE: score})  # fmt: skip
    return Matches(side, side)


CAT, DOG, UNKNOWN = [1, -1], [-1, 1], [-1, -1]


def test_the_weak_loss_is_the_score_of_others_minus_that_of_pairs() -> None:
    batch = labelled((CAT, CAT), (DOG, DOG), (CAT, DOG))
    answers = Answers(
        scored(0.5, 0.7, 0.9), batch, scored(0.1, 0.3, 0.2),
        counted_apart=torch.tensor([1.0, 1.0, 0.0]),
    )  # fmt: skip
    # A cat and a dog are no pair, and, in folders that tell no more, not known to share nothing.
    assert weak_loss(answers).item() == pytest.approx(0.2 - 0.6)
    same = Answers(scored(0.4), labelled((CAT, CAT)), scored(0.4), counted_apart=torch.ones(1))
    assert weak_loss(same).item() == 0


def test_pairs_known_to_share_nothing_are_contrast_and_generated_ones_match() -> None:
    batch = labelled(([1, 0], [0, 1]), (UNKNOWN, UNKNOWN))
    assert weak_loss(Answers(scored(0.2, 0.9), batch)).item() == pytest.approx(0.2 - 0.9)
    plain = Batch(*(side._replace(labels=None) for side in batch))
    negatives = Answers(scored(0.2, 0.9), plain, scored(0.3), counted_apart=torch.ones(1))
    assert weak_loss(negatives).item() == pytest.approx(0.3 - 0.55)


@pytest.mark.parametrize(
    ("batch", "counted"),
    [(labelled((CAT, CAT)), 0.0), (labelled((CAT, DOG)), 1.0)], ids=["no contrast", "no match"],
)  # fmt: skip
def test_a_batch_that_lacks_either_sort_teaches_nothing(batch: Batch, counted: float) -> None:
    matches = scored(0.4)
    loss = weak_loss(
        Answers(matches, batch, scored(0.2), counted_apart=torch.tensor([counted]))
    )  # fmt: skip
    loss.backward()
    assert loss.item() == 0
    assert matches.source.extra[SCORE].grad.item() == 0


def test_masks_are_learned_of_copies_alone() -> None:
    """A pair with itself, whose kind has a mask, and a pair of one kind with masks."""
    same = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    valid = torch.tensor([[[True, False]], [[False, False]]])
    batch = labelled((CAT, CAT), (CAT, CAT))
    sides = [
        side._replace(mask=torch.ones(2, 1, 2), same=same, valid=valid,
                      positions=torch.zeros(2, 1, 2, 2)) for side in batch
    ]  # fmt: skip
    logits = torch.tensor([[[20.0, -20.0]], [[-20.0, 20.0]]])
    side = Side(torch.zeros(2, 1, 2, 2), logits, torch.zeros(2, 1, 1, 2))
    answers = Answers(Matches(side, side), Batch(*sides))
    assert of_copies(mask_loss)(answers).item() == pytest.approx(0, abs=1e-6)
    assert mask_loss(answers).item() > 10
    wrong = replace(side, mask_logits=-logits)
    there = of_copies(mask_loss)(replace(answers, matches=Matches(wrong, wrong)))
    assert there.item() == pytest.approx(2 * 20, rel=1e-3)


def test_its_terms_need_no_masks_of_kinds_and_no_keypoints() -> None:
    assert [term.name for term in TERMS] == ["weak", "mask", "transfer", "corr", "correlation"]
    assert not any(term.needs & {"mask", "keypoints", "label"} for term in TERMS)


# --- presets and published weights -----------------------------------------------------------


def published_state(matcher: NcnetMatcher) -> dict[str, Tensor]:
    """A matcher's weights as the published code names and lays them out."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6}
    state = {}
    for key, value in matcher.backbone.net.state_dict().items():
        module, _, rest = key.partition(".")
        state[f"FeatureExtraction.model.{numbers[module]}.{rest}"] = value
    for number, layer in enumerate(matcher.consensus.layers):
        prefix = f"NeighConsensus.conv.{2 * number}."
        state[prefix + "weight"] = layer.weight.detach().permute(2, 0, 1, 3, 4, 5).contiguous()
        state[prefix + "bias"] = layer.bias.detach()
    return state


@pytest.mark.parametrize("preset", ["indoor", "pf-pascal"])
def test_presets_take_weights_of_the_published_layout(preset: str, tmp_path: Path) -> None:
    # The same layout of modules as ResNet-101's, in less time.
    small = {"preset": preset, "backbone": "resnet50", "backbone_weights": None}
    first, file = matcher_of(**small), tmp_path / "ncnet.pth.tar"
    torch.save({"epoch": 5, "state_dict": published_state(first)}, file)
    torch.manual_seed(1)
    second = build("ncnet", preset=preset, backbone="resnet50", published_weights=str(file))
    mine = first.state_dict()
    for key, value in second.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, mine[key]), key


def test_the_published_preset_is_resnet_101_up_to_its_third_layer() -> None:
    with torch.device("meta"):
        matcher = build("ncnet", preset="pf-pascal", backbone_weights=None)
    assert isinstance(matcher, NcnetMatcher)
    assert matcher.backbone.name == "resnet101"
    assert matcher.backbone.channels == (1024,)
    assert not any(name.startswith("layer4") for name, _ in matcher.backbone.net.named_modules())
    assert sum(p.numel() for p in matcher.consensus.parameters()) == 180_033


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    small = {"preset": "indoor", "backbone": "resnet50"}
    state = published_state(matcher_of(**small, backbone_weights=None))
    file = tmp_path / "other.pth"
    for change, message in (
        ({"NeighConsensus.conv.2.weight": torch.zeros(5, 1, 16, 5, 5, 5)},
         "layers.1.weight is .*expected .1, 16, 3, 3, 3, 3.*choose the preset"),
        ({"FeatureExtraction.model.0.weight": None}, "conv1.weight is missing"),
    ):  # fmt: skip
        merged = {**state, **change}
        torch.save({k: v for k, v in merged.items() if v is not None}, file)
        with pytest.raises(ValueError, match=message):
            build("ncnet", **small, published_weights=str(file))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "pf-pascal"}, "backbone that ships is tf_efficientnet_lite2, not resnet101"),
        ({"backbone": "resnet50"}, "not resnet50; give --backbone-weights timm"),
        ({"published_weights": "a.pth"}, "give --preset pf-pascal or --preset indoor"),
        ({"preset": "indoor", "published_weights": "a.pth", "backbone_weights": "timm"},
         "leave one of them out"),
        ({"preset": "large"}, "unknown preset 'large'; expected one of small, pf-pascal, indoor"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NcnetMatcher.check_new(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vit_small_patch14_dinov2"}, "no features of stride 16; it has 14"),
        ({"backbone": "vit_tiny_patch16_224", "relocalise": "hard"}, "no features of stride 8"),
        ({"nearest": -1}, "--nearest is -1"),
    ],
)
def test_what_cannot_be_built_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("ncnet", **options, backbone_weights=None)


def test_any_backbone_with_cells_of_16_px_will_do() -> None:
    matcher = matcher_of(backbone="resnet18", relocalise="soft")
    assert isinstance(matcher.backbone, nn.Module)
    assert matcher.backbone.channels == (128, 256)
    assert matched(matcher, pictures(1), pictures(2)).source.positions.shape == (1, 6, 8, 2)


def test_a_model_holds_its_consensus_alone(tmp_path: Path) -> None:
    matcher = build("ncnet", nearest=7)
    settings = {"matcher": "ncnet", "options": {"nearest": 7}, "size": 320}
    Model(matcher, settings).save(tmp_path, half=True)
    assert (tmp_path / "model.safetensors").stat().st_size < 10_000
    loaded = load(tmp_path).matcher
    assert isinstance(loaded, NcnetMatcher)
    assert loaded.nearest == 7
    for key, value in matcher.state_dict().items():
        assert torch.allclose(loaded.state_dict()[key].float(), value.float(), atol=1e-2), key
