"""Where a network is cut: after the deepest map that is asked for, by its stride or its name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import Format
from timm.models import FeatureDictNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

Level = int | str
_PROBE = 64  # px: a multiple of all strides, and soon computed


@dataclass(frozen=True)
class Cut:
    """How maps at some levels come out of a timm feature network.

    Attributes:
        name: of the timm model.
        settings: what timm is asked for, besides features.
        steps: modules that are run one after another, where levels have names; else the network
            itself gives the maps.
        places: of each level, in the steps or among the network's maps.
        last: the module that everything after it is cut off from; None where timm did so.
    """

    name: str
    settings: dict[str, Any]
    steps: tuple[str, ...]
    places: tuple[int, ...]
    last: str | None

    def create(self, pretrained: bool = False, **more: Any) -> Any:
        """The network, without what comes after the deepest level."""
        net = timm.create_model(
            self.name, pretrained=pretrained, features_only=True, **self.settings, **more
        )
        if self.last is not None:
            cut_after(net, self.last)
        return net

    def maps(self, net: nn.Module, images: Tensor) -> list[Tensor]:
        """The map of each level, as the network lays it out, of normalised images."""
        if not self.steps:
            made = net(images)
        else:
            made = []
            for step in self.steps:
                images = net.get_submodule(step)(images)
                made.append(images)
        return [made[place] for place in self.places]


def find_cut(name: str, levels: Sequence[Level]) -> Cut:
    """Where a timm model's levels are: strides, whose last map is meant, or modules by name.

    Raises:
        ValueError: there is no such level, or timm cannot make features of the model.
    """
    try:
        net: Any = timm.create_model(name, pretrained=False, features_only=True)
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"timm cannot make a feature network of {name!r}: {error}") from error
    last = {info["reduction"]: index for index, info in enumerate(net.feature_info.info)}
    for level in levels:
        if isinstance(level, int) and level not in last:
            known = ", ".join(map(str, sorted(last)))
            raise ValueError(f"{name} has no features of stride {level}; it has {known}")
    named = _modules_of_maps(net)
    if any(isinstance(level, str) for level in levels):
        paths = [named[last[level]] if isinstance(level, int) else level for level in levels]
        return _cut_by_name(name, net, paths)
    wanted = sorted({last[stride] for stride in levels if isinstance(stride, int)})
    settings: dict[str, Any] = {"out_indices": tuple(wanted)}
    if hasattr(getattr(net, "model", None), "dynamic_img_size"):
        settings["dynamic_img_size"] = True
    places = tuple(wanted.index(last[level]) for level in levels if isinstance(level, int))
    return Cut(name, settings, (), places, named[wanted[-1]] if named else None)


def cut_after(net: nn.Module, path: str) -> None:
    """Take off all modules that come after one, in it and in what it is part of."""
    parent, names = net, path.split(".")
    for name in names:
        children = [child for child, _ in parent.named_children()]
        for later in children[children.index(name) + 1 :]:
            delattr(parent, later)
        parent = parent.get_submodule(name)


def _modules_of_maps(net: Any) -> list[str]:
    """The module that gives each of timm's maps, where the network runs its modules in order and
    does nothing else; empty where it does, or where channels come last.
    """
    if isinstance(net, FeatureDictNet) and net.output_fmt == Format.NCHW:
        return list(net.return_layers)
    if isinstance(net, EfficientNetFeatures | MobileNetV3Features):
        return list(net.feature_info.module_name())
    return []


def _cut_by_name(name: str, net: Any, paths: Sequence[str]) -> Cut:
    named = list(_stages_and_blocks(net)) if _modules_of_maps(net) else []
    allowed = {*named, *_modules_of_maps(net)}
    for path in paths:
        if path not in allowed:
            known = ", ".join(_ranges(named)) or "none that can be had by name, only strides"
            raise ValueError(f"{name} has no stage or block {path!r}; it has {known}")
    steps = _steps(net, "", paths)
    places = [
        max(i for i, step in enumerate(steps) if f"{step}.".startswith(f"{path}."))
        for path in paths
    ]
    end = max(places) + 1
    return Cut(name, {}, tuple(steps[:end]), tuple(places), steps[end - 1])


def _stages_and_blocks(parent: nn.Module, prefix: str = "") -> Iterable[str]:
    """Paths of modules in the order in which they are run, stages before their blocks."""
    for name, child in parent.named_children():
        # A single layer's output is none to keep: an activation may be computed in its place.
        if any(True for _ in child.children()):
            yield prefix + name
        if isinstance(child, nn.Sequential):
            yield from _stages_and_blocks(child, f"{prefix}{name}.")


def _steps(parent: nn.Module, prefix: str, paths: Sequence[str]) -> list[str]:
    """Modules that follow each other, cut up no further than the paths ask for."""
    steps = []
    for name, child in parent.named_children():
        path = prefix + name
        inside = any(wanted.startswith(f"{path}.") for wanted in paths)
        steps += _steps(child, f"{path}.", paths) if inside else [path]
    return steps


def _ranges(paths: Sequence[str]) -> list[str]:
    """The paths, blocks of a stage as one entry: "layer1.0 to layer1.2"."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        stage, dot, number = path.rpartition(".")
        groups.setdefault(stage + dot if number.isdigit() else path, []).append(path)
    return [p[0] if len(p) == 1 else f"{p[0]} to {p[-1]}" for p in groups.values()]


@torch.no_grad()
def shapes(cut: Cut, net: Any, levels: Sequence[Level]) -> tuple[list[int], list[int]]:
    """Channels and strides of the levels.

    Raises:
        ValueError: what comes out is no map.
    """
    if not cut.steps:
        channels = net.feature_info.channels()
        return [channels[place] for place in cut.places], [int(level) for level in levels]
    training = net.training
    try:
        maps = cut.maps(net.eval(), torch.zeros(1, 3, _PROBE, _PROBE))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{cut.name} takes no images of {_PROBE} px ({error}); ask for strides, not for modules"
        ) from error
    finally:
        net.train(training)
    return [features.shape[1] for features in maps], [_PROBE // f.shape[2] for f in maps]
