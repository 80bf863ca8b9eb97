"""The facts that travel with a model version's weights."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.errors import InvalidModel

#: File name of the manifest inside a version's folder.
MANIFEST_NAME = "manifest.json"
#: The model card, where the version has one.
CARD_NAME = "card.md"


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] < pair[1]:
        raise ValueError(f"expected two ascending positive numbers, received {pair}")
    return pair


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
#: A plain file name: a manifest can never point outside its own folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


#: Lowest and highest micrometres per pixel.
MppRange = Annotated[tuple[float, float], AfterValidator(_ascending)]


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileDigest(_Fact):
    """One file of the version: checked by size and digest before it is opened."""

    name: FileName
    bytes: int = Field(gt=0)
    sha256: Sha256


class ClassInfo(_Fact):
    """One output of the model, in the order of its logits."""

    name: str
    label: str
    #: Counts towards `cancer_probability`.
    malignant: bool


class InputSpec(_Fact):
    """How a decoded RGB image becomes the model's input of shape (height, width, 3), values 0 to 255."""

    width: int = Field(gt=0, le=4096)
    height: int = Field(gt=0, le=4096)
    resample: Literal["bilinear", "bicubic", "box", "lanczos"]
    #: A JPEG may come out of its decoder at a half, a quarter or an eighth of its size, as long as each side
    #: has so many times the pixels that are needed; None: always whole. What trains is decoded the same way.
    draft: float | None = Field(default=None, ge=1, le=100)


class ColourStatistics(_Fact):
    """Mean and covariance of an image's six colour numbers (mean R, G, B, then SD R, G, B) for one class."""

    class_name: str
    mean: tuple[float, ...] = Field(min_length=6, max_length=6)
    #: Row by row, 6 x 6.
    inverse_covariance: tuple[tuple[float, ...], ...] = Field(min_length=6, max_length=6)


class FeatureStatistics(_Fact):
    """Where the training tiles lie in the network's pooled features."""

    #: Row by row: a direction in which tiles of one class vary, scaled so that they vary by 1 along it.
    projection: tuple[tuple[float, ...], ...] = Field(max_length=256)
    #: Each class's mean along those directions.
    centres: tuple[tuple[float, ...], ...]
    #: Distance to the nearest class's mean above which an image is flagged as `unfamiliar`.
    distance: float = Field(ge=0)

    @model_validator(mode="after")
    def _is_rectangular(self) -> "FeatureStatistics":
        if len({len(row) for row in self.projection}) != 1:
            raise ValueError("expected directions of one length")
        if {len(centre) for centre in self.centres} != {len(self.projection)}:
            raise ValueError(f"expected centres of {len(self.projection)} values, one per direction")
        return self


class Gates(_Fact):
    """Thresholds of the input checks; the values are measured on an image resized to 224 x 224 pixels."""

    #: A pixel is background where its smallest channel is over this value (0 to 255).
    background_level: int
    #: Share of background pixels from which an image is rejected, and from which it is flagged.
    background_reject: float
    background_warn: float
    #: Variance of the Laplacian of the grey image: flagged as `blurred` below the first value.
    sharpness_low: float
    sharpness_high: float
    #: Mahalanobis distance of the six colour numbers to the nearest class.
    domain_distance: float
    colour: tuple[ColourStatistics, ...]
    #: None in versions that were published before this gate: they flag nothing as `unfamiliar`.
    features: FeatureStatistics | None = None
    #: Outside of this, at 224 x 224 pixels, an image is flagged as `scale_mismatch`; None in versions that
    #: state no range.
    mpp: MppRange | None = None


class GoldenTile(_Fact):
    """A drawn tile with the answer that these weights gave when they were published."""

    file: FileName
    probabilities: tuple[float, ...]


class Manifest(_Fact):
    """One immutable model version."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=64)
    version: Version
    created_at: str
    licence: str
    intended_use: str
    #: The Keras archive (architecture and weights); listed in `files` too.
    weights: FileName
    #: The same network for ONNX Runtime, from float32 values 0 to 255 to logits and features; None where the
    #: version was not converted.
    onnx: FileName | None = None
    #: The same for MNN, made from that; None where the version was published before.
    mnn: FileName | None = None
    #: Layers whose outputs serving needs: before softmax, and after pooling.
    logits_layer: str
    features_layer: str
    classes: tuple[ClassInfo, ...] = Field(min_length=2)
    input: InputSpec
    #: Divides the logits before softmax; fitted on clusters that training never saw.
    temperature: float = Field(gt=0)
    #: Calibrated confidence under which the verdict is `indeterminate`.
    indeterminate_below: float = Field(ge=0, le=1)
    gates: Gates
    golden: tuple[GoldenTile, ...] = Field(min_length=1)
    #: Largest difference of a probability that still counts as the same answer.
    golden_tolerance: float = Field(gt=0, le=0.05)
    files: tuple[FileDigest, ...]
    metrics: dict[str, float | int | str]
    training: dict[str, float | int | str]

    @model_validator(mode="after")
    def _is_complete(self) -> "Manifest":
        listed = {file.name for file in self.files}
        for needed in (self.weights, self.onnx, self.mnn, *(tile.file for tile in self.golden)):
            if needed is not None and needed not in listed:
                raise ValueError(f"expected {needed} among the digested files {sorted(listed)}")
        names = [item.name for item in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"expected distinct class names, received {names}")
        if any(len(tile.probabilities) != len(names) for tile in self.golden):
            raise ValueError(f"expected {len(names)} probabilities for each golden tile")
        return self

    def digest_of(self, name: str) -> FileDigest:
        """Return the size and digest of one listed file."""
        return next(file for file in self.files if file.name == name)


def digest_of_file(path: Path) -> FileDigest:
    """Return what a file is to be checked by; raises OSError where it cannot be read."""
    body = path.read_bytes()
    return FileDigest(name=path.name, bytes=len(body), sha256=hashlib.sha256(body).hexdigest())


def parse_manifest(text: str | bytes) -> Manifest:
    """Read a manifest from its JSON text.

    Raises:
        InvalidModel: if it is no JSON, or a fact is missing, unknown or out of range.
    """
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise InvalidModel(f"Expected a complete {MANIFEST_NAME}. At {where}: {first['msg']}") from error


def is_version(text: str) -> bool:
    """Tell whether this is a version number of the form 1.2.3."""
    return re.fullmatch(r"\d+\.\d+\.\d+", text) is not None
