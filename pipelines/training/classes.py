"""The training of SEAM and SC-CAM, in rounds, from the classes that pictures show."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generators.networks.classes.affinity import AffinityHead, AffinityLoss, sure_labels
from generators.networks.classes.clusters import sub_categories
from generators.networks.classes.network import ClassNetwork
from generators.networks.classes.predictor import Predictor, build_network
from generators.networks.classes.samples import AffinityPictures, LabelledPictures
from generators.networks.classes.sccam import SCCAM, SCCAMLoss
from generators.networks.classes.seam import SEAM
from generators.networks.classes.seam_losses import SEAMLoss
from generators.networks.classes.tasks import ClassTask
from generators.networks.trained import Trained, trained
from pipelines.command.progress import Progress
from pipelines.training.labelled import labelled_pictures, shown
from pipelines.training.proposer_config import ClassesConfig, SccamConfig, SeamConfig
from pipelines.training.rounds import Stop, run_round
from segswap.batches.picture import pictures_hash
from segswap.files.arrays import map_array
from segswap.files.images import encode_png
from segswap.files.storage import replacing, write_atomically

SURE = "labels"  # folder in the last round's: what AffinityNet learns
CLUSTERS = "clusters.npy"  # in a round's folder: the sub-categories that it learns
_SIDE = 256  # px: longer side of the label maps
_POWERS = {"seam": (4, 24), "sccam": (4, 32)}  # of the background, where maps are sure


class ClassesTraining(ABC):
    """What both methods do; see Training. The last round lies in the run's folder, those before it
    in folders in that one.
    """

    def __init__(self, config: ClassesConfig, rounds: list[str]) -> None:
        self.config, self._rounds = config, rounds
        self.pictures, self.left_out = labelled_pictures(config)
        self.shown = shown(self.pictures)
        self.count, self.content = len(self.shown), pictures_hash(self.pictures)

    def run(self, device: torch.device, asked: Stop) -> bool:
        """See Training."""
        out, before = Path(self.config.out), None
        names = [*self._rounds, *(["affinity"] if self.config.affinity else [])]
        for number, name in enumerate(names, 1):
            folder = out if number == len(names) else out / name
            torch.manual_seed(self.config.seed)
            if name == "affinity":
                assert before is not None
                task = self._affinity(before, device, asked)
            else:
                task = self.round(folder, before, device, asked)
            if asked() or not run_round(self.config, task, folder, name, asked):
                return False
            before = folder
        return True

    @abstractmethod
    def round(
        self, folder: Path, before: Path | None, device: torch.device, asked: Stop
    ) -> ClassTask:
        """What is trained in a round in a folder, after the one in the folder `before`."""

    def new_network(self, device: torch.device, **own: Any) -> tuple[Any, Trained]:
        """A network with the backbone's own weights, and what its file is to say.

        Args:
            device: that it is on.
            own: the method's own settings of it.
        """
        config = self.config
        settings = {
            "backbone": config.backbone, "classes": list(self.pictures.kinds),
            "size": config.size, "affinity": False, **own,
        }  # fmt: skip
        network: Any = build_network(config.method, settings, config.weights)
        network.to(device, memory_format=torch.channels_last)
        return network, Trained(config.method, settings)

    def task(
        self, network: ClassNetwork, loss: SEAMLoss | SCCAMLoss, labels: NDArray[np.bool_],
        said: Trained,
    ) -> ClassTask:  # fmt: skip
        """A round that learns labels (N, L)."""
        samples = LabelledPictures(
            self.pictures.pictures, labels, self.config.size, self.config.seed, self.config.workers
        )
        return ClassTask(network, loss, samples, said)

    def _affinity(self, before: Path, device: torch.device, asked: Stop) -> ClassTask:
        """AffinityNet on the network of the last round, which stays as it is."""
        predictor, said = Predictor.load(before), trained(before)[1]
        files = self._sure_labels(predictor, before / SURE, asked)
        network = predictor.network.requires_grad_(False)
        network.affinity = AffinityHead(network.trunk.channels)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        pictures = self.pictures.pictures[: len(files)]
        samples = AffinityPictures(
            pictures, files, self.config.size, self.config.seed, self.config.workers
        )
        settings = {**said.settings, "affinity": True}
        return ClassTask(network, AffinityLoss(network), samples, Trained(said.method, settings))

    def _sure_labels(self, predictor: Predictor, folder: Path, asked: Stop) -> list[Path]:
        """Files of what the maps of each picture's classes are sure of; those that an earlier run
        has written stay.
        """
        folder.mkdir(parents=True, exist_ok=True)
        progress = Progress("labels", self.count, "pictures")
        files: list[Path] = []
        for picture, classes in zip(self.pictures.pictures, self.shown, strict=True):
            if asked():
                break
            files.append(folder / f"{len(files):06}.png")
            if not files[-1].exists():
                image = picture.read()
                factor = _SIDE / max(image.shape[:2])
                height, width = (max(1, round(side * factor)) for side in image.shape[:2])
                (known,) = np.nonzero(classes)
                seen = predictor.seen(image, (width, height), known.tolist())
                labels = sure_labels(seen.maps, _POWERS[predictor.method])
                write_atomically(files[-1], encode_png(labels))
            progress.add(1)
        progress.close()
        return files


class SeamTraining(ClassesTraining):
    """SEAM, in one round; see Training."""

    def __init__(self, config: SeamConfig) -> None:
        super().__init__(config, ["seam"])
        self._own = config

    def round(
        self, folder: Path, before: Path | None, device: torch.device, asked: Stop
    ) -> ClassTask:
        """See ClassesTraining."""
        without = self._own.without
        network, said = self.new_network(device, pcm="pcm" not in without)
        assert isinstance(network, SEAM)
        return self.task(network, SEAMLoss(network, self._own.rescale, without), self.shown, said)


class SccamTraining(ClassesTraining):
    """SC-CAM: round 0 learns classes, those after it their sub-categories, too; see Training."""

    def __init__(self, config: SccamConfig) -> None:
        super().__init__(config, [f"round{number}" for number in range(config.rounds + 1)])
        self._own = config

    def round(
        self, folder: Path, before: Path | None, device: torch.device, asked: Stop
    ) -> ClassTask:
        """See ClassesTraining."""
        clusters, labels = 0, self.shown
        if before is not None:
            clusters = self._own.clusters
            labels = np.hstack([self.shown, self._sub_labels(folder, before, asked)])
        network, said = self.new_network(device, clusters=clusters)
        assert isinstance(network, SCCAM)
        return self.task(network, SCCAMLoss(network, self._own.sub_weight), labels, said)

    def _sub_labels(self, folder: Path, before: Path, asked: Stop) -> NDArray[np.bool_]:
        """(N, C * K), by the features of the round before; those that are kept where there are."""
        path = folder / CLUSTERS
        if path.exists():
            return np.array(map_array(path, "b", 2))
        predictor, features = Predictor.load(before), []
        progress = Progress("features", self.count, "pictures")
        for picture in self.pictures.pictures:
            if asked():
                return np.zeros((self.count, 0), bool)
            features.append(predictor.features(picture.read()))
            progress.add(1)
        progress.close()
        found = sub_categories(np.stack(features), self.shown, self._own.clusters, self.config.seed)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.save(file, found, allow_pickle=False)
        return found
