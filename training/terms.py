"""The words that travel with every published model version: terms, citations, intended use."""

from pathlib import Path
from typing import Final

from training.errors import TrainingError

#: The digest of the tiles that the bundled model was trained on: LC25000's lung half at 224 pixels, with the
#: clusters of LC25000-clean. Of any other tiles nothing is claimed that was not said.
LC25000_LUNG: Final = "7f96e7cd7c7282913e149faf0d4941d4e5d4c9052173a7a1333cbf75bbfb21df"
#: In a data folder: where its tiles come from and under what terms, in words that its versions repeat.
NOTICE_NAME: Final = "NOTICE"
LICENCE: Final = "CC-BY-SA-4.0"
INTENDED_USE: Final = (
    "Research use only, not for diagnostic use. Classifies square tiles of H&E-stained lung tissue, at 0.35"
    " to 0.6 micrometres per pixel at 224 pixels, as benign, adenocarcinoma or squamous cell carcinoma."
    " Out of scope: whole slides as one image, cytology, frozen sections, other organs, other tumours."
)
LICENCE_TEXT: Final = """\
The files of this model version are licensed under the Creative Commons
Attribution-ShareAlike 4.0 International licence (CC BY-SA 4.0).

Full text: https://creativecommons.org/licenses/by-sa/4.0/legalcode

You may share and adapt them, also commercially, if you give credit (see
NOTICE), say what you changed, and pass your version on under the same
licence. They come without any warranty.
"""
_OF_LC25000: Final = """\
The weights were trained on the lung tiles of LC25000:
  Borkowski A. A., Bui M. M., Thomas L. B., Wilson C. P., DeLand L. A.,
  Mastorides S. M.: Lung and Colon Cancer Histopathological Image Dataset
  (LC25000). 2019. arXiv:1912.12142v1

Training and test tiles were kept apart by the source-tile clusters of
LC25000-clean (CC BY 4.0):
  Batchkala G., Li B., Rittscher J.: LC25000-clean. 2024.
  doi:10.1007/978-3-031-73748-0_2
"""
_NOT_SAID: Final = """\
Where the tiles come from that the weights were trained on, and under what
terms, whoever made this version has not said.
"""
_NOTICE: Final = """\
HistoQueue lung-cnn
Research use only, not for diagnostic use.

{origin}

The golden tiles are drawings made by HistoQueue; no image of a patient is
part of this model version.

Weights: CC BY-SA 4.0, see LICENSE.
"""


def describe_dataset(sha256: str) -> str:
    """Return the name of a set of tiles, by its digest, as far as it is known here."""
    if sha256 == LC25000_LUNG:
        return "LC25000 lung, split by the clusters of LC25000-clean"
    return "tiles of a folder; NOTICE says what is known of them"


def notice_of(sha256: str, data: Path) -> str:
    """Return what a version says of the tiles with this digest that lie in `data`.

    Raises:
        TrainingError: if what the folder says of them cannot be read.
    """
    path = data / NOTICE_NAME
    origin = _OF_LC25000 if sha256 == LC25000_LUNG else _NOT_SAID
    if path.exists():
        try:
            origin = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"Expected {path} to be text in UTF-8. Received: {error}") from error
    return _NOTICE.format(origin=origin.strip())
