"""What one experiment is: every number that decides a training run, read from a TOML file."""

import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.manifest import InputSpec
from training.errors import TrainingError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitPlan(_Section):
    """How clusters are dealt out; a fold is one part in so many."""

    seed: int = 1
    test_folds: int = Field(default=5, ge=2)
    #: Which of the test folds this run holds out.
    test_fold: int = Field(default=0, ge=0)
    #: Of the clusters that are not in the test fold, one part in so many for each of the two parts below.
    held_out_folds: int = Field(default=10, ge=3)


class ExpertPlan(_Section):
    """The size of one expert: one entry per block of convolutions, with pooling between blocks."""

    #: Filters of a first convolution of 5 x 5 with stride 2 and pooling; 0 leaves it out. It spends the
    #: multiply-accumulates where the maps are small, which a CPU does in half the time.
    stem_filters: int = Field(default=0, ge=0)
    filters: tuple[int, ...] = Field(default=(16, 32, 64, 96, 128), min_length=1)
    convolutions: tuple[int, ...] = (1, 1, 2, 2, 2)
    #: The features are the averages of so many blocks, counted from the last; the first convolution, before
    #: its pooling, counts as a block.
    pooled_blocks: int = Field(default=1, gt=0)
    #: Filters of a convolution of 1 x 1 ahead of each average: what is averaged then is how often a small
    #: structure occurs, apart from what the next block makes of it. 0 leaves it out.
    tap_filters: int = Field(default=0, ge=0)
    #: Filters of two convolutions of 1 x 1 on the pixels of a quarter of the size: a histogram of colours
    #: whose bins are learned. Without any, there is none.
    colour_filters: tuple[int, ...] = Field(default=(), max_length=2)
    #: Whether each map gives its standard deviation beside its average.
    spread: bool = False
    #: Whether the features' square roots are taken and normalised: a rare structure then counts like a
    #: frequent one (as with histograms that are compared by Hellinger's distance).
    root: bool = False
    #: Dropout of features, before the dense layer.
    feature_dropout: float = Field(default=0.0, ge=0, lt=1)
    dense_units: int = Field(default=64, gt=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)

    @model_validator(mode="after")
    def _has_a_count_per_block(self) -> Self:
        if len(self.filters) != len(self.convolutions):
            raise ValueError(
                f"Expected one count of convolutions per block. Received: {self.filters}, {self.convolutions}"
            )
        return self


class NetworkPlan(ExpertPlan):
    """The network: an expert that is trained on varied tiles, and perhaps a second one beside it."""

    #: An expert that is trained on tiles as they are. Colour and fine texture tell it more than the other,
    #: and mislead it once they change: a gate lets it speak where a tile looks as the training set's do.
    plain: ExpertPlan | None = None
    #: Units of the gate's dense layer.
    gate_units: int = Field(default=32, gt=0)


class AugmentPlan(_Section):
    """Strength of each augmentation; 0 turns it off. The eight symmetries are always on."""

    #: Largest relative change of the haematoxylin and eosin amounts.
    stain: float = Field(default=0.15, ge=0, lt=1)
    #: Largest relative change of brightness and of each colour channel.
    colour: float = Field(default=0.05, ge=0, lt=1)
    #: Largest relative change of contrast.
    contrast: float = Field(default=0.1, ge=0, lt=1)
    #: Up to this much blurred or, half as much, sharpened.
    blur: float = Field(default=0.6, ge=0, le=1)
    #: Standard deviation of the strongest pixel noise, in grey levels.
    noise: float = Field(default=3.0, ge=0)
    #: Largest relative change of scale: 0.35 is from 1 / 1.35 to 1.35.
    zoom: float = Field(default=0.35, ge=0, lt=1)
    #: Largest turn in degrees, on top of the quarter turns.
    rotation: float = Field(default=20.0, ge=0, le=45)
    #: Share of tiles that lose their colour.
    grey: float = Field(default=0.0, ge=0, le=1)


class TrainPlan(_Section):
    """The schedule."""

    seed: int = 1
    epochs: int = Field(default=36, gt=0)
    #: Copies of one source tile that an epoch sees: they carry little that is new, and cost hours.
    copies_per_cluster: int = Field(default=6, gt=0)
    batch_size: int = Field(default=64, gt=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    warm_up_epochs: float = Field(default=2.0, ge=0)
    weight_decay: float = Field(default=0.02, ge=0)
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    #: Largest share of another tile, and of its label, that is blended into a tile.
    mixup: float = Field(default=0.0, ge=0, le=0.5)
    #: Fit the validation clusters too: for the last run of all, when the recipe is chosen.
    with_validation: bool = False
    #: Share that the averaged weights keep of themselves at each step.
    average_decay: float = Field(default=0.995, ge=0, lt=1)


class Experiment(_Section):
    """One experiment, complete: two equal ones give the same weights on the same machine."""

    input: InputSpec = InputSpec(width=128, height=128, resample="bicubic")
    split: SplitPlan = SplitPlan()
    network: NetworkPlan = NetworkPlan()
    augment: AugmentPlan = AugmentPlan()
    train: TrainPlan = TrainPlan()

    @model_validator(mode="after")
    def _is_square(self) -> Self:
        if self.input.width != self.input.height:  # tiles are turned by quarters
            raise ValueError(f"Expected a square input. Received: {self.input.width} x {self.input.height}")
        return self


def read_experiment(path: Path) -> Experiment:
    """Read an experiment from its TOML file; what the file leaves out has its default.

    Raises:
        TrainingError: if the file is missing, no TOML, or names an unknown or impossible setting.
    """
    try:
        return Experiment.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"Expected a readable TOML file. Received: {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "input"
        raise TrainingError(f"Expected a known setting in {path.name}. At {where}: {first['msg']}") from error
